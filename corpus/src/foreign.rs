//! Text that somebody else wrote (a file, a guest, a path), made fit to stand in a line of ours.
//!
//! A name in a file may hold a line break and then a line that looks like ours, an escape that a terminal obeys, or four
//! million letters. Whoever prints such text, or puts it into an error, passes it through [`line()`] or [`path`].

use std::path::Path;

/// Of a long text, how many characters of its beginning and of its end are kept: a compiler's error tells most there.
const START: usize = 600;
const END: usize = 300;

/// `text` on one line: what a terminal would obey or not show is written as an escape (`\n`, `\u{1b}`, `\u{202e}`), and the
/// middle of a text longer than 900 characters is left out. What [`line()`] gave stays as it is when it is given again.
///
/// ```
/// assert_eq!(nsa_corpus::foreign::line("f16\n0 failed \u{1b}[2J"), r"f16\n0 failed \u{1b}[2J");
/// assert!(nsa_corpus::foreign::line(&"long ".repeat(1_000_000)).len() < 1000);
/// ```
pub fn line(text: &str) -> String {
    match middle(text) {
        None => escaped(text),
        Some((start, end)) => {
            format!("{} … {} bytes left out … {}", escaped(&text[..start]), end - start, escaped(&text[end..]))
        }
    }
}

/// `text` on one line, as [`line()`] escapes it; what goes beyond `bytes_max` bytes is replaced by `…`.
///
/// ```
/// assert_eq!(nsa_corpus::foreign::short("ééé", 4), "éé…");
/// ```
pub fn short(text: &str, bytes_max: usize) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        let whole = shown.len();
        push_escaped(&mut shown, letter);
        if shown.len() > bytes_max {
            shown.truncate(whole);
            shown.push('…');
            break;
        }
    }
    shown
}

/// A word of foreign text in a message: [`short`] within backquotes, 80 bytes at most.
///
/// ```
/// assert_eq!(nsa_corpus::foreign::quoted("fp8\n"), r"`fp8\n`");
/// ```
pub fn quoted(text: &str) -> String {
    format!("`{}`", short(text, 80))
}

/// A path as [`line()`] shows it; bytes that are no UTF-8 are shown as U+FFFD.
pub fn path(path: &Path) -> String {
    line(&path.to_string_lossy())
}

/// Whole pages: as [`line()`], but line breaks stay, and nothing is left out.
pub fn page(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// A JSON document, the same value: what a terminal would obey or not show is written as `\\uXXXX`. Only texts in it can hold that.
pub fn json(document: &str) -> String {
    let mut shown = String::with_capacity(document.len());
    for letter in document.chars() {
        if letter == '\n' || is_plain(letter) {
            shown.push(letter);
        } else {
            let mut units = [0; 2];
            letter.encode_utf16(&mut units).iter().for_each(|unit| shown.push_str(&format!("\\u{unit:04x}")));
        }
    }
    shown
}

/// Where the part begins and ends that is left out of a long text.
fn middle(text: &str) -> Option<(usize, usize)> {
    let start = text.char_indices().nth(START)?.0;
    let end = text.char_indices().rev().nth(END - 1)?.0;
    // The note that something is left out takes room too.
    (start + 40 < end).then_some((start, end))
}

fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|letter| push_escaped(&mut shown, letter));
    shown
}

fn push_escaped(shown: &mut String, letter: char) {
    if is_plain(letter) {
        shown.push(letter);
    } else {
        shown.extend(letter.escape_debug());
    }
}

/// Whether a letter shows as itself. The standard library's escapes know what cannot be seen; quotes and backslashes can.
fn is_plain(letter: char) -> bool {
    matches!(letter, '"' | '\'' | '\\') || letter.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn no_text_leaves_its_line_or_reaches_the_terminal() {
        let hostile = "a\nb\r\u{1b}[2J\u{7}\u{85}\u{2028}\u{202e}\u{200b}\t\u{9b}";
        let shown = line(hostile);
        assert_eq!(shown, r"a\nb\r\u{1b}[2J\u{7}\u{85}\u{2028}\u{202e}\u{200b}\t\u{9b}");
        assert_eq!(line(&shown), shown);
        assert_eq!(json("{\n\"a\": \"é\u{9b}\u{202e}\u{e0001}\"\n}"), "{\n\"a\": \"é\\u009b\\u202e\\udb40\\udc01\"\n}");
        assert_eq!(page("one\ntwo\r\u{1b}"), "one\ntwo\\r\\u{1b}");
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        let text = r#"edges/seq_1: "größer" than `2^-24`, it's 漢字 in C:\dir"#;
        assert_eq!(line(text), text);
    }

    #[test]
    fn a_long_text_keeps_its_ends() {
        let text = format!("begin{}end", "é".repeat(3_900_000));
        let shown = line(&text);
        assert!(shown.starts_with("begin") && shown.ends_with("end") && shown.contains("bytes left out"), "{shown}");
        assert!(shown.chars().count() < 1000);
        assert_eq!(line(&shown), shown);
        let short = "é".repeat(START + END);
        assert_eq!(line(&short), short);
    }

    #[cfg(unix)]
    #[test]
    fn a_path_of_any_bytes_can_be_shown() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(path(Path::new(OsStr::from_bytes(b"a\xff/b\n"))), "a\u{fffd}/b\\n");
    }
}
