//! The safe interface: tensors on the device in, tensors on the device out.

use ndarray::ArrayD;
use nsa_corpus::{Arithmetic, Dtype, Field, Inputs, Outputs};

use super::bound::Bound;
use super::buffers::Buffers;
use super::encoding::{decode, encode, encode_indices, encode_mask};
use super::memory::{Buffer, Safety};
use super::open::Device;
use super::operands::Operands;
use crate::error::{Error, Kind};
use crate::plan::{Plan, Problem, Role, Tensor};

/// Native sparse attention of one problem on one device.
///
/// # Examples
/// ```
/// use ndarray::Array4;
/// use nsa_corpus::{Cotangents, Dtype, InputParts, Inputs};
/// use nsa_gpu::{Attend, Device, Problem, Safety, Tensor};
///
/// // One query head, four tokens in blocks of two; each token also selects block 0.
/// let ones = Array4::from_elem((1, 1, 4, 8), 1.0);
/// let inputs = Inputs::new(InputParts {
///     block_size: 2,
///     include_block_causal: true,
///     sliding_window: None,
///     dtype: Dtype::Bf16,
///     q: ones.clone(),
///     k: ones.clone(),
///     v: ones.clone(),
///     indices: Array4::zeros((1, 1, 4, 1)),
///     mask: Array4::from_elem((1, 1, 4, 1), true),
///     sel_scale: None,
///     cotangents: Cotangents { d_out: Some(ones), ..Cotangents::default() },
/// })?;
///
/// // Without a GPU this is an error that says what is missing.
/// if let Ok(device) = Device::open(0) {
///     let attend = Attend::new(&device, &Problem::of(&inputs), Safety::NONE)?;
///     let mut tensors = attend.upload(&inputs)?;
///     attend.forward(&mut tensors)?;
///     attend.backward(&mut tensors)?;
///     device.synchronize()?;
///     assert_eq!(attend.download(&tensors, Tensor::Dk)?.shape(), [1, 1, 4, 8]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Attend<'d> {
    device: &'d Device,
    plan: Plan,
    safety: Safety,
}

