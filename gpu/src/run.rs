//! From checked inputs to an answer, with every buffer watched.

use nsa_corpus::{Element, Field, Inputs, Outputs};

use crate::attend::{Attend, Settings};
use crate::device::Device;
use crate::error::Error;
use crate::memory::{Buffer, Safety, decode};
use crate::tensors::{CotangentTensors, ForwardTensors, GradientTensors, Tensors};
use crate::variant::Variant;
use crate::views::{Layout, Views};
use crate::workspace::Workspace;

/// How [`run`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The rung of each pass; `None`: the fastest that supports the problem.
    pub variant: Option<Variant>,
    /// How tensors lie in device memory.
    pub layout: Layout,
    /// The workspace whose rows are set more than 2^32 elements apart, to test; `None`: each is dense.
    pub apart: Option<Workspace>,
    /// Guard zones and poison.
    pub safety: Safety,
}

impl Default for Options {
    /// The fastest variant, head-major, everything checked.
    fn default() -> Self {
        Options { variant: None, layout: Layout::HeadMajor, apart: None, safety: Safety::CHECKED }
    }
}

impl Options {
    pub(crate) fn settings(&self, inputs: &Inputs) -> Settings {
        let views = Views::new(inputs.shape(), self.layout);
        Settings { views, apart: self.apart, variant: self.variant, safety: self.safety, ..Settings::of(inputs) }
    }
}

/// Everything on the device that belongs to one problem.
pub(crate) struct Resident {
    pub(crate) tensors: Tensors,
    pub(crate) cotangents: Option<CotangentTensors>,
    pub(crate) forward: ForwardTensors,
    pub(crate) gradients: Option<GradientTensors>,
}

impl Resident {
    /// Uploads `inputs` and allocates what they ask for, if all of it fits.
    pub(crate) fn new(attend: &Attend<'_>, inputs: &Inputs) -> Result<Self, Error> {
        let backward = inputs.cotangents().any();
        let needed = attend.input_bytes() + attend.forward_bytes() + if backward { attend.backward_bytes() } else { 0 };
        attend.check_memory(needed)?;
        Ok(Resident {
            tensors: attend.upload(inputs)?,
            cotangents: if backward { Some(attend.upload_cotangents(inputs)?) } else { None },
            forward: attend.allocate_forward()?,
            gradients: if backward { Some(attend.allocate_backward(inputs.sel_scale().is_some())?) } else { None },
        })
    }

    pub(crate) fn launch_backward(&self, attend: &Attend<'_>) -> Result<(), Error> {
        match (&self.cotangents, &self.gradients) {
            (Some(cotangents), Some(gradients)) => {
                attend.launch_backward(&self.tensors, &self.forward, cotangents, gradients)
            }
            _ => Ok(()),
        }
    }

    /// Every buffer, inputs and workspaces too.
    fn buffers(&self) -> Vec<&Buffer> {
        let Tensors { q, k, v, indices, mask, sel_scale } = &self.tensors;
        let mut buffers = vec![q, k, v, indices, mask, &self.forward.out, &self.forward.lse];
        buffers.extend(sel_scale);
        buffers.extend(&self.forward.sliding_out);
        buffers.extend(&self.forward.sliding_lse);
        if let Some(CotangentTensors { d_out, d_lse, d_sliding }) = &self.cotangents {
            buffers.push(d_out);
            buffers.extend(d_lse);
            buffers.extend(d_sliding);
        }
        if let Some(gradients) = &self.gradients {
            buffers.extend([&gradients.dq, &gradients.dk, &gradients.dv]);
            buffers.extend(&gradients.dsel_scale);
            buffers.extend(gradients.workspace.buffers());
        }
        buffers
    }

    fn field(&self, field: Field) -> Option<&Buffer> {
        let gradients = self.gradients.as_ref();
        match field {
            Field::Out => Some(&self.forward.out),
            Field::Lse => Some(&self.forward.lse),
            Field::SlidingOut => self.forward.sliding_out.as_ref(),
            Field::SlidingLse => self.forward.sliding_lse.as_ref(),
            Field::Dq => gradients.map(|gradients| &gradients.dq),
            Field::Dk => gradients.map(|gradients| &gradients.dk),
            Field::Dv => gradients.map(|gradients| &gradients.dv),
            Field::DselScale => gradients.and_then(|gradients| gradients.dsel_scale.as_ref()),
        }
    }

    /// The answer, widened to f64.
    pub(crate) fn download(&self, inputs: &Inputs) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        for field in Field::ALL {
            let Some(buffer) = self.field(field) else { continue };
            let element = match field {
                Field::Lse | Field::SlidingLse | Field::DselScale => Element::F32,
                _ => inputs.element(),
            };
            outputs.set(field, decode(&buffer.download()?, element, &field.shape(inputs.shape())));
        }
        Ok(outputs)
    }

    /// Guard zones and inputs, where they are watched.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.buffers().into_iter().try_for_each(Buffer::check)
    }
}

/// Computes everything that `inputs` ask for: the gradients where a cotangent is given.
///
/// Inputs are uploaded as they were rounded. With [`Safety::CHECKED`] outputs, workspaces and shared memory start as
/// NaN, and guard zones and inputs are compared with what they were after the kernels are done.
///
/// # Errors
/// A problem that the variant does not compute; too little memory, before anything is launched; a kernel that does not
/// compile, faults, writes outside its buffers or into its inputs.
pub fn run(device: &Device, inputs: &Inputs, options: &Options) -> Result<Outputs, Error> {
    let attend = Attend::new(device, inputs.shape(), inputs.element(), options.settings(inputs))?;
    let resident = Resident::new(&attend, inputs)?;
    attend.launch_forward(&resident.tensors, &resident.forward)?;
    resident.launch_backward(&attend)?;
    device.synchronize()?;
    resident.check()?;
    resident.download(inputs)
}
