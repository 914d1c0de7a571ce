//! Any bytes as a file of entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = nsa_harness::readers::entry(bytes);
});
