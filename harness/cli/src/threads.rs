//! How many threads the program computes with.

use super::Refusal;

/// More threads than any machine has processors for; a hundred thousand never finish starting.
const THREADS_MAX: usize = 1024;

/// Holds the numbers of threads that the environment asks for against [`THREADS_MAX`], before any thread is started.
pub(super) fn check_environment() -> Result<(), Refusal> {
    for name in ["RAYON_NUM_THREADS", "RAYON_RS_NUM_CPUS"] {
        let Some(value) = std::env::var_os(name) else { continue };
        let number = value.to_str().and_then(|text| text.parse::<usize>().ok());
        if number.is_none_or(|number| number > THREADS_MAX) {
            let value = value.to_string_lossy();
            return Err(Refusal::new(format!("{name} is `{value}`, expected a whole number of at most {THREADS_MAX}")));
        }
    }
    Ok(())
}
