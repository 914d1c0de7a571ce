//! What a report says of where it was made.

use serde_json::{Value, json};

/// The program's version, the machine's kind and the number of threads.
pub fn describe() -> Value {
    json!({
        "nsa_diff": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "threads": rayon::current_num_threads(),
    })
}
