//! Failures that are known, so that none is reported twice: stored ones, and those found in this run.
//!
//! A known failure explains another case that fails with the same signature and has everything that the known one's minimal
//! case needs. Another bug behind the same signature shows in cases that lack some of it. Two minimal cases are of one bug
//! where one has all that the other needs, unless they look like two different mistakes of the catalogue.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, Case, Dtype, Error, FEATURES};

use crate::campaign::minimize::Signature;
use crate::campaign::store::{self, stored_report};
use crate::campaign::waiver::{self, Extent, Waiver};
use crate::candidate::Candidate;
use crate::report::Report;

/// The note of a stored failure that holds what it needs.
const NOTE: &str = "required_features";
/// Values beyond this are large: shrinking replaces values by small whole numbers where the failure allows it.
const LARGE: f64 = 16.0;
/// A known failure.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownFailure {
    /// The file that holds its minimal case; empty where it could not be stored.
    pub file: PathBuf,
    /// The format that it was seen in.
    pub dtype: Dtype,
    /// What makes another failure the same.
    pub signature: Signature,
    /// What every case that fails with it has.
    pub required_features: BTreeSet<&'static str>,
    /// The known mistake that its answer looks like, where one stands out.
    pub mutant: Option<String>,
    /// What excuses it from being a failure of this run, and what is like it.
    pub waiver: Option<Waiver>,
    /// Cases of this run that it explains.
    pub cases: usize,
}

impl KnownFailure {
    /// A failure whose minimal case is `case`.
    pub fn new(file: PathBuf, dtype: Dtype, signature: Signature, case: &Case) -> Self {
        KnownFailure {
            file,
            dtype,
            signature,
            required_features: required_features(case, dtype),
            mutant: None,
            waiver: None,
            cases: 0,
        }
    }

    /// Whether a case that fails with `signature` and has `needs` may well fail for this reason.
    pub fn explains(&self, dtype: Dtype, signature: &Signature, required_features: &BTreeSet<&'static str>) -> bool {
        self.dtype == dtype && self.signature == *signature && self.required_features.is_subset(required_features)
    }

    /// Whether another minimal case is of the same bug, as far as can be told.
    pub fn is(&self, other: &KnownFailure) -> bool {
        let same = self.dtype == other.dtype && self.signature == other.signature;
        let mutants = self.mutant.is_none() || other.mutant.is_none() || self.mutant == other.mutant;
        same && mutants
            && (self.required_features.is_subset(&other.required_features)
                || other.required_features.is_subset(&self.required_features))
    }

    /// Whether this failure is waived, and the failing `report` of `candidate` on `case` with it: the same signature, everything
    /// that the waived failure needs, and no more wrong than its waiver says.
    pub fn excuses(&self, case: &Case, report: &Report, candidate: &dyn Candidate) -> bool {
        let (Some(waiver), Some(failure)) = (&self.waiver, report.verdict.failure()) else { return false };
        self.explains(report.dtype, &Signature::of(failure), &required_features(case, report.dtype))
            && Extent::of_report(case, report, candidate).is_ok_and(|seen| waiver.extent.allows(&seen).is_ok())
    }

    /// Takes note of a case that minimised to this failure: what it lacks was not needed. Says whether that is new.
    pub fn learn(&mut self, required_features: &BTreeSet<&'static str>) -> bool {
        let before = self.required_features.len();
        self.required_features.retain(|need| required_features.contains(need));
        self.required_features.len() < before
    }
}

/// What of `case` a failure may need.
pub fn required_features(case: &Case, dtype: Dtype) -> BTreeSet<&'static str> {
    let case_has = case.features();
    let mut found: BTreeSet<&'static str> =
        FEATURES.iter().filter(|feature| feature.may_be_required).map(|feature| feature.name).collect();
    found.retain(|name| case_has.contains(name));
    let Ok(inputs) = case.materialize(dtype) else { return found };
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
    /// What excuses it.
    pub waiver: Option<Waiver>,
}

impl StoredFailure {
    /// What every case that fails with it has: of what its minimal case has, what the campaign that found it saw to be needed.
    pub fn required_features(&self) -> BTreeSet<&'static str> {
        let mut required_features = required_features(&self.bundle.entry.case, self.bundle.dtype);
        let noted = self.bundle.notes.get(NOTE).and_then(|note| serde_json::from_str::<Vec<String>>(note).ok());
        if let Some(noted) = noted {
            required_features.retain(|need| noted.iter().any(|noted| noted == need));
        }
        required_features
    }

    /// Why its waiver does not excuse `report`, what `candidate` gives for its case now: it fails in another way, or by more.
    pub fn waived_no_more(&self, report: &Report, candidate: &dyn Candidate) -> Option<String> {
        let (waiver, failure) = (self.waiver.as_ref()?, report.verdict.failure()?);
        if self.signature.as_ref() != Some(&Signature::of(failure)) {
            return Some(report.verdict.to_string());
        }
        let seen = Extent::of_report(&self.bundle.entry.case, report, candidate);
        seen.map_err(|error| error.to_string()).and_then(|seen| waiver.extent.allows(&seen)).err()
    }
}

