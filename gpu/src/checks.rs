//! Filling shared memory before a launch, and what shows that it works.

use crate::device::Device;
use crate::driver::{Call, Extent, Parameter, Stream};
use crate::error::Error;
use crate::memory::{Buffer, Safety};
use crate::variant::Program;
use crate::views::Place;

/// All bits set: NaN as f32, f16 and bf16, and an index far out of range as u32.
pub(crate) const POISON: u32 = u32::MAX;

/// SMs that `probe` can tell apart.
const SM_NUMBERS: usize = 1024;

/// What `probe` found in the shared memory of every SM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    /// Words that were not what they should have been.
    pub(crate) different: u32,
    /// CTAs in a cluster.
    pub(crate) cluster: u32,
    /// SMs that were looked at.
    pub(crate) multiprocessors: usize,
}

impl Device {
    /// Puts a launch on the default stream that fills all shared memory with `pattern`.
    pub(crate) fn poison_shared(&self, pattern: u32) -> Result<(), Error> {
        self.everywhere("poison", &[], pattern, 1)
    }

    /// Looks at all shared memory, by CTAs in clusters of `cluster`.
    pub(crate) fn probe_shared(&self, pattern: u32, cluster: u32) -> Result<Probed, Error> {
        let report = Buffer::new(self, "report", Place::flat(4 * (2 + SM_NUMBERS)), Safety::NONE)?;
        report.fill(0)?;
        self.everywhere("probe", &[Parameter::Address(report.address())], pattern, cluster)?;
        self.synchronize()?;
        let words: Vec<u32> = report.download()?.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let multiprocessors = words[2..].iter().filter(|ctas| **ctas > 0).count();
        Ok(Probed { different: words[0], cluster: words[1], multiprocessors })
    }

    /// One CTA on every SM, with all of its shared memory.
    fn everywhere(&self, kernel: &'static str, first: &[Parameter], pattern: u32, cluster: u32) -> Result<(), Error> {
        let (bytes, ctas) = (self.info().shared_bytes, self.info().multiprocessors);
        let function = self.function(&Program::check(kernel))?;
        function.prefer_shared(true)?;
        function.allow_dynamic_shared(bytes)?;
        let words = [Parameter::Word(bytes / 4), Parameter::Word(pattern)];
        let call: Call = function.call(first.iter().cloned().chain(words).collect())?;
        let grid = [ctas / cluster * cluster, 1];
        call.launch(&Extent { grid, threads: 1024, cluster, dynamic_shared: bytes }, &Stream::DEFAULT)
    }
}
