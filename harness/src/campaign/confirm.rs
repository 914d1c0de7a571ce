//! Stored failures against witnesses: implementations that the candidate owes nothing to.

use nsa_corpus::{Bundle, Case, Dtype, Error, Field, Outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::store::{declaration, judge_again};
use crate::candidate::Candidate;
use crate::explain::{Localization, localize_alone};
use crate::judge::verdict::Verdict;
use crate::report::Report;
use crate::run::run_case;

/// What the oracle and the witnesses say of one stored failure.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Confirmation {
    /// Whether it fails again (or was none of numbers: a crash), no witness fails, and one at least passes.
    pub confirmed: bool,
    /// The stored answer judged again; `None` where none was stored.
    pub report: Option<Report>,
    /// Where it is wrong, and what that looks like.
    pub localization: Option<Localization>,
    /// Its worst element.
    pub worst: Option<StoredElement>,
    /// What each witness says.
    pub witnesses: Vec<Testimony>,
}

/// One element of a stored answer, and the interval that holds every right answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StoredElement {
    /// The field.
    pub field: Field,
    /// The position, one number for each axis of the field.
    pub index: Vec<usize>,
    /// The least value that is right.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub lowest: f64,
    /// The greatest value that is right.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub highest: f64,
    /// The candidate's value.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub found: f64,
}

/// What a witness said of one failure.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Testimony {
    /// The witness.
    pub witness: String,
    /// The format that it computed in: the widest that it takes.
    pub dtype: Dtype,
    /// Its own answer, judged.
    pub report: Report,
    /// Its value where the stored answer is worst.
    #[serde(with = "crate::number::optional")]
    #[schemars(with = "Option<crate::number::Number>")]
    pub value: Option<f64>,
}

/// Judges the answer of `bundle` again, and has each witness compute the same problem.
///
/// # Errors
/// The stored failure does not say what is needed to judge it again.
pub fn confirm(bundle: &Bundle, witnesses: &[Box<dyn Candidate>]) -> Result<Confirmation, Error> {
    let report = judge_again(bundle)?;
    let worst = report.as_ref().and_then(|report| worst(report, bundle));
    let all = witnesses.iter().map(|witness| testify(bundle, witness.as_ref(), worst.as_ref()));
    let witnesses: Vec<Testimony> = all.collect::<Result<_, _>>()?;
    let fails = report.as_ref().is_none_or(|report| report.verdict.failure().is_some());
    let against = witnesses.iter().any(|witness| witness.report.verdict.failure().is_some());
    let right = |witness: &Testimony| matches!(witness.report.verdict, Verdict::Pass | Verdict::Suspect(_));
    let confirmed = fails && !against && witnesses.iter().any(right);
    Ok(Confirmation { confirmed, report, localization: localized(bundle), worst, witnesses })
}

/// Where the stored answer is wrong, and what that looks like.
fn localized(bundle: &Bundle) -> Option<Localization> {
    localize_alone(&bundle.inputs, &declaration(bundle).ok()?, bundle.outputs.as_ref()?)
}

/// The worst element of the field at fault, with the ends of its interval as stored and the candidate's value.
fn worst(report: &Report, bundle: &Bundle) -> Option<StoredElement> {
    let field = report.verdict.failure()?.field?;
    let worst = report.comparisons.iter().find(|comparison| comparison.field == field)?.worst.clone()?;
    let at = |outputs: &Outputs| outputs.get(field)?.get(worst.index.as_slice()).copied();
    let ends = [worst.expected - worst.budget, worst.expected + worst.budget];
    let [lowest, highest] = [0, 1].map(|end| at(&bundle.intervals[end]).unwrap_or(ends[end]));
    Some(StoredElement { field, index: worst.index, lowest, highest, found: worst.found })
}

/// The stored problem, its values unchanged, computed by a witness in the widest format that it takes.
fn testify(bundle: &Bundle, witness: &dyn Candidate, worst: Option<&StoredElement>) -> Result<Testimony, Error> {
    let case = Case::from_inputs(&bundle.inputs);
    let mut told = None;
    for dtype in [Dtype::F64, Dtype::F32, bundle.dtype] {
        let report = run_case(&case, dtype, witness)?;
        let skips = matches!(report.verdict, Verdict::Skip(_));
        // Of several reasons to skip, that of the widest format says most.
        if !skips || told.is_none() {
            told = Some((dtype, report));
        }
        if !skips {
            break;
        }
    }
    let (dtype, report) = told.expect("three formats were tried");
    let value = |worst: &StoredElement| report.outputs.as_ref()?.get(worst.field)?.get(worst.index.as_slice()).copied();
    let value = worst.and_then(value);
    Ok(Testimony { witness: witness.name().to_owned(), dtype, report, value })
}

#[cfg(test)]
mod tests {
    use nsa_corpus::entries;

    use super::*;
    use crate::campaign::store::store;
    use crate::campaign::waiver::Extent;
    use crate::registry::by_name;

    #[test]
    fn a_failure_is_confirmed_by_whoever_passes_and_by_no_one_who_fails_too() {
        let folder = tempfile::tempdir().unwrap();
        let case = &entries().iter().find(|entry| entry.name == "upstream/small").unwrap().case;
        let wrong = by_name("rowwise+diagonal_own_key_missing").unwrap();
        let report = run_case(case, Dtype::F32, wrong.as_ref()).unwrap();
        let seen = Extent::of_report(case, &report, wrong.as_ref()).unwrap();
        let file = store(folder.path(), "f", "a test", case, &report, &seen, wrong.as_ref()).unwrap();
        let bundle = Bundle::read(&file).unwrap();
        let by = |names: &[&str]| {
            let witnesses: Vec<_> = names.iter().map(|name| by_name(name).unwrap()).collect();
            confirm(&bundle, &witnesses).unwrap()
        };
        let told = by(&["tiled"]);
        assert!(told.confirmed);
        let (worst, value) = (told.worst.unwrap(), told.witnesses[0].value.unwrap());
        assert!(!(worst.lowest <= worst.found && worst.found <= worst.highest), "{worst:?}");
        assert!(worst.lowest <= value && value <= worst.highest, "{value} {worst:?}");
        assert!(!by(&["tiled", "rowwise+diagonal_own_key_missing"]).confirmed);
        assert!(!by(&[]).confirmed, "no witness confirms nothing");
    }
}
