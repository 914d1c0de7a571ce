//! Times as people write them.

use std::time::Duration;

/// The time that `text` says, which is none too short to test anything: `30s`, `1h30m`, `2days`; a whole number alone counts
/// seconds.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(Duration::from_secs);
    let time = seconds.or_else(|_| humantime::parse_duration(text));
    match time.map_err(|error| format!("{error}; write 30s, 5m or 1h30m"))? {
        Duration::ZERO => Err("in no time nothing would be tested".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them_and_nothing_else_is() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1h 30m", 5400), ("90", 90)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "5x", "-5m", "five minutes", "1e9999s", "99999999999999999999d"] {
            let refusal = parse(text).unwrap_err();
            assert!(refusal.contains("1h30m"), "{text}: {refusal}");
        }
        assert_eq!(parse("0s"), Err("in no time nothing would be tested".to_owned()));
    }
}
