//! The one error type of this crate: what was wrong, naming both values or the offending position, and the file it
//! was found in. Text of a file or another program stands in a message only through [`shown`] or [`quoted`].

use std::path::Path;

/// The longest message, in bytes: a cause and a file are said in a line.
const MESSAGE_BYTES_MAX: usize = 600;
/// The longest path that is shown whole.
const PATH_BYTES_MAX: usize = 300;
/// The longest piece of foreign text that is quoted whole.
const QUOTED_BYTES_MAX: usize = 80;

/// Why a shape, a case, an entry or a file was refused. The text is one line of bounded length without control characters,
/// whatever a file holds.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("{0}")]
    Invalid(String),
    #[error("{path}: {source}")]
    In { path: String, source: Error },
}

impl Error {
    /// An error with a message that names the values at fault.
    pub fn invalid(message: impl AsRef<str>) -> Self {
        Error(Box::new(Kind::Invalid(shown(message.as_ref(), MESSAGE_BYTES_MAX))))
    }

    /// The same error, said to stand in `path`.
    #[must_use]
    pub fn in_file(self, path: impl AsRef<Path>) -> Self {
        let path = shown(&path.as_ref().to_string_lossy(), PATH_BYTES_MAX);
        Error(Box::new(Kind::In { path, source: self }))
    }
}

/// `text` made fit for a line of a message: characters that control a terminal, end a line or cannot be seen are escaped, and
/// what goes beyond `bytes_max` bytes is replaced by `…`.
///
/// # Examples
/// ```
/// use nsa_corpus::shown;
/// assert_eq!(shown("bf16\nall passed\u{1b}[2J", 80), r"bf16\nall passed\u{1b}[2J");
/// assert_eq!(shown("ééé", 4), "éé…");
/// ```
pub fn shown(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        let whole = line.len();
        match letter {
            '"' | '\'' | '\\' => line.push(letter),
            _ => line.extend(letter.escape_debug()),
        }
        if line.len() > bytes_max {
            line.truncate(whole);
            line.push('…');
            break;
        }
    }
    line
}

/// A piece of foreign text in a message: [`shown`] within backquotes, 80 bytes at most.
///
/// # Examples
/// ```
/// assert_eq!(nsa_corpus::quoted("fp8\n"), r"`fp8\n`");
/// ```
pub fn quoted(text: &str) -> String {
    format!("`{}`", shown(text, QUOTED_BYTES_MAX))
}
