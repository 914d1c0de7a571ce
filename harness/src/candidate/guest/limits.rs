//! How a guest is held: time, memory and processes, as the environment says.

use std::path::Path;
use std::time::Duration;

use super::super::Unavailable;

/// A week: longer than anyone waits for one case.
const SECONDS_MAX: u64 = 7 * 24 * 3600;
/// 2^40 MiB are more than processors can address, and still fit where they are counted in KiB.
const MEMORY_MIB_MAX: u64 = 1 << 40;
/// Each process is a whole interpreter.
const PROCESSES_MAX: u64 = 256;

/// How a guest is held.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For one case, the guest's compilation of kernels included.
    pub case: Duration,
    /// From its start to its declaration: importing a framework takes a while.
    pub start: Duration,
    /// Address space in MiB; `None`: no limit. A CUDA context reserves more address space than any limit that would help.
    pub memory_mib: Option<u64>,
    /// Processes that may run at once, each asked for one case at a time.
    pub processes: usize,
}

impl Limits {
    /// `NSA_GUEST_TIMEOUT_S` (60), `NSA_GUEST_MEMORY_MIB` (8192; without an NVIDIA device only) and
    /// `NSA_GUEST_PROCESSES` (1).
    ///
    /// # Errors
    /// One of them is set to something else than a whole number within its range.
    pub fn from_environment() -> Result<Self, Unavailable> {
        let number = |name: &str, max| match std::env::var_os(name) {
            Some(value) => whole(name, &value.to_string_lossy(), max).map(Some),
            None => Ok(None),
        };
        let seconds = number("NSA_GUEST_TIMEOUT_S", SECONDS_MAX)?.unwrap_or(60);
        let gpu = Path::new("/dev/nvidia0").exists();
        Ok(Limits {
            case: Duration::from_secs(seconds),
            start: Duration::from_secs(seconds.max(120)),
            memory_mib: number("NSA_GUEST_MEMORY_MIB", MEMORY_MIB_MAX)?.or((!gpu).then_some(8192)),
            processes: number("NSA_GUEST_PROCESSES", PROCESSES_MAX)?.unwrap_or(1) as usize,
        })
    }
}

/// `text`, the value of the variable `name`, as a whole number of `1..=max`.
fn whole(name: &str, text: &str, max: u64) -> Result<u64, Unavailable> {
    match text.parse() {
        Ok(number @ 1..) if number <= max => Ok(number),
        _ => Err(Unavailable(format!("{name} is `{text}`, expected a whole number from 1 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_whole_number_within_its_range_or_an_error_that_names_both() {
        assert_eq!(whole("NSA_X", "17", 20), Ok(17));
        for text in ["", "0", "21", "-1", "1.5", "8 GiB", "18014398509481984", "99999999999999999999"] {
            let error = whole("NSA_X", text, 20).unwrap_err().to_string();
            assert!(error.contains("NSA_X") && error.contains(&format!("`{text}`")), "{error}");
        }
        assert!(MEMORY_MIB_MAX.checked_mul(1024).is_some());
    }
}
