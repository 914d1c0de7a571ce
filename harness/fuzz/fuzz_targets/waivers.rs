//! Any bytes as the file of waivers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = nsa_harness::readers::waivers(bytes);
});
