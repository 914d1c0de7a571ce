//! Any bytes as a guest's declaration.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = nsa_harness::readers::hello(bytes);
});
