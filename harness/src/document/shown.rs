//! The documents of `show`, `candidates` and `oracle`: what was asked for and needs no judgement.

use std::collections::BTreeMap;

use ndarray::Dimension;
use nsa_corpus::{Bundle, Dtype, Entry, Error, Field, digest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Document;
use crate::campaign::confirm::StoredElement;
use crate::campaign::waiver::Extent;
use crate::candidate::{Declaration, Determinism};
use crate::registry::{LISTED, Listed};

/// Entries, described.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Show {
    /// The entries.
    pub entries: Vec<Described>,
}

impl Document for Show {
    const KIND: &'static str = "show";
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Why it exists.
    pub why: String,
    /// Where it came from.
    pub source: Option<String>,
    /// What it says of itself, by name, with a note.
    pub flags: BTreeMap<String, String>,
    /// What it exercises.
    pub features: Vec<String>,
    /// The case's id.
    pub id: String,
    /// The case as TOML.
    pub case: String,
    /// The SHA-256 of the inputs in each dtype.
    pub inputs: BTreeMap<Dtype, String>,
    /// What a stored failure says besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Stored>,
}

/// What a stored failure holds besides its entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stored {
    /// What it says of itself, without its report.
    pub notes: BTreeMap<String, String>,
    /// What a waiver of it would say, as TOML, where it holds an answer.
    pub waiver: Option<String>,
    /// The elements of its answer outside their interval.
    pub outside: Vec<StoredElement>,
}

impl Described {
    /// Describes an entry, and what it was stored with.
    ///
    /// # Errors
    /// The case is broken.
    pub fn of(entry: &Entry, bundle: Option<&Bundle>) -> Result<Self, Error> {
        let digest = |dtype: &Dtype| Ok((*dtype, digest::inputs(&entry.case.materialize(*dtype)?)));
        Ok(Described {
            name: entry.name.clone(),
            why: entry.why.clone(),
            source: entry.source.clone(),
            flags: entry.flags.iter().map(|flag| (flag.name.to_string(), flag.note.clone())).collect(),
            features: entry.case.features().into_iter().map(str::to_owned).collect(),
            id: entry.case.id(),
            case: entry.case.to_toml(),
            inputs: entry.dtypes.iter().map(digest).collect::<Result<_, Error>>()?,
            failure: bundle.map(Stored::of),
        })
    }
}

impl Stored {
    fn of(bundle: &Bundle) -> Self {
        let notes = bundle.notes.iter().filter(|(name, _)| *name != "report");
        Stored {
            notes: notes.map(|(name, note)| (name.to_string(), note.to_string())).collect(),
            waiver: bundle.outputs.as_ref().map(|_| Extent::of_bundle(bundle).to_toml()),
            outside: outside(bundle),
        }
    }
}

fn outside(bundle: &Bundle) -> Vec<StoredElement> {
    let [lowest, highest] = &bundle.intervals;
    let mut all = Vec::new();
    for (field, lowest) in lowest.iter() {
        let found = bundle.outputs.as_ref().and_then(|outputs| outputs.get(field));
        let (Some(highest), Some(found)) = (highest.get(field), found) else { continue };
        all.extend(lowest.indexed_iter().filter_map(|(index, &lowest)| {
            let (highest, found) = (*highest.get(&index)?, *found.get(&index)?);
            let index = index.slice().to_vec();
            (!(found >= lowest && found <= highest)).then_some(StoredElement { field, index, lowest, highest, found })
        }));
    }
    all
}

/// The candidates that have names of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidates {
    /// Each, available here or not.
    pub candidates: Vec<Available>,
}

/// One candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Available {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Whether it can be run here.
    pub available: bool,
    /// Why it cannot.
    pub reason: Option<String>,
    /// How its reruns agree, by field, where it can be run.
    pub determinism: Option<BTreeMap<Field, Determinism>>,
}

impl Candidates {
    /// Every listed candidate on this machine.
    pub fn here() -> Self {
        Candidates { candidates: LISTED.iter().map(Available::of).collect() }
    }
}

impl Available {
    fn of(listed: &Listed) -> Self {
        let (determinism, reason) = match listed.make() {
            Ok(candidate) => (Some(Declaration::typical(candidate.as_ref()).reruns()), None),
            Err(reason) => (None, Some(reason.to_string())),
        };
        let (name, about) = (listed.name.to_owned(), listed.about.to_owned());
        Available { name, about, available: reason.is_none(), reason, determinism }
    }
}

impl Document for Candidates {
    const KIND: &'static str = "candidates";
}

/// What the oracle wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Oracle {
    /// The file.
    pub file: String,
    /// The fields in it.
    pub fields: Vec<Field>,
}

impl Document for Oracle {
    const KIND: &'static str = "oracle";
}
