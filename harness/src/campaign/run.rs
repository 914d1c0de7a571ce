//! Named cases on one candidate, run and judged side by side.

use nsa_corpus::{Dtype, Entry, Error};
use rayon::prelude::*;

use crate::candidate::Candidate;
use crate::judge::verdict::Verdict;
use crate::localize::localize_reports;
use crate::report::Report;
use crate::run::{Reruns, rerun, run_entry};

/// What a run over many entries left.
pub struct Ran {
    /// The reports, in the order of the jobs.
    pub reports: Vec<Report>,
    /// Jobs that were not done, after `stop` said so.
    pub left_out: usize,
}

/// Runs every job, an entry in one format, on `candidate`, and `reruns` times more for its contract on reruns; then says of wrong
/// answers where they are wrong and what they look like.
///
/// `stop` is asked before each job, and before each of its reruns, whether to end early, and `advanced` is told after each.
///
/// # Errors
/// A case itself is broken.
pub fn run_jobs(
    jobs: &[(&Entry, Dtype)],
    candidate: &dyn Candidate,
    reruns: usize,
    stop: fn() -> bool,
    advanced: &(dyn Fn() + Sync),
) -> Result<Ran, Error> {
    let one = |(entry, dtype): &(&Entry, Dtype)| {
        if stop() {
            return Ok(None);
        }
        let report = run_again(entry, *dtype, candidate, reruns, stop)?;
        advanced();
        Ok(report)
    };
    let reports: Vec<Option<Report>> = jobs.par_iter().map(one).collect::<Result<_, Error>>()?;
    let left_out = reports.iter().filter(|report| report.is_none()).count();
    let (cases, mut reports): (Vec<_>, Vec<Report>) =
        jobs.iter().zip(reports).filter_map(|((entry, dtype), report)| Some(((&entry.case, *dtype), report?))).unzip();
    localize_reports(&cases, &mut reports, candidate)?;
    Ok(Ran { reports, left_out })
}

/// `None` where `stop` ended the reruns before anything was wrong: no more is known of the job than of one that was not begun.
fn run_again(
    entry: &Entry,
    dtype: Dtype,
    candidate: &dyn Candidate,
    reruns: usize,
    stop: fn() -> bool,
) -> Result<Option<Report>, Error> {
    let mut report = run_entry(entry, dtype, candidate)?;
    if let (Some(outputs), 1..) = (&report.outputs, reruns) {
        match rerun(&entry.case, dtype, candidate, outputs, reruns, &stop)? {
            Reruns::Kept => {}
            Reruns::Broken(failure) => report.verdict = Verdict::Fail(failure),
            Reruns::Stopped if report.verdict.failure().is_some() => {}
            Reruns::Stopped => return Ok(None),
        }
    }
    Ok(Some(report))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nsa_corpus::entries;

    use super::*;
    use crate::registry::by_name;

    fn jobs() -> Vec<(&'static Entry, Dtype)> {
        entries().iter().filter(|entry| entry.name == "edges/seq_1").map(|entry| (entry, Dtype::F32)).collect()
    }

    #[test]
    fn a_job_whose_reruns_are_stopped_is_left_out_unless_it_failed_before() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        // Three times: before the job, and before two of its reruns.
        let stop = || ASKED.fetch_add(1, Ordering::Relaxed) >= 3;
        for (name, left_out) in [("tiled", 1), ("rowwise+diagonal_own_key_missing", 0)] {
            ASKED.store(0, Ordering::Relaxed);
            let ran = run_jobs(&jobs(), by_name(name).unwrap().as_ref(), usize::MAX, stop, &|| ()).unwrap();
            assert_eq!((ran.left_out, ASKED.load(Ordering::Relaxed)), (left_out, 4), "{name}");
            assert!(ran.reports.iter().all(|report| report.verdict.failure().is_some()));
        }
    }

    #[test]
    fn every_job_is_run_and_told_of_or_counted_as_left_out() {
        let candidate = by_name("tiled").unwrap();
        let done = AtomicUsize::new(0);
        let advanced = || {
            done.fetch_add(1, Ordering::Relaxed);
        };
        let ran = run_jobs(&jobs(), candidate.as_ref(), 1, || false, &advanced).unwrap();
        assert_eq!((ran.reports.len(), ran.left_out, done.load(Ordering::Relaxed)), (1, 0, 1));
        assert_eq!(ran.reports[0].name, "edges/seq_1");
        let ran = run_jobs(&jobs(), candidate.as_ref(), 1, || true, &advanced).unwrap();
        assert_eq!((ran.reports.len(), ran.left_out, done.load(Ordering::Relaxed)), (0, 1, 1));
    }
}
