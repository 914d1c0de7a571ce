//! Named cases: each says why it exists and where it came from, and carries flags with notes, as Wycheproof labels its
//! vectors. Most are embedded in the binary.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::case_file::line;
use crate::version::{self, EntriesError};
use crate::{Case, Dtype, Error, ErrorKind, Field, TensorFile, embedded, foreign, read_text};

/// The longest text of entries that is read.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// The longest name of an entry.
const NAME_BYTES_MAX: usize = 240;

/// What a correct implementation does with a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Every element within its budget.
    #[default]
    Pass,
    /// The contract has a strict reading that a reasonable implementation may not follow: NaN through `0 * NaN` in a key that a row
    /// touches and does not attend to. Its verdict is then inconclusive. The judge decides that element by element from the inputs
    /// (docs/semantics.md, "What a tile touches"); this only says that the case has such elements.
    Acceptable,
}

/// A label that entries share, with the note that its file gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flag {
    /// The label.
    pub name: String,
    /// What it means.
    pub note: String,
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A named case.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The group and the name within it: `"edges/seq_1"`.
    pub name: String,
    /// Why the case exists.
    pub why: String,
    /// Where it came from, if it was seen somewhere.
    pub source: Option<String>,
    /// Labels.
    pub flags: Vec<Flag>,
    /// The formats it is run in.
    pub dtypes: Vec<Dtype>,
    /// What a correct implementation does with it.
    pub expect: Expect,
    /// Outputs that any correct implementation gives without error: the tolerance is zero.
    pub exact: Vec<Field>,
    /// The problem.
    pub case: Case,
}

impl Entry {
    /// The formats of an entry that names none.
    pub const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// An entry without flags, run in every format, expected to pass.
    pub fn new(name: &str, why: &str, case: Case) -> Self {
        Entry {
            name: name.to_owned(),
            why: why.to_owned(),
            source: None,
            flags: Vec::new(),
            dtypes: Self::DTYPES.to_vec(),
            expect: Expect::Pass,
            exact: Vec::new(),
            case,
        }
    }

    /// Whether the entry has a flag of this name.
    pub fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag.name == name)
    }

    /// A file of this one entry.
    pub fn to_toml(&self) -> String {
        to_toml(std::slice::from_ref(self))
    }
}

/// A file of these entries: what [`read_entries`] reads.
pub fn to_toml(entries: &[Entry]) -> String {
    let notes: BTreeMap<_, _> =
        entries.iter().flat_map(|entry| &entry.flags).map(|flag| (&flag.name, &flag.note)).collect();
    let mut text = String::new();
    line(&mut text, version::KEY, Some(&version::FORMAT));
    if !notes.is_empty() {
        text += "\n[notes]\n";
        notes.into_iter().for_each(|(flag, note)| line(&mut text, flag, Some(note)));
    }
    for entry in entries {
        text += "\n[[entry]]\n";
        let flags: Vec<&str> = entry.flags.iter().map(|flag| flag.name.as_str()).collect();
        line(&mut text, "name", Some(&entry.name));
        line(&mut text, "why", Some(&entry.why));
        line(&mut text, "source", entry.source.as_ref());
        line(&mut text, "flags", (!flags.is_empty()).then_some(&flags));
        line(&mut text, "dtypes", Some(&entry.dtypes));
        line(&mut text, "expect", (entry.expect != Expect::Pass).then_some(&entry.expect));
        line(&mut text, "exact", (!entry.exact.is_empty()).then_some(&entry.exact));
        text += "\n[entry.case]\n";
        text += &entry.case.to_toml();
    }
    text
}

/// The embedded entries, by group and in the order of their files.
///
/// # Panics
/// Never: a test reads them.
pub fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let read = |(path, bytes): &(&str, &[u8])| {
            let text = std::str::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::Entry, "is not UTF-8"));
            text.and_then(|text| parse(text, None, None)).map_err(|error| error.in_file(path))
        };
        embedded::CASES.iter().flat_map(|file| read(file).expect("a test reads every embedded file")).collect()
    })
}

/// Reads a file of entries. Its tensor files are embedded ones, or stand in or below its folder.
///
/// # Errors
/// One line with the file, the line number and the entry's name: bad TOML, an unknown field, a name that stands twice, a
/// flag without a note or a note without a flag, sizes that do not fit, a path that leaves the folder.
///
/// # Examples
/// ```
/// use nsa_corpus::{ErrorKind, read_entries};
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("mine.toml");
/// let text = r#"
/// format = 2
/// [[entry]]
/// name = "mine/window_of_one"
/// why = "Each query sees two keys."
/// [entry.case]
/// seq_len = 9
/// dim = 4
/// block_size = 4
/// num_sel = 1
/// sliding_window = 1
/// "#;
/// std::fs::write(&path, text).unwrap();
/// assert_eq!(read_entries(&path).unwrap()[0].case.sizes.seq_len, 9);
///
/// std::fs::write(&path, text.replace("dim", "dims")).unwrap();
/// assert_eq!(read_entries(&path).unwrap_err().kind(), ErrorKind::Entry);
/// assert_eq!(read_entries(folder.path()).unwrap_err().kind(), ErrorKind::File);
/// ```
pub fn read_entries(path: impl AsRef<Path>) -> Result<Vec<Entry>, Error> {
    let path = path.as_ref();
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let text = read_text(path, TEXT_BYTES_MAX)?;
    parse(&text, Some(folder), None).map_err(|error| error.in_file(path))
}