impl<'d> Attend<'d> {
    /// Plans `problem` for `device`. `safety` says how buffers of our own are allocated, and whether shared memory is filled before
    /// each launch.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn new(device: &'d Device, problem: &Problem, safety: Safety) -> Result<Self, Error> {
        Ok(Attend { device, plan: Plan::new(problem, &device.info().arch())?, safety })
    }

    /// What will be launched, and every buffer that it needs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The arithmetic of the results.
    pub fn arithmetic(&self) -> &Arithmetic {
        self.plan.arithmetic()
    }

    /// Copies inputs and cotangents to the device; beside other cotangents an absent `d_out` is uploaded as zeros.
    ///
    /// # Errors
    /// Inputs of another problem; too little memory; the driver's.
    pub fn upload(&self, inputs: &Inputs) -> Result<Buffers, Error> {
        let own = Problem { views: self.plan.problem().views, ..Problem::of(inputs) };
        let Problem { far, variant, .. } = *self.plan.problem();
        if (Problem { far, variant, ..own }) != *self.plan.problem() {
            return Err(Kind::Invalid("these inputs are of another problem than was planned".to_owned()).into());
        }
        let mut roles = vec![Role::Input];
        roles.extend(inputs.cotangents().any().then_some(Role::Cotangent));
        self.check_memory(self.bytes(&roles))?;
        let mut buffers = Buffers::default();
        for planned in self.plan.buffers().iter().filter(|planned| roles.contains(&planned.tensor.role())) {
            let (name, extent) = (planned.tensor.name(), planned.extent);
            let bytes = encoded(inputs, planned.tensor).unwrap_or_else(|| vec![0; extent.filled_bytes()]);
            buffers.insert(planned.tensor, Buffer::upload(self.device, name, extent, bytes, self.safety)?);
        }
        Ok(buffers)
    }

    /// Computes `out` and `lse`, and beside a window the sliding ones. Returns before it is done.
    ///
    /// # Errors
    /// A missing tensor; too little memory, before anything is launched; the compiler's; the driver's.
    pub fn forward(&self, buffers: &mut Buffers) -> Result<(), Error> {
        self.allocate(buffers, &[Role::Output])?;
        self.bind_forward(&*buffers)?.launch()
    }

    /// Computes the gradients, from the outputs as they were stored. Returns before it is done.
    ///
    /// # Errors
    /// As [`Attend::forward`].
    pub fn backward(&self, buffers: &mut Buffers) -> Result<(), Error> {
        self.allocate(buffers, &[Role::Gradient, Role::Workspace])?;
        self.bind_backward(&*buffers)?.launch()
    }

    /// The forward over tensors where they lie. Compiling and loading may wait for the device; launching what is returned does not.
    ///
    /// # Errors
    /// A missing tensor or one that is not aligned; the compiler's; the driver's.
    pub fn bind_forward<'a>(&self, tensors: impl Into<Operands<'a>>) -> Result<Bound<'a>, Error> {
        Bound::new(self.device, &self.plan, self.plan.forward(), tensors.into(), self.safety)
    }

    /// The backward over tensors where they lie: outputs as the forward stored them, and workspaces whose bytes nobody else needs.
    ///
    /// # Errors
    /// As [`Attend::bind_forward`].
    pub fn bind_backward<'a>(&self, tensors: impl Into<Operands<'a>>) -> Result<Bound<'a>, Error> {
        Bound::new(self.device, &self.plan, self.plan.backward(), tensors.into(), self.safety)
    }

    /// Bytes on the device of every buffer of `roles`, guard zones included.
    pub fn bytes(&self, roles: &[Role]) -> u64 {
        let planned = self.plan.buffers().iter().filter(|planned| roles.contains(&planned.tensor.role()));
        planned.map(|planned| self.safety.bytes(&planned.extent)).sum()
    }

    /// # Errors
    /// [`Kind::OutOfMemory`] where fewer than `needed` bytes are free.
    pub(super) fn check_memory(&self, needed: u64) -> Result<(), Error> {
        let free = self.device.free_bytes()?;
        if needed > free { Err(Kind::OutOfMemory { needed, free }.into()) } else { Ok(()) }
    }

    /// Adds buffers of `roles` that are not there yet, if all of them fit.
    pub(super) fn allocate(&self, buffers: &mut Buffers, roles: &[Role]) -> Result<(), Error> {
        let planned = self.plan.buffers().iter().filter(|planned| roles.contains(&planned.tensor.role()));
        let missing: Vec<_> = planned.filter(|planned| buffers.get(planned.tensor).is_none()).collect();
        self.check_memory(missing.iter().map(|planned| self.safety.bytes(&planned.extent)).sum())?;
        for planned in missing {
            let buffer = Buffer::new(self.device, planned.tensor.name(), planned.extent, self.safety)?;
            buffers.insert(planned.tensor, buffer);
        }
        Ok(())
    }

    /// What `tensor` holds, widened to f64: an output or a gradient, once every kernel is done.
    ///
    /// # Errors
    /// A tensor that has not been computed, or that holds no outputs; the driver's.
    pub fn download(&self, buffers: &Buffers, tensor: Tensor) -> Result<ArrayD<f64>, Error> {
        let invalid = |what: &str| Error::from(Kind::Invalid(format!("{tensor} {what}")));
        let field = Field::ALL.into_iter().find(|field| tensor_of(*field) == tensor);
        let field = field.ok_or_else(|| invalid("is neither output nor gradient"))?;
        let bytes = buffers.get(tensor).ok_or_else(|| invalid("has not been computed"))?.download()?;
        let Problem { shape, dtype, .. } = self.plan.problem();
        let dtype = tensor.dtype(*dtype).expect("outputs are no whole numbers");
        Ok(decode(&bytes, dtype, &field.shape(shape)))
    }

    /// Everything that has been computed, widened to f64.
    pub(super) fn download_all(&self, buffers: &Buffers) -> Result<Outputs, Error> {
        let mut outputs = Outputs::new();
        for field in Field::ALL.into_iter().filter(|field| buffers.get(tensor_of(*field)).is_some()) {
            outputs.set(field, self.download(buffers, tensor_of(field))?);
        }
        Ok(outputs)
    }
}

/// The tensor that holds `field`.
fn tensor_of(field: Field) -> Tensor {
    match field {
        Field::Out => Tensor::Out,
        Field::Lse => Tensor::Lse,
        Field::SlidingOut => Tensor::SlidingOut,
        Field::SlidingLse => Tensor::SlidingLse,
        Field::Dq => Tensor::Dq,
        Field::Dk => Tensor::Dk,
        Field::Dv => Tensor::Dv,
        Field::DselScale => Tensor::DselScale,
    }
}

/// What `inputs` have for `tensor`, as the device holds it.
fn encoded(inputs: &Inputs, tensor: Tensor) -> Option<Vec<u8>> {
    let (dtype, cotangents) = (inputs.dtype(), inputs.cotangents());
    match tensor {
        Tensor::Q => Some(encode(inputs.q(), dtype)),
        Tensor::K => Some(encode(inputs.k(), dtype)),
        Tensor::V => Some(encode(inputs.v(), dtype)),
        Tensor::Indices => Some(encode_indices(inputs.indices())),
        Tensor::Mask => Some(encode_mask(inputs.mask())),
        Tensor::SelScale => inputs.sel_scale().map(|tensor| encode(tensor, Dtype::F32)),
        Tensor::DOut => cotangents.d_out.as_ref().map(|tensor| encode(tensor, dtype)),
        Tensor::DLse => cotangents.d_lse.as_ref().map(|tensor| encode(tensor, Dtype::F32)),
        Tensor::DSliding => cotangents.d_sliding.as_ref().map(|tensor| encode(tensor, dtype)),
        _ => None,
    }
}
