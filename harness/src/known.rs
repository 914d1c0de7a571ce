//! Failures that are known, so that none is reported twice: stored ones, and those found in this run.
//!
//! A known failure explains another case that fails with the same signature and has everything that the known one's minimal
//! case needs. Another bug behind the same signature shows in cases that lack some of it. Two minimal cases are of one bug
//! where one has all that the other needs, unless they look like two different mistakes of the catalogue.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, Case, Element, Error, quoted, read_text};
use serde::{Deserialize, Serialize};

use crate::minimize::Signature;
use crate::store::stored_report;

/// What of a case shrinking tries to do without, as [`Case::covers`] names it: a minimal case that has it needs it. Which of
/// `d_out` and `d_sliding` is left is not among them: often either shows the same.
const NEEDS: [&str; 20] = [
    "batch",
    "multi_head",
    "gqa",
    "mqa",
    "sel_per_query_head",
    "value_dim",
    "dim_no_power_of_two",
    "block_no_power_of_two",
    "block_over_64",
    "no_block_causal",
    "sliding",
    "d_lse",
    "sel_scale",
    "past_block",
    "own_block",
    "future_block",
    "duplicates",
    "partial_block_selected",
    "masked_slot",
    "row_without_keys",
];
/// Values beyond this are large: shrinking replaces values by small whole numbers where the failure allows it.
const LARGE: f64 = 16.0;
/// The file of a folder of stored failures that says which of them are waived.
const WAIVERS: &str = "waivers.toml";
const WAIVERS_BYTES_MAX: u64 = 1 << 20;

/// A known failure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Known {
    /// The file that holds its minimal case.
    pub file: PathBuf,
    /// The format that it was seen in.
    pub element: Element,
    /// What makes another failure the same.
    pub signature: Signature,
    /// What every case that fails with it has.
    pub needs: BTreeSet<&'static str>,
    /// The known mistake that its answer looks like, where one stands out.
    pub mistake: Option<String>,
    /// Why it is no failure of this run; `None` where it is.
    pub waiver: Option<String>,
    /// Cases of this run that it explains.
    pub cases: usize,
}

impl Known {
    /// A failure whose minimal case is `case`.
    pub fn new(file: PathBuf, element: Element, signature: Signature, case: &Case) -> Self {
        Known { file, element, signature, needs: needs(case, element), mistake: None, waiver: None, cases: 0 }
    }

    /// Whether a case that fails with `signature` and has `needs` may well fail for this reason.
    pub fn explains(&self, element: Element, signature: &Signature, needs: &BTreeSet<&'static str>) -> bool {
        self.element == element && self.signature == *signature && self.needs.is_subset(needs)
    }

    /// Whether another minimal case is of the same bug, as far as can be told.
    pub fn is(&self, other: &Known) -> bool {
        let same = self.element == other.element && self.signature == other.signature;
        let mistakes = self.mistake.is_none() || other.mistake.is_none() || self.mistake == other.mistake;
        same && mistakes && (self.needs.is_subset(&other.needs) || other.needs.is_subset(&self.needs))
    }

    /// Takes note of a case that minimised to this failure: what it lacks was not needed.
    pub fn learn(&mut self, needs: &BTreeSet<&'static str>) {
        self.needs.retain(|need| needs.contains(need));
    }
}

/// What of `case` a failure may need.
pub fn needs(case: &Case, element: Element) -> BTreeSet<&'static str> {
    let mut found: BTreeSet<&'static str> = case.covers().into_iter().filter(|tag| NEEDS.contains(tag)).collect();
    let Ok(inputs) = case.materialize(element) else { return found };
    let tensors = [Some(inputs.q()), Some(inputs.k()), Some(inputs.v()), inputs.sel_scale()];
    let cotangents = inputs.cotangents();
    let more = [cotangents.d_out.as_ref(), cotangents.d_sliding.as_ref()];
    for value in tensors.into_iter().chain(more).flatten().flatten() {
        if !value.is_finite() {
            found.insert("non_finite");
        } else if value.abs() > LARGE {
            found.insert("large_values");
        }
    }
    found
}

/// A stored failure of a candidate, and what its report says of it.
pub struct StoredFailure {
    /// Its file.
    pub file: PathBuf,
    /// What it holds.
    pub bundle: Bundle,
    /// The signature that it was stored with; `None` where the file does not say.
    pub signature: Option<Signature>,
    /// The reason to waive it.
    pub waiver: Option<String>,
}