/// The entries of a text; their tensor files are embedded ones.
///
/// # Errors
/// As [`read_entries`], without the file's name.
pub fn parse_entries(text: &str) -> Result<Vec<Entry>, Error> {
    parse(text, None, None)
}

/// The entries of `text`. Tensor files are looked for below `folder`; `own` is the tensor file that holds the text.
pub(crate) fn parse(text: &str, folder: Option<&Path>, own: Option<&TensorFile>) -> Result<Vec<Entry>, Error> {
    if text.len() as u64 > TEXT_BYTES_MAX {
        return Err(Error::invalid(format!("has more than {TEXT_BYTES_MAX} bytes")));
    }
    let unreadable = |error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        at(text, start, &malformed(one_line(error.message())))
    };
    let table = version::entries(text).map_err(|error| match error {
        EntriesError::Toml(error) => unreadable(error),
        EntriesError::Words(start, error) => at(text, start, &error),
    })?;
    let file = FileIn::deserialize(toml::Deserializer::from(table)).map_err(unreadable)?;
    let mut names = BTreeSet::new();
    let mut used = BTreeSet::new();
    let mut entries = Vec::new();
    for entry in file.entry {
        let start = entry.name.span().start;
        if !names.insert(entry.name.get_ref().clone()) {
            return Err(at(text, start, &malformed("the name stands twice")));
        }
        used.extend(entry.flags.iter().cloned());
        let entry = check(entry, &file.notes, folder, own).map_err(|error| at(text, start, &error))?;
        entries.push(entry);
    }
    match file.notes.keys().find(|flag| !used.contains(*flag)) {
        Some(flag) => Err(malformed(format!("[notes] explains {}, which no entry carries", foreign::quoted(flag)))),
        None => Ok(entries),
    }
}

fn check(
    entry: EntryIn,
    notes: &BTreeMap<String, String>,
    folder: Option<&Path>,
    own: Option<&TensorFile>,
) -> Result<Entry, Error> {
    let name = entry.name.into_inner();
    check_name(&name)?;
    if entry.why.trim().is_empty() || entry.dtypes.is_empty() {
        return Err(malformed("why and dtypes must not be empty"));
    }
    let explained = |name: String| match notes.get(&name).filter(|_| is_word(&name)) {
        Some(note) => Ok(Flag { note: note.clone(), name }),
        None => Err(malformed(format!("flag {} is no word, or has no line under [notes]", foreign::quoted(&name)))),
    };
    let flags = entry.flags.into_iter().map(explained).collect::<Result<_, _>>()?;
    let mut case = entry.case;
    case.check()?;
    case.given_mut().try_for_each(|given| given.bind(folder, own))?;
    Ok(Entry {
        name,
        why: entry.why,
        source: entry.source,
        flags,
        dtypes: entry.dtypes,
        expect: entry.expect,
        exact: entry.exact,
        case,
    })
}

/// Refuses a name that is not made of words: names are patterns' subjects, and parts of file names.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(format!("a name has {} bytes, more than {NAME_BYTES_MAX}", name.len())));
    }
    if !name.split('/').all(is_word) {
        return Err(malformed("a name is made of words like `edges/seq_1`"));
    }
    Ok(())
}

fn malformed(message: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::Entry, message)
}

fn is_word(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
}

/// `error`, said to be at byte `start` of `text`: its line, and the name of the entry around it.
fn at(text: &str, start: usize, error: &Error) -> Error {
    let before = text.get(..start).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let position = match name_around(text, before) {
        Some(name) => format!("line {line}: entry {}", foreign::short(name, 80)),
        None => format!("line {line}"),
    };
    Error::new(error.kind(), format!("{position}: {error}"))
}

/// The name of the entry that begins last before the end of `before`, quoted as it stands.
fn name_around<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    const HEAD: &str = "[[entry]]";
    // An error may be laid to the head itself.
    let begin = text.get(..(before.len() + HEAD.len()).min(text.len())).unwrap_or(before).rfind(HEAD)?;
    let own = &text[begin + HEAD.len()..];
    let own = &own[..own.find(HEAD).unwrap_or(own.len())];
    let line = own.lines().find(|line| line.trim_start().starts_with("name"))?;
    Some(line.split_once('=')?.1.trim())
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileIn {
    #[serde(default)]
    notes: BTreeMap<String, String>,
    #[serde(default)]
    entry: Vec<EntryIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryIn {
    name: Spanned<String>,
    why: String,
    source: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default = "all_dtypes")]
    dtypes: Vec<Dtype>,
    #[serde(default)]
    expect: Expect,
    #[serde(default)]
    exact: Vec<Field>,
    case: Case,
}

fn all_dtypes() -> Vec<Dtype> {
    Entry::DTYPES.to_vec()
}
