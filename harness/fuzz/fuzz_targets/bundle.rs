//! Any bytes as a stored failure.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = nsa_harness::readers::bundle(bytes);
});
