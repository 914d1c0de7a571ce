//! Any bytes as a file of inputs and answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = nsa_harness::readers::golden(bytes);
});