/// The failures of `candidate` that `folder` holds, by name; none where there is no such folder.
///
/// # Errors
/// A file cannot be read; `waivers.toml` waives a file that is not there, or gives no reason.
pub fn stored(folder: &Path, candidate: &str) -> Result<Vec<StoredFailure>, Error> {
    let Ok(listed) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    let mut waivers = waivers(folder, &files)?;
    let mut found = Vec::new();
    for file in files {
        let bundle = Bundle::read(&file)?;
        if bundle.notes.get("candidate").is_some_and(|stored| stored == candidate) {
            let report = stored_report(&bundle);
            let signature = report.as_ref().and_then(|report| report.verdict.failure()).map(Signature::of);
            let waiver = file.file_name().and_then(|name| waivers.remove(name.to_str()?));
            found.push(StoredFailure { file, bundle, signature, waiver });
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaiverFile {
    #[serde(default)]
    waiver: Vec<Waiver>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiver {
    file: String,
    reason: String,
}

fn waivers(folder: &Path, files: &[PathBuf]) -> Result<BTreeMap<String, String>, Error> {
    let path = folder.join(WAIVERS);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let waivers = parse_waivers(&read_text(&path, WAIVERS_BYTES_MAX)?).map_err(|error| error.in_file(&path))?;
    let held = |name: &str| files.iter().any(|file| file.file_name().is_some_and(|file| file == name));
    match waivers.keys().find(|name| !held(name)) {
        Some(name) => {
            let message = format!("waives {}, which the folder does not hold", quoted(name));
            Err(Error::invalid(message).in_file(&path))
        }
        None => Ok(waivers),
    }
}

/// The reasons that the text of `waivers.toml` gives, by file.
///
/// # Errors
/// Bad TOML, an unknown key, a waiver without a reason, a file that is waived twice.
pub(crate) fn parse_waivers(text: &str) -> Result<BTreeMap<String, String>, Error> {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let file: WaiverFile = toml::from_str(text).map_err(|error| Error::invalid(one_line(&error.to_string())))?;
    let mut waivers = BTreeMap::new();
    for Waiver { file, reason } in file.waiver {
        if reason.trim().is_empty() {
            return Err(Error::invalid(format!("waives {} without a reason", quoted(&file))));
        }
        if waivers.contains_key(&file) {
            return Err(Error::invalid(format!("waives {} twice", quoted(&file))));
        }
        waivers.insert(file, reason);
    }
    Ok(waivers)
}

#[cfg(test)]
mod tests {
    use nsa_corpus::{Field, Override, Sizes, Tensor, Values};

    use super::*;
    use crate::verdict::Class;

    fn case(change: impl FnOnce(&mut Case)) -> Case {
        let sizes = Sizes {
            batch: 1,
            q_heads: 2,
            kv_heads: 1,
            seq_len: 9,
            dim: 4,
            value_dim: 4,
            block_size: 4,
            num_sel: 1,
            sel_heads: 1,
        };
        let mut case = Case { d_out: Some(Values::ones()), ..Case::ordinary(sizes, 1) };
        change(&mut case);
        case
    }

    #[test]
    fn a_case_that_lacks_what_a_known_failure_needs_is_another_failure() {
        let signature = Signature { class: Class::OverBudget, field: Some(Field::Dk), kind: String::new() };
        let sliding = case(|case| case.sliding_window = Some(4));
        let mut known = Known::new(PathBuf::new(), Element::F32, signature.clone(), &sliding);
        let explains =
            |known: &Known, case: &Case| known.explains(Element::F32, &signature, &needs(case, Element::F32));
        assert!(explains(&known, &sliding));
        assert!(!explains(&known, &case(|_| {})));
        assert!(!known.explains(Element::F16, &signature, &known.needs));
        known.learn(&needs(&case(|_| {}), Element::F32));
        assert!(explains(&known, &case(|_| {})), "a case without it minimised to the same failure");
    }

    #[test]
    fn values_that_matter_are_seen_in_the_tensors() {
        assert!(needs(&case(|case| case.q = Values::Normal { scale: 1e3 }), Element::F32).contains("large_values"));
        assert!(!needs(&case(|_| {}), Element::F32).contains("large_values"));
        let planted = |case: &mut Case| case.overrides.push(Override::new(Tensor::V, &[0, 0, 3, 1], f64::NAN));
        assert!(needs(&case(planted), Element::F32).contains("non_finite"));
    }

    #[test]
    fn a_waiver_needs_a_file_and_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join(WAIVERS), text).unwrap();
            stored(folder.path(), "any").map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(read("").is_ok());
        assert!(read("[[waiver]]\nfile = 'a.safetensors'\nreason = 'r'").unwrap_err().contains("does not hold"));
        assert!(read("[[waiver]]\nfile = 'a'").unwrap_err().contains("reason"));
        assert!(read("[[waver]]").unwrap_err().contains("waver"));
        assert!(stored(&folder.path().join("absent"), "any").unwrap().is_empty());
    }
}
