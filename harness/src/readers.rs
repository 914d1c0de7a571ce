//! Every reader of bytes that somebody else wrote, each as one function: what the fuzz targets in `harness/fuzz` and the test
//! `harness/tests/readers.rs` call. A reader returns, whatever the bytes are: it does not panic, abort, hang, or allocate much
//! more than the bytes and the stated limits (`docs/corpus-format.md`) account for.

use std::sync::OnceLock;

use nsa_corpus::{Bundle, Dtype, Entry, GoldenCase, Inputs, Limit, TensorFile, entries, parse_entries};

use crate::campaign::records;
use crate::campaign::store::{arithmetic, stored_report};
use crate::campaign::waiver;
use crate::candidate::guest::read;

/// Reads the bytes; the error is the refusal that a user would see.
pub type Reader = fn(&[u8]) -> Result<(), String>;

/// The readers by name, which is also that of the fuzz target and of its folder of seeds.
pub const READERS: [(&str, Reader); 8] = [
    ("entry", entry),
    ("golden", golden),
    ("bundle", bundle),
    ("record", record),
    ("waivers", waivers),
    ("hello", hello),
    ("reply", reply),
    ("answer", answer),
];

/// A small problem is drawn too; a larger one would only take longer.
const DRAWN: Limit = Limit::of(1 << 16);

/// A file of entries.
///
/// # Errors
/// As [`parse_entries`]; the first entry's tensors cannot be drawn.
pub fn entry(bytes: &[u8]) -> Result<(), String> {
    let entries = parse_entries(text(bytes)?).map_err(|error| error.to_string())?;
    let Some(Entry { case, .. }) = entries.first() else { return Ok(()) };
    case.materialize_up_to(Dtype::Bf16, DRAWN).map(drop).map_err(|error| error.to_string())
}

/// A file of inputs and answers.
///
/// # Errors
/// As [`GoldenCase::from_file`].
pub fn golden(bytes: &[u8]) -> Result<(), String> {
    let file = TensorFile::parse(bytes.to_vec());
    file.and_then(|file| GoldenCase::from_file("golden", &file)).map(drop).map_err(|error| error.to_string())
}

/// A stored failure, with what its notes say.
///
/// # Errors
/// As [`Bundle::parse`]; the note of its arithmetic cannot be read.
pub fn bundle(bytes: &[u8]) -> Result<(), String> {
    let bundle = Bundle::parse(bytes.to_vec()).map_err(|error| error.to_string())?;
    drop(stored_report(&bundle));
    arithmetic(&bundle).map(drop).map_err(|error| error.to_string())
}

/// The text of a record, beside a file without tensors.
///
/// # Errors
/// It is no record, or what it says first that is not so.
pub fn record(bytes: &[u8]) -> Result<(), String> {
    records::read(text(bytes)?)
}

/// The file of waivers.
///
/// # Errors
/// Bad TOML, an unknown key, something that is no interval.
pub fn waivers(bytes: &[u8]) -> Result<(), String> {
    waiver::read_alone(text(bytes)?)
}

/// A guest's reply to `hello`.
///
/// # Errors
/// It is no declaration, or one that does not take a small problem.
pub fn hello(bytes: &[u8]) -> Result<(), String> {
    read::hello(text(bytes)?, problem())
}

/// A guest's reply to `run`.
///
/// # Errors
/// It is no reply, or tells of an error.
pub fn reply(bytes: &[u8]) -> Result<(), String> {
    read::reply(text(bytes)?)
}

/// A guest's file of answers to a small problem.
///
/// # Errors
/// It is too long, no tensor file, or holds something else than fields.
pub fn answer(bytes: &[u8]) -> Result<(), String> {
    read::answer(bytes, problem())
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

fn problem() -> &'static Inputs {
    static PROBLEM: OnceLock<Inputs> = OnceLock::new();
    PROBLEM.get_or_init(|| {
        let entry = entries().iter().find(|entry| entry.name == "edges/one_of_everything");
        entry.expect("an embedded entry").case.materialize(Dtype::F32).expect("an embedded entry is valid")
    })
}
