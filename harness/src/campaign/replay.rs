//! Stored failures and entries in files, judged or run again.

use std::path::Path;

use nsa_corpus::{Bundle, Dtype, Entry, Error, read_entries};

use super::store::judge_again;
use crate::candidate::Candidate;
use crate::report::Report;
use crate::run::run_entry;

/// An entry of a file, with the stored failure around it where there is one.
pub struct Stored {
    /// The entry.
    pub entry: Entry,
    /// The stored failure.
    pub bundle: Option<Bundle>,
}

impl From<Entry> for Stored {
    fn from(entry: Entry) -> Self {
        Stored { entry, bundle: None }
    }
}

impl Stored {
    /// Reads a stored failure or a file of entries, told apart by the name's ending.
    ///
    /// # Errors
    /// The file cannot be read as what its name says.
    pub fn read(path: &Path) -> Result<Vec<Self>, Error> {
        if path.extension().is_some_and(|extension| extension == "toml") {
            return Ok(read_entries(path)?.into_iter().map(Stored::from).collect());
        }
        let bundle = Bundle::read(path)?;
        Ok(vec![Stored { entry: bundle.entry.clone(), bundle: Some(bundle) }])
    }

    /// Runs the entry on `candidate`; without one, judges the stored answer again, `None` where there is none.
    ///
    /// # Errors
    /// The case or the stored failure is broken.
    pub fn replay(&self, dtype: Dtype, candidate: Option<&dyn Candidate>) -> Result<Option<Report>, Error> {
        match (candidate, &self.bundle) {
            (Some(candidate), _) => run_entry(&self.entry, dtype, candidate).map(Some),
            (None, Some(bundle)) => judge_again(bundle),
            (None, None) => Ok(None),
        }
    }
}
