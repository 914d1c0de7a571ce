//! What a campaign of generated cases is to do.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use nsa_corpus::{Case, Dtype};

/// A campaign of generated cases.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of the cases.
    pub seed: u64,
    /// Which of the seed's cases: every case has a number, and parts of a campaign take parts of the numbers.
    pub cases: Range<usize>,
    /// Time to go on for at most.
    pub time: Option<Duration>,
    /// Largest size that cases reach, roughly in tokens.
    pub size: u16,
    /// The formats, which cases take in turn.
    pub dtypes: Vec<Dtype>,
    /// Folder for minimised failures; those of the candidate that it holds already are known.
    pub bugs: PathBuf,
    /// Time for minimising one failure.
    pub effort: Duration,
    /// Distinct failures after which to stop.
    pub failures: usize,
    /// Asked again and again: whether to end now, as Ctrl-C wants.
    pub stop: fn() -> bool,
}

impl Plan {
    /// Case number `index` and the format it is run in: a function of the seed, the size, the formats and the number alone.
    pub fn draw(&self, index: usize) -> (Case, Dtype) {
        let seed = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
        // Small cases first, so that a failure is likely to be small when it is found.
        let size = 4 + (usize::from(self.size).saturating_sub(4)) * (index % 16) / 15;
        let case = Case::generate(size, seed);
        (case, self.dtypes[index % self.dtypes.len()])
    }
}
