//! Documents of version 1, from before the words were set right, in today's words: the report inside a stored failure, a record,
//! the names of candidates.
//!
//! A document says its version under `format`; one that says none is of version 1. What entries and stored failures themselves are
//! made of is [`nsa_corpus::version`]'s.

use std::borrow::Cow;

use nsa_corpus::version;
use serde_json::Value;

use crate::candidate::CandidateName;

/// The key that says the version.
pub(crate) const KEY: &str = "format";

/// The keys of a report.
const REPORT: [(&str, &str); 2] = [("element", "dtype"), ("covers", "features")];
/// The keys of a comparison in it.
const COMPARISON: [(&str, &str); 1] = [("unbounded", "not_judged")];
/// The keys of where it is wrong.
const LOCALIZATION: [(&str, &str); 1] = [("place", "position")];
/// The keys of what that looks like.
const LIKELY: [(&str, &str); 1] = [("defect", "mutant")];
/// The keys of a record and of what it measured.
const RECORD: [(&str, &str); 1] = [("element", "dtype")];

/// Takes the version out of a document.
///
/// # Errors
/// It is none that is read.
pub(crate) fn take_version(document: &mut Value) -> Result<u32, String> {
    let said = document.as_object_mut().and_then(|keys| keys.remove(KEY)).map(|said| said.to_string());
    version::read(said.as_deref()).map_err(|error| error.to_string())
}

/// The report of this text, of any version.
///
/// # Errors
/// It is no JSON, or of no version that is read.
pub(crate) fn report(text: &str) -> Result<Value, String> {
    let mut report: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if take_version(&mut report)? == 1 {
        rename(&mut report, &REPORT);
        if let Some(Value::String(name)) = report.get_mut("name") {
            *name = version::entry_name(name).to_owned();
        }
        if let Some(Value::String(name)) = report.get_mut("candidate") {
            *name = candidate(name).into_owned();
        }
        for reason in report.get_mut("not_judged").and_then(Value::as_object_mut).into_iter().flatten() {
            replace(reason.1, "unbounded", "excluded");
        }
        each(&mut report, "comparisons").for_each(comparison);
        if let Some(found) = report.get_mut("localization") {
            rename(found, &LOCALIZATION);
            each(found, "likely").for_each(|likely| rename(likely, &LIKELY));
        }
    }
    Ok(report)
}

fn comparison(comparison: &mut Value) {
    rename(comparison, &COMPARISON);
    let vacuous = comparison.pointer_mut("/sensitivity/vacuous").and_then(Value::as_object_mut);
    vacuous.into_iter().flatten().for_each(|(_, reason)| replace(reason, "unbounded", "not_judged"));
}

/// A record of version 1 in today's words.
pub(crate) fn record(record: &mut Value) {
    rename(record, &RECORD);
    each(record, "calibration").for_each(|measured| rename(measured, &RECORD));
    if let Some(Value::Object(cases)) = record.get_mut("cases") {
        let old = std::mem::take(cases);
        cases.extend(old.into_iter().map(|(name, case)| (version::entry_name(&name).to_owned(), case)));
    }
}

/// Today's name of the candidate that version 1 calls `name`; any other name stays. The command line takes these as well.
pub fn candidate(name: &str) -> Cow<'_, str> {
    name.parse::<CandidateName>().map_or(Cow::Borrowed(name), |today| Cow::Owned(today.to_string()))
}

fn each<'a>(document: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    document.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Gives keys their names of today. Where both stand, the old one stays, which nothing reads.
fn rename(document: &mut Value, keys: &[(&str, &str)]) {
    let Value::Object(document) = document else { return };
    for (old, new) in keys {
        if !document.contains_key(*new)
            && let Some(value) = document.remove(*old)
        {
            document.insert((*new).to_owned(), value);
        }
    }
}

fn replace(word: &mut Value, old: &str, new: &str) {
    if word == old {
        *word = new.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_of_version_1_is_the_one_that_version_2_writes() {
        let old = json!({
            "name": "seed/small", "id": "1", "candidate": "plain+dk_zeros", "element": "f16", "covers": ["d_out"],
            "comparisons": [{
                "field": "dk", "elements": 3, "unbounded": 2,
                "sensitivity": { "vacuous": { "zeros": "unbounded", "gain": "all_zero" } },
            }],
            "not_judged": { "dv": "unbounded", "dq": "empty" },
            "localization": { "place": [0, 1], "likely": [{ "defect": "dk_zeros" }] },
        });
        let new = json!({
            "name": "upstream/small", "id": "1", "candidate": "rowwise+dk_zeros", "dtype": "f16", "features": ["d_out"],
            "comparisons": [{
                "field": "dk", "elements": 3, "not_judged": 2,
                "sensitivity": { "vacuous": { "zeros": "not_judged", "gain": "all_zero" } },
            }],
            "not_judged": { "dv": "excluded", "dq": "empty" },
            "localization": { "position": [0, 1], "likely": [{ "mutant": "dk_zeros" }] },
        });
        assert_eq!(report(&old.to_string()).unwrap(), new);
        let mut said = old.clone();
        said[KEY] = 1.into();
        assert_eq!(report(&said.to_string()).unwrap(), new);
        said[KEY] = 2.into();
        assert_eq!(report(&said.to_string()).unwrap(), old, "no word of version 1 is one of version 2");
        said[KEY] = 3.into();
        assert!(report(&said.to_string()).unwrap_err().contains("`3`; the formats 1 to 2 are read"));
    }

    #[test]
    fn candidates_are_known_by_their_names_of_version_1() {
        for (old, new) in [
            ("plain", "rowwise"),
            ("plain+dk_zeros", "rowwise+dk_zeros"),
            ("cuda:apart", "cuda:far-strides"),
            ("cuda:plain:apart", "cuda:plain:far-strides"),
            ("cuda:tensor:apart", "cuda:tensor:far-strides"),
        ] {
            assert_eq!((candidate(old), candidate(new)), (new.into(), new.into()));
        }
        for same in ["tiled", "cuda:plain", "guest:plain", "guest:./x:apart", "rowwise+plain"] {
            assert_eq!(candidate(same), same);
        }
    }
}
