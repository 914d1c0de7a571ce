//! Every candidate on every case, and who is wrong where they disagree.

use nsa_corpus::{Dtype, Entry, Error, Field};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;
use crate::judge::field::Worst;
use crate::judge::verdict::Verdict;
use crate::registry::by_name;
use crate::report::Report;
use crate::run::run_entry;
use crate::watch::Watch;

/// One case in one dtype, on every candidate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// The entry's name.
    pub name: String,
    /// The dtype of the inputs.
    pub dtype: Dtype,
    /// What each candidate came to, in the order of candidates.
    pub cells: Vec<Cell>,
    /// Every candidate that fails, and what the others answered where it is worst.
    pub wrong: Vec<Blame>,
}

/// What one candidate came to on one case.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// The candidate.
    pub candidate: String,
    /// The outcome.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Elements compared.
    pub elements: usize,
    /// The largest error / budget of any field.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub ratio: f64,
    /// Wall-clock time in seconds.
    pub seconds: f64,
    /// The whole report of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<Report>>,
}

/// A candidate that fails: its worst element, and what every candidate answered there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Blame {
    /// The candidate.
    pub candidate: String,
    /// The field that is wrong, where one is at fault.
    pub field: Option<Field>,
    /// Its worst element.
    pub worst: Option<Worst>,
    /// The candidates that answered this element, in the order of candidates, and what they answered.
    pub values: Vec<Answered>,
}

/// What a candidate answered at one element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answered {
    /// The candidate.
    pub candidate: String,
    /// Its number.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub value: f64,
}

/// A candidate that does not exist on this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// Its name.
    pub candidate: String,
    /// Why it does not exist.
    pub reason: String,
}

/// Candidates that exist here, and those that do not.
pub type Present = (Vec<Box<dyn Candidate>>, Vec<Missing>);

/// Which candidates of these names exist here.
pub fn present(names: &[String]) -> Present {
    // Guests take seconds to start: all at once.
    let made: Vec<_> = names.par_iter().map(|name| (name, by_name(name.trim()))).collect();
    let (mut candidates, mut missing) = (Vec::new(), Vec::new());
    for (name, made) in made {
        match made {
            Ok(candidate) => candidates.push(candidate),
            Err(reason) => missing.push(Missing { candidate: name.clone(), reason: reason.to_string() }),
        }
    }
    (candidates, missing)
}

/// Runs every job on every candidate: a row for each job that had begun before `watch` said stop.
///
/// # Errors
/// A case is broken.
pub fn run(jobs: &[(&Entry, Dtype)], candidates: &[Box<dyn Candidate>], watch: Watch<'_>) -> Result<Vec<Row>, Error> {
    let begun = jobs.par_iter().filter(|_| !watch.stopped());
    let rows = begun.map(|(entry, dtype)| {
        let row = Row::run(entry, *dtype, candidates);
        watch.done();
        row
    });
    rows.collect()
}

impl Row {
    /// Runs the case on all candidates at once. Of their answers only the numbers at failing elements are kept.
    ///
    /// # Errors
    /// The case is broken.
    pub fn run(entry: &Entry, dtype: Dtype, candidates: &[Box<dyn Candidate>]) -> Result<Self, Error> {
        let reports: Vec<Report> =
            candidates.par_iter().map(|one| run_entry(entry, dtype, one.as_ref())).collect::<Result<_, _>>()?;
        let wrong = blames(&reports);
        Ok(Row { name: entry.name.clone(), dtype, cells: reports.into_iter().map(Cell::of).collect(), wrong })
    }

    /// Whether a candidate fails.
    pub fn fails(&self) -> bool {
        self.cells.iter().any(|cell| cell.verdict.failure().is_some())
    }

    /// The candidates that pass.
    pub fn right(&self) -> Vec<&str> {
        let right = |cell: &&Cell| matches!(cell.verdict, Verdict::Pass | Verdict::Suspect(_));
        self.cells.iter().filter(right).map(|cell| cell.candidate.as_str()).collect()
    }
}

impl Cell {
    fn of(report: Report) -> Self {
        Cell {
            candidate: report.candidate.clone(),
            verdict: report.verdict.clone(),
            elements: report.elements(),
            ratio: report.worst_ratio(),
            seconds: report.seconds,
            report: report.verdict.failure().is_some().then(|| Box::new(Report { outputs: None, ..report })),
        }
    }
}

/// Who fails, and what all answered at the worst element of the field that is wrong.
fn blames(reports: &[Report]) -> Vec<Blame> {
    let failing = reports.iter().filter_map(|report| Some((report, report.verdict.failure()?)));
    failing
        .map(|(report, failure)| {
            let compared = report.comparisons.iter().find(|comparison| Some(comparison.field) == failure.field);
            let worst = compared.and_then(|comparison| comparison.worst.clone());
            let answered = |report: &Report| {
                let index = worst.as_ref()?.index.as_slice();
                let value = *report.outputs.as_ref()?.get(failure.field?)?.get(index)?;
                Some(Answered { candidate: report.candidate.clone(), value })
            };
            let values = reports.iter().filter_map(answered).collect();
            Blame { candidate: report.candidate.clone(), field: failure.field, worst, values }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsa_corpus::entries;

    fn job() -> (&'static Entry, Dtype) {
        (entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap(), Dtype::F32)
    }

    #[test]
    fn the_candidate_that_fails_is_blamed_and_every_answer_stands_beside_its_worst_element() {
        let names = ["tiled", "rowwise+dv_gain_of_1_percent", "oracle"].map(str::to_owned);
        let (candidates, missing) = present(&names);
        assert!(missing.is_empty(), "{missing:?}");
        let row = run(&[job()], &candidates, Watch::nobody()).unwrap().remove(0);
        assert!(row.fails());
        assert_eq!(row.right(), ["tiled", "oracle"]);
        let [blame] = row.wrong.as_slice() else { panic!("{:?}", row.wrong) };
        assert_eq!((blame.candidate.as_str(), blame.field), (candidates[1].name(), Some(Field::Dv)));
        let worst = blame.worst.as_ref().unwrap();
        let values: Vec<f64> = blame.values.iter().map(|answered| answered.value).collect();
        assert_eq!(values.len(), 3, "{blame:?}");
        assert!((values[1] - worst.expected).abs() > worst.budget, "{blame:?}");
        for right in [values[0], values[2]] {
            assert!((right - worst.expected).abs() <= worst.budget, "{blame:?}");
        }
        let kept: Vec<bool> = row.cells.iter().map(|cell| cell.report.is_some()).collect();
        assert_eq!(kept, [false, true, false], "the report of a failure alone is kept whole");
    }

    #[test]
    fn what_does_not_exist_is_named_with_its_reason_and_what_is_stopped_is_not_run() {
        let (candidates, missing) = present(&["tiled".to_owned(), "no_such".to_owned()]);
        assert_eq!((candidates.len(), missing.len()), (1, 1));
        assert!(missing[0].reason.contains("no_such"), "{missing:?}");
        assert!(run(&[job()], &candidates, Watch::new(&|| true, &|| ())).unwrap().is_empty());
    }
}
