//! From checked inputs to an answer, with every buffer watched.

use nsa_corpus::{Inputs, Outputs};

use super::attend::Attend;
use super::buffers::Buffers;
use super::memory::Safety;
use super::open::Device;
use crate::error::Error;
use crate::plan::{Layout, Problem, Role, Variant, Views, Workspace};

/// How [`run`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The rung of each pass; `None`: the fastest that supports the problem.
    pub variant: Option<Variant>,
    /// How tensors lie in device memory.
    pub layout: Layout,
    /// The workspace whose rows are set more than 2^32 elements apart, to test; `None`: each is dense.
    pub far: Option<Workspace>,
    /// Guard zones and poison.
    pub safety: Safety,
}

impl Default for Options {
    /// The fastest variant, head-major, everything checked.
    fn default() -> Self {
        Options { variant: None, layout: Layout::HeadMajor, far: None, safety: Safety::CHECKED }
    }
}

impl Options {
    /// Plans what `inputs` ask for, and puts their tensors and those that will be computed on the device, if all of them fit.
    pub(super) fn prepare<'d>(&self, device: &'d Device, inputs: &Inputs) -> Result<(Attend<'d>, Buffers), Error> {
        let views = Views::new(inputs.shape(), self.layout);
        let problem = Problem { views, far: self.far, variant: self.variant, ..Problem::of(inputs) };
        let attend = Attend::new(device, &problem, self.safety)?;
        let backward = if inputs.cotangents().any() { BACKWARD.as_slice() } else { &[] };
        attend.check_memory(attend.bytes(&[&[Role::Input, Role::Output], backward].concat()))?;
        let mut buffers = attend.upload(inputs)?;
        attend.allocate(&mut buffers, &[Role::Output])?;
        let computed: Vec<Role> = backward.iter().copied().filter(|role| *role != Role::Cotangent).collect();
        attend.allocate(&mut buffers, &computed)?;
        Ok((attend, buffers))
    }
}

/// What a backward needs on the device besides.
const BACKWARD: [Role; 3] = [Role::Cotangent, Role::Gradient, Role::Workspace];

/// Computes everything that `inputs` ask for: the gradients where a cotangent is given.
///
/// Inputs are uploaded as they were rounded. With [`Safety::CHECKED`] outputs, workspaces and shared memory start as
/// NaN, and guard zones and inputs are compared with what they were after the kernels are done.
///
/// # Errors
/// A problem that the variant does not compute; too little memory, before anything is launched; a kernel that does not
/// compile, faults, writes outside its buffers or into its inputs.
pub fn run(device: &Device, inputs: &Inputs, options: &Options) -> Result<Outputs, Error> {
    let (attend, buffers) = options.prepare(device, inputs)?;
    attend.bind_forward(&buffers)?.launch()?;
    if inputs.cotangents().any() {
        attend.bind_backward(&buffers)?.launch()?;
    }
    device.synchronize()?;
    buffers.check()?;
    attend.download_all(&buffers)
}
