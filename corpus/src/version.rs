//! The versions of the files that this crate writes.
//!
//! Entries and stored failures say in which version they are written; what says nothing is of version 1, from before the words of
//! the files were set right. Version 1 is read: its words are replaced here, before anything else looks at them. Version 2 is
//! written. The words of a case itself, whose digest names it, are the same in both.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{Error, ErrorKind, TensorFile, foreign};

/// The version that is written.
pub const FORMAT: u32 = 2;
/// The key that says the version, in a file of entries and in the metadata of a stored failure.
pub(crate) const KEY: &str = "format";

/// The keys of an entry that were others in version 1.
const ENTRY_KEYS: [(&str, &str); 1] = [("elements", "dtypes")];
/// The keys of a stored failure's metadata that were others in version 1.
const BUNDLE_KEYS: [(&str, &str); 2] = [("element", "dtype"), ("note.needs", "note.required_features")];
/// The embedded entries that had other names in version 1.
const ENTRY_NAMES: [(&str, &str); 5] = [
    ("seed/mock_inputs", "upstream/mock_inputs"),
    ("seed/mock_inputs_8_heads", "upstream/mock_inputs_8_heads"),
    ("seed/mock_inputs_random_cotangent", "upstream/mock_inputs_random_cotangent"),
    ("seed/past_blocks_and_sliding", "upstream/past_blocks_and_sliding"),
    ("seed/small", "upstream/small"),
];

/// Today's name of the embedded entry that version 1 called `name`; any other name stays.
///
/// # Examples
/// ```
/// assert_eq!(nsa_corpus::version::entry_name("seed/small"), "upstream/small");
/// assert_eq!(nsa_corpus::version::entry_name("edges/seq_1"), "edges/seq_1");
/// ```
pub fn entry_name(name: &str) -> &str {
    ENTRY_NAMES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

/// What version 1 called the embedded entry `name`.
pub fn entry_name_in_version_1(name: &str) -> &str {
    ENTRY_NAMES.iter().find(|(_, new)| *new == name).map_or(name, |(old, _)| old)
}

/// The version that a file says, as a number in text; 1 where it says none.
///
/// # Errors
/// It is none of the versions that are read.
pub fn read(said: Option<&str>) -> Result<u32, Error> {
    match said.map_or(Ok(1), str::parse) {
        Ok(version @ 1..=FORMAT) => Ok(version),
        _ => {
            let said = foreign::quoted(said.unwrap_or_default());
            Err(Error::invalid(format!("is in format {said}; the formats 1 to {FORMAT} are read")))
        }
    }
}

/// The table of a file of entries in today's words.
pub(crate) fn entries(text: &str) -> Result<Spanned<DeTable<'_>>, EntriesError> {
    let mut table = DeTable::parse(text)?;
    let said = table.get_mut().remove(KEY);
    let number = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::Integer(number) => number.as_str().to_owned(),
        other => other.type_str().to_owned(),
    };
    let start = said.as_ref().map_or(0, |value| value.span().start);
    let version = read(said.as_ref().map(number).as_deref()).map_err(|error| EntriesError::Words(start, error))?;
    if version == 1
        && let Some(DeValue::Array(entries)) = table.get_mut().get_mut("entry").map(Spanned::get_mut)
    {
        entries.iter_mut().try_for_each(entry_of_version_1)?;
    }
    Ok(table)
}

/// Why a file of entries has no table in today's words.
pub(crate) enum EntriesError {
    /// It is no TOML.
    Toml(toml::de::Error),
    /// What is said at this byte is wrong.
    Words(usize, Error),
}

impl From<toml::de::Error> for EntriesError {
    fn from(error: toml::de::Error) -> Self {
        EntriesError::Toml(error)
    }
}

fn entry_of_version_1(entry: &mut Spanned<DeValue<'_>>) -> Result<(), EntriesError> {
    let DeValue::Table(keys) = entry.get_mut() else { return Ok(()) };
    for (old, new) in ENTRY_KEYS {
        let Some((key, value)) = keys.remove_entry(old) else { continue };
        let span = key.span();
        if keys.insert(Spanned::new(span.clone(), Cow::Borrowed(new)), value).is_some() {
            return Err(EntriesError::Words(span.start, both(old, new)));
        }
    }
    Ok(())
}

/// The metadata of a stored failure in today's words, without the version.
///
/// # Errors
/// Its version is none that is read; it has a word beside the one that replaces it.
pub(crate) fn bundle(file: &TensorFile) -> Result<BTreeMap<String, String>, Error> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let mut metadata: BTreeMap<String, String> = file.metadata_all().map(owned).collect();
    let said = metadata.remove(KEY);
    if read(said.as_deref())? == 1 {
        for (old, new) in BUNDLE_KEYS {
            let Some(value) = metadata.remove(old) else { continue };
            if metadata.insert(new.to_owned(), value).is_some() {
                return Err(both(old, new));
            }
        }
    }
    Ok(metadata)
}

fn both(old: &str, new: &str) -> Error {
    Error::new(ErrorKind::Entry, format!("`{old}` is what format 1 calls `{new}`, which stands beside it"))
}
