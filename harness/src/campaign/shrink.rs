//! A stored failure made smaller, and stored beside the first.

use std::path::{Path, PathBuf};

use nsa_corpus::{Dtype, Error};

use super::minimize::{Effort, Minimized, minimize};
use super::replay::Stored;
use super::store::{judge_again, store};
use super::waiver::Extent;
use crate::candidate::Candidate;
use crate::report::Report;
use crate::run::run_case;

/// What became of a stored failure.
pub enum Shrunk {
    /// It does not fail on this candidate: nothing to minimise.
    Nothing(Box<Report>),
    /// The smaller failure, and the file that holds it.
    Stored(PathBuf, Box<Minimized>),
}

/// Runs `stored` on `candidate`, minimises the failure and stores it in `folder` under a name that begins with `stem`.
///
/// # Errors
/// The case or the stored failure is broken; the file cannot be written.
pub fn shrink(
    stored: &Stored,
    dtype: Dtype,
    candidate: &dyn Candidate,
    effort: Effort,
    folder: &Path,
    stem: &str,
) -> Result<Shrunk, Error> {
    // A stored failure that cannot be judged again is refused here as everywhere.
    stored.bundle.as_ref().map(judge_again).transpose()?;
    let mut report = run_case(&stored.entry.case, dtype, candidate)?;
    if report.verdict.failure().is_none() {
        report.name.clone_from(&stored.entry.name);
        return Ok(Shrunk::Nothing(Box::new(report)));
    }
    let minimal = minimize(&stored.entry.case, report, dtype, candidate, effort);
    let name = format!("{stem}-{}", minimal.case.id());
    let why = format!("{}; minimised in {} runs", stored.entry.why, minimal.calls);
    let seen = Extent::of_report(&minimal.case, &minimal.report, candidate)?;
    let file = store(folder, &name, &why, &minimal.case, &minimal.report, &seen, candidate)?;
    Ok(Shrunk::Stored(file, Box::new(minimal)))
}

#[cfg(test)]
mod tests {
    use nsa_corpus::entries;

    use super::*;
    use crate::registry::by_name;

    #[test]
    fn what_fails_gets_smaller_and_is_stored_and_judged_again_as_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let entry = entries().iter().find(|entry| entry.name == "upstream/small").unwrap().clone();
        let before = entry.case.sizes.seq_len;
        let stored = Stored { entry, bundle: None };
        let effort = Effort { calls: 30, ..Effort::default() };
        let on = |name: &str| {
            let candidate = by_name(name).unwrap();
            shrink(&stored, Dtype::F32, candidate.as_ref(), effort, folder.path(), "small").unwrap()
        };
        assert!(matches!(on("tiled"), Shrunk::Nothing(report) if report.verdict.failure().is_none()));
        let Shrunk::Stored(file, minimal) = on("rowwise+diagonal_own_key_missing") else { panic!("it fails") };
        assert!(minimal.case.sizes.seq_len < before);
        let again = Stored::read(&file).unwrap();
        let report = again[0].replay(Dtype::F32, None).unwrap().expect("it holds an answer");
        assert_eq!(report.verdict, minimal.report.verdict);
        assert!(stored.replay(Dtype::F32, None).unwrap().is_none(), "an entry alone holds no answer");
    }
}
