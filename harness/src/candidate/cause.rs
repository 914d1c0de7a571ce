//! What a candidate's error is called, apart from what it says of one case: what tells failures of one class apart.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of an error, said where the error is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", from = "String")]
#[schemars(with = "String")]
pub enum Cause {
    /// It has none.
    #[default]
    Unnamed,
    /// The implementation panicked.
    Panic,
    /// Its process ended with this code.
    Exit(i32),
    /// Its process was ended by this signal.
    Signal(i32),
    /// What the implementation, a compiler or a driver calls it: `ValueError`.
    Named(String),
}

impl Cause {
    /// A name that somebody else gave: without numbers, which differ from case to case, and not too long.
    pub fn named(name: &str) -> Self {
        let name: String = name.chars().filter(|letter| !letter.is_ascii_digit()).take(40).collect();
        match name.trim() {
            "" => Cause::Unnamed,
            name => Cause::Named(name.to_owned()),
        }
    }

    /// How a process ended.
    pub fn of_ending(status: ExitStatus) -> Self {
        let code = status.code().map(Cause::Exit);
        code.or_else(|| status.signal().map(Cause::Signal)).unwrap_or_default()
    }

    /// The name that an error's text begins with, as a guest writes it: `ValueError: 3 is odd` is a `ValueError`.
    pub fn of_foreign(text: &str) -> Self {
        Cause::named(text.split([':', ';', '\n']).next().unwrap_or(text))
    }

    /// Whether it has none.
    pub fn is_unnamed(&self) -> bool {
        *self == Cause::Unnamed
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unnamed => Ok(()),
            Cause::Panic => f.write_str("panic"),
            Cause::Exit(code) => write!(f, "exit {code}"),
            Cause::Signal(signal) => write!(f, "signal {signal}"),
            Cause::Named(name) => f.write_str(name),
        }
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.to_string()
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        let number = |word: &str| text.strip_prefix(word)?.parse().ok();
        match text.as_str() {
            "panic" => Cause::Panic,
            text => {
                let numbered = number("exit ").map(Cause::Exit).or_else(|| number("signal ").map(Cause::Signal));
                numbered.unwrap_or_else(|| Cause::named(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_read_as_it_is_written() {
        let causes = [Cause::Unnamed, Cause::Panic, Cause::Exit(1), Cause::Signal(11), Cause::named("ValueError")];
        for cause in causes {
            assert_eq!(Cause::from(cause.to_string()), cause);
        }
    }

    #[test]
    fn what_a_guest_says_is_called_by_its_name_alone() {
        assert_eq!(Cause::of_foreign("ValueError: 3 is odd"), Cause::of_foreign("ValueError: 5 is odd"));
        assert_eq!(Cause::of_foreign("ValueError: 3 is odd"), Cause::Named("ValueError".to_owned()));
        assert_eq!(Cause::of_foreign("7: "), Cause::Unnamed);
        assert_eq!(Cause::of_ending(ExitStatus::from_raw(11)), Cause::Signal(11));
        assert_eq!(Cause::of_ending(ExitStatus::from_raw(3 << 8)), Cause::Exit(3));
    }
}