/// Writes into a stored failure what it needs, as far as is known now.
///
/// # Errors
/// The file cannot be read or written.
pub fn note_required_features(file: &Path, required_features: &BTreeSet<&'static str>) -> Result<(), Error> {
    let mut bundle = Bundle::read(file)?;
    bundle.notes.insert(NOTE.to_owned(), serde_json::to_string(required_features).expect("plain data"));
    bundle.write(file)
}

/// The failures of `candidate` that `folder` holds, by name; none where there is no such folder.
///
/// # Errors
/// The folder is a file, or a file of it cannot be read; `waivers.toml` is wrong ([`crate::campaign::waiver`]).
pub fn stored(folder: &Path, candidate: &str) -> Result<Vec<StoredFailure>, Error> {
    let unreadable = |error: std::io::Error| Error::invalid(format!("cannot be read: {error}")).in_file(folder);
    let listed = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(unreadable)?,
    };
    let listed: Result<Vec<PathBuf>, _> = listed.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files = listed.map_err(unreadable)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    let read = |file: PathBuf| Bundle::read(&file).map(|bundle| (file, bundle));
    let bundles = files.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut waivers = waiver::read(folder, &bundles)?;
    let mut found = Vec::new();
    for (file, bundle) in bundles {
        if store::candidate(&bundle).is_some_and(|stored| stored == candidate) {
            let report = stored_report(&bundle);
            let signature = report.as_ref().and_then(|report| report.verdict.failure()).map(Signature::of);
            let waiver = waivers.remove(&file);
            found.push(StoredFailure { file, bundle, signature, waiver });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use nsa_corpus::{Field, Override, Sizes, Tensor, Values};

    use super::*;
    use crate::candidate::Cause;
    use crate::judge::verdict::Class;

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
        let signature = Signature { class: Class::OverBudget, field: Some(Field::Dk), kind: Cause::Unnamed };
        let sliding = case(|case| case.sliding_window = Some(4));
        let mut known = KnownFailure::new(PathBuf::new(), Dtype::F32, signature.clone(), &sliding);
        let explains = |known: &KnownFailure, case: &Case| {
            known.explains(Dtype::F32, &signature, &required_features(case, Dtype::F32))
        };
        assert!(explains(&known, &sliding));
        assert!(!explains(&known, &case(|_| {})));
        assert!(!known.explains(Dtype::F16, &signature, &known.required_features));
        known.learn(&required_features(&case(|_| {}), Dtype::F32));
        assert!(explains(&known, &case(|_| {})), "a case without it minimised to the same failure");
    }

    #[test]
    fn values_that_matter_are_seen_in_the_tensors() {
        assert!(
            required_features(&case(|case| case.q = Values::Normal { scale: 1e3 }), Dtype::F32)
                .contains("large_values")
        );
        assert!(!required_features(&case(|_| {}), Dtype::F32).contains("large_values"));
        let mutated = |case: &mut Case| case.overrides.push(Override::new(Tensor::V, &[0, 0, 3, 1], f64::NAN));
        assert!(required_features(&case(mutated), Dtype::F32).contains("non_finite"));
    }

    #[test]
    fn a_failure_stored_under_a_candidates_name_of_version_1_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::new(nsa_corpus::Entry::new("bugs/x", "why", case(|_| {})), Dtype::F16, None).unwrap();
        bundle.notes.insert("candidate".to_owned(), "plain+dk_zeros".to_owned());
        bundle.write(folder.path().join("x.safetensors")).unwrap();
        let found = |candidate: &str| stored(folder.path(), candidate).unwrap().len();
        assert_eq!(["rowwise+dk_zeros", "plain+dk_zeros", "rowwise"].map(found), [1, 0, 0]);
    }

    #[test]
    fn a_waiver_needs_a_file_and_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join("waivers.toml"), text).unwrap();
            stored(folder.path(), "any").map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(read("").is_ok());
        assert!(read("[[waiver]]\nfile = 'a.safetensors'\nreason = 'r'").unwrap_err().contains("does not hold"));
        assert!(read("[[waiver]]\nfile = 'a'").unwrap_err().contains("reason"));
        assert!(read("[[waver]]").unwrap_err().contains("waver"));
        assert!(stored(&folder.path().join("absent"), "any").unwrap().is_empty());
    }
}
