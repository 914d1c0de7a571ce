//! A campaign of generated cases: draws them, runs them, and keeps what fails.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nsa_corpus::{Case, Dtype, Error};
use rayon::prelude::*;

use super::failures::{Event, Failing, Failures};
use super::plan::Plan;
use crate::candidate::Candidate;
use crate::judge::verdict::Verdict;
use crate::report::Report;
use crate::run::run_case;
use crate::summary::Summary;
use crate::tally::Tally;

/// Cases drawn, run and reported together: enough that several processes of a guest which skips most have work.
const BATCH: usize = 512;

/// What a campaign has done.
pub struct Fuzzed {
    /// The numbers of the cases drawn end before this one.
    pub end: usize,
    /// Cases run.
    pub cases: usize,
    /// Elements compared.
    pub elements: usize,
    /// Verdicts counted.
    pub tally: Tally,
    /// How many cases had each feature, of those that were not skipped.
    pub features: BTreeMap<String, usize>,
    /// How much of the budgets the errors take.
    pub budget_use: Summary,
    /// What failed.
    pub failures: Failures,
    /// Time that it took.
    pub time: Duration,
}

/// Runs the campaign `plan` on `candidate`, from the failures that are known on ([`Failures::load`]), and tells what it does.
///
/// # Errors
/// A case itself is broken.
pub fn fuzz(
    plan: &Plan,
    candidate: &dyn Candidate,
    known: Failures,
    tell: &dyn Fn(Event<'_>),
) -> Result<Fuzzed, Error> {
    let start = Instant::now();
    let in_time = || plan.time.is_none_or(|time| start.elapsed() < time);
    let mut done = Fuzzed::new(plan.cases.start, known);
    while done.end < plan.cases.end && !(plan.stop)() && in_time() && done.failures.new_ones() < plan.failures {
        let batch = done.end..plan.cases.end.min(done.end.saturating_add(BATCH));
        done.end = batch.end;
        let drawn: Vec<(usize, (Case, Dtype))> = batch.map(|index| (index, plan.draw(index))).collect();
        let one = |(_, (case, dtype)): &(usize, (Case, Dtype))| {
            let ends = (plan.stop)() || !in_time();
            (!ends).then(|| run_case(case, *dtype, candidate)).transpose()
        };
        let reports: Vec<Option<Report>> = drawn.par_iter().map(one).collect::<Result<_, _>>()?;
        reports.iter().flatten().for_each(|report| done.count(report));
        let reports = drawn.iter().zip(reports).filter_map(|(drawn, report)| Some((drawn, report?)));
        let failing = reports.filter_map(|((index, (case, _)), report)| Failing::new(*index, case, report));
        done.failures.take(failing.collect(), plan, candidate, &in_time, tell);
        tell(Event::Cases(done.cases));
    }
    done.time = start.elapsed();
    Ok(done)
}

impl Fuzzed {
    fn new(start: usize, failures: Failures) -> Self {
        Fuzzed {
            end: start,
            cases: 0,
            elements: 0,
            tally: Tally::default(),
            features: BTreeMap::new(),
            budget_use: Summary::default(),
            failures,
            time: Duration::ZERO,
        }
    }

    fn count(&mut self, report: &Report) {
        self.cases += 1;
        self.elements += report.elements();
        self.tally.add(&report.verdict);
        if matches!(report.verdict, Verdict::Skip(_)) {
            return;
        }
        report.features.iter().for_each(|feature| *self.features.entry(feature.clone()).or_default() += 1);
        self.budget_use.add(report);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use super::*;
    use crate::candidate::by_name;

    fn campaign(candidate: &str, bugs: &Path, plan: impl FnOnce(Plan) -> Plan) -> (Fuzzed, usize) {
        let candidate = by_name(candidate).unwrap();
        let plan = plan(Plan {
            seed: 3,
            cases: 0..40,
            time: None,
            size: 5,
            dtypes: vec![Dtype::F32],
            bugs: bugs.to_owned(),
            effort: Duration::from_secs(60),
            failures: 1,
            stop: || false,
        });
        let told = Cell::new(0);
        let tell = |event: Event<'_>| told.set(told.get() + usize::from(matches!(event, Event::Found(..))));
        let known = Failures::load(&plan, candidate.as_ref()).unwrap();
        (fuzz(&plan, candidate.as_ref(), known, &tell).unwrap(), told.get())
    }

    #[test]
    fn a_mutant_is_found_stored_once_and_known_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let (first, told) = campaign("rowwise+diagonal_own_key_missing", folder.path(), |plan| plan);
        assert_eq!((first.failures.new_ones(), told), (1, 1));
        assert!(first.failures.any() && first.failures.unstored.is_none());
        let (_, known) = first.failures.found().next().unwrap();
        assert!(known.file.is_file() && known.cases > 0, "{known:?}");
        let once = |plan| Plan { cases: 0..4, ..plan };
        let (second, _) = campaign("rowwise+diagonal_own_key_missing", folder.path(), once);
        assert_eq!(second.failures.known().len(), 1);
        let (mended, _) = campaign("tiled", folder.path(), once);
        assert!(mended.failures.known().is_empty() && !mended.failures.any(), "failures of another candidate");
    }

    #[test]
    fn a_campaign_ends_when_it_is_asked_to_and_where_its_cases_end() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, _) = campaign("tiled", folder.path(), |plan| Plan { cases: 8..20, ..plan });
        assert_eq!((whole.cases, whole.end, whole.tally.verdicts.values().sum::<usize>()), (12, 20, 12));
        let (stopped, _) = campaign("tiled", folder.path(), |plan| Plan { stop: || true, ..plan });
        assert_eq!((stopped.cases, stopped.end), (0, 0));
    }
}
