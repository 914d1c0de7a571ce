//! Filling shared memory before a launch, and what shows that it works.

use super::memory::{Buffer, Safety};
use super::open::Device;
use crate::driver::{Call, Parameter, Stream};
use crate::error::Error;
use crate::plan::{Dim3, Extent, Program};

/// All bits set: NaN as f32, f16 and bf16, and an index far out of range as u32.
pub(super) const POISON: u32 = u32::MAX;

/// SMs that `probe` can tell apart.
const SM_NUMBERS: usize = 1024;

/// What `probe` found in the shared memory of every SM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probed {
    /// Words that were not what they should have been.
    pub(super) different: u32,
    /// CTAs in a cluster.
    pub(super) cluster: u32,
    /// SMs that were looked at.
    pub(super) multiprocessors: usize,
}

impl Device {
    /// What fills all shared memory with `pattern`.
    pub(super) fn poison_call(&self, pattern: u32) -> Result<(Call, Dim3), Error> {
        self.everywhere("poison", &[], pattern, 1)
    }

    /// Looks at all shared memory, by CTAs in clusters of `cluster`.
    pub(super) fn probe_shared(&self, pattern: u32, cluster: u32) -> Result<Probed, Error> {
        let report = Buffer::new(self, "report", Extent::flat(4 * (2 + SM_NUMBERS)), Safety::NONE)?;
        report.fill(0)?;
        let (call, extent) = self.everywhere("probe", &[Parameter::Address(report.address())], pattern, cluster)?;
        call.launch(&extent, Stream::DEFAULT)?;
        self.synchronize()?;
        let words: Vec<u32> = report.download()?.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let multiprocessors = words[2..].iter().filter(|ctas| **ctas > 0).count();
        Ok(Probed { different: words[0], cluster: words[1], multiprocessors })
    }

    /// What holds its stream until `open` is no longer zeros, or for about two seconds.
    pub(super) fn gate_call(&self, open: &Buffer) -> Result<(Call, Dim3), Error> {
        let call = self.function(&Program::check("gate"))?.call(vec![Parameter::Address(open.address())])?;
        let extent = Dim3 { grid: [1; 3], threads: 1, cluster: 1, static_shared: 0, dynamic_shared: 0 };
        Ok((call, extent))
    }

    /// One CTA on every SM, with all of its shared memory.
    fn everywhere(
        &self,
        kernel: &'static str,
        first: &[Parameter],
        pattern: u32,
        cluster: u32,
    ) -> Result<(Call, Dim3), Error> {
        let (bytes, ctas) = (self.info().shared_bytes, self.info().multiprocessors);
        let function = self.function(&Program::check(kernel))?;
        function.prefer_shared(true)?;
        function.allow_dynamic_shared(bytes)?;
        let words = [Parameter::Word(bytes / 4), Parameter::Word(pattern)];
        let call = function.call(first.iter().cloned().chain(words).collect())?;
        let grid = [ctas / cluster * cluster, 1, 1];
        Ok((call, Dim3 { grid, threads: 1024, cluster, static_shared: 0, dynamic_shared: bytes }))
    }
}
