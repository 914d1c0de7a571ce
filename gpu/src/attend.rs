//! The safe interface: tensors on the device in, tensors on the device out.

use nsa_corpus::{Arithmetic, Element, Inputs, Shape};

use crate::checks;
use crate::device::Device;
use crate::dims::{Dims, SCAN_THREADS};
use crate::driver::{Address, Extent, Parameter, Stream};
use crate::error::{Error, Kind};
use crate::ladder::{Pass, rows};
use crate::memory::{Buffer, Safety, encode, encode_indices, encode_mask};
use crate::places::Places;
use crate::tensors::{CotangentTensors, ForwardTensors, GradientTensors, Tensors, WorkspaceTensors};
use crate::variant::{Program, Variant, delta_program};
use crate::views::{Layout, Place, Views};
use crate::workspace::Workspace;

/// What is computed, besides the sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether a query attends to its own block up to itself.
    pub include_block_causal: bool,
    /// The sliding output's window; `None`: no sliding output.
    pub sliding_window: Option<usize>,
    /// How every tensor lies in memory.
    pub views: Views,
    /// The workspace whose rows are set more than 2^32 elements apart, to test; `None`: each is dense.
    pub apart: Option<Workspace>,
    /// The rung of each pass; `None`: the fastest that takes the problem and its views.
    pub variant: Option<Variant>,
    /// How buffers are allocated.
    pub safety: Safety,
}

impl Settings {
    /// The options of `inputs`, head-major, the fastest variant, no guard zones.
    pub fn of(inputs: &Inputs) -> Self {
        Settings {
            include_block_causal: inputs.include_block_causal(),
            sliding_window: inputs.sliding_window(),
            views: Views::new(inputs.shape(), Layout::HeadMajor),
            apart: None,
            variant: None,
            safety: Safety::NONE,
        }
    }
}

/// Native sparse attention of one size on one device.
///
/// # Examples
/// ```
/// use ndarray::Array4;
/// use nsa_corpus::{Cotangents, Element, InputParts, Inputs};
/// use nsa_gpu::{Attend, Device, Settings};
///
/// // One query head, four tokens in blocks of two; each token also selects block 0.
/// let ones = Array4::from_elem((1, 1, 4, 8), 1.0);
/// let inputs = Inputs::new(InputParts {
///     block_size: 2,
///     include_block_causal: true,
///     sliding_window: None,
///     element: Element::Bf16,
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
///     let attend = Attend::new(&device, inputs.shape(), Element::Bf16, Settings::of(&inputs))?;
///     let tensors = attend.upload(&inputs)?;
///     let forward = attend.forward(&tensors)?;
///     let cotangents = attend.upload_cotangents(&inputs)?;
///     let gradients = attend.backward(&tensors, &forward, &cotangents)?;
///     device.synchronize()?;
///     assert_eq!(gradients.dk.bytes(), 4 * 8 * 2);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Attend<'d> {
    device: &'d Device,
    shape: Shape,
    element: Element,
    settings: Settings,
    variant: Variant,
    dims: Dims,
    places: Places,
}

impl<'d> Attend<'d> {
    /// Prepares problems of `shape` whose floating-point tensors are `element`.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where the variant does not compute such a problem or take such views; [`Kind::Invalid`] where
    /// rows of a view overlap.
    pub fn new(device: &'d Device, shape: &Shape, element: Element, settings: Settings) -> Result<Self, Error> {
        let variant = settings.variant.unwrap_or_else(|| Variant::choose_for(shape, element, &settings.views));
        variant.supports(shape, element)?;
        variant.takes(shape, &settings.views)?;
        let dims = Dims::new(shape, &settings.views, settings.include_block_causal, settings.sliding_window);
        let places = Places::new(shape, element, &settings.views, &dims, settings.apart)?;
        Ok(Attend { device, shape: *shape, element, settings, variant, dims, places })
    }

    /// The rung of each pass.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The arithmetic of the results.
    pub fn arithmetic(&self) -> Arithmetic {
        self.variant.arithmetic(&self.shape, self.element, &self.device.info().arch())
    }

    fn put(&self, name: &str, place: Place, bytes: Vec<u8>) -> Result<Buffer, Error> {
        Buffer::upload(self.device, name, place, bytes, self.settings.safety)
    }

    /// Copies what the forward reads to the device.
    ///
    /// # Errors
    /// The driver's.
    pub fn upload(&self, inputs: &Inputs) -> Result<Tensors, Error> {
        let Places { q, k, v, indices, mask, sel_scale, .. } = self.places;
        let scales = inputs.sel_scale().map(|tensor| self.put("sel_scale", sel_scale, encode(tensor, Element::F32)));
        Ok(Tensors {
            q: self.put("q", q, encode(inputs.q(), self.element))?,
            k: self.put("k", k, encode(inputs.k(), self.element))?,
            v: self.put("v", v, encode(inputs.v(), self.element))?,
            indices: self.put("indices", indices, encode_indices(inputs.indices()))?,
            mask: self.put("mask", mask, encode_mask(inputs.mask()))?,
            sel_scale: scales.transpose()?,
        })
    }

    /// Copies the cotangents to the device; an absent `d_out` is uploaded as zeros.
    ///
    /// # Errors
    /// The driver's.
    pub fn upload_cotangents(&self, inputs: &Inputs) -> Result<CotangentTensors, Error> {
        let Places { d_out, d_lse, d_sliding, .. } = self.places;
        let cotangents = inputs.cotangents();
        let rows = |tensor: &ndarray::Array4<f64>| encode(tensor, self.element);
        let zeros = || vec![0; d_out.filled_bytes()];
        let per_row = cotangents.d_lse.as_ref().map(|tensor| self.put("d_lse", d_lse, encode(tensor, Element::F32)));
        let sliding = cotangents.d_sliding.as_ref().map(|tensor| self.put("d_sliding", d_sliding, rows(tensor)));
        Ok(CotangentTensors {
            d_out: self.put("d_out", d_out, cotangents.d_out.as_ref().map_or_else(zeros, rows))?,
            d_lse: per_row.transpose()?,
            d_sliding: sliding.transpose()?,
        })
    }

    /// Computes `out` and `lse`, and beside a window the sliding ones, in one launch.
    ///
    /// # Errors
    /// Tensors of another size; too little memory, before anything is launched; the compiler's; the driver's.
    pub fn forward(&self, tensors: &Tensors) -> Result<ForwardTensors, Error> {
        self.check_memory(self.forward_bytes())?;
        let outputs = self.allocate_forward()?;
        self.launch_forward(tensors, &outputs)?;
        Ok(outputs)
    }

    /// Computes the gradients, from `forward` as it was stored.
    ///
    /// # Errors
    /// As [`Attend::forward`].
    pub fn backward(
        &self,
        tensors: &Tensors,
        forward: &ForwardTensors,
        cotangents: &CotangentTensors,
    ) -> Result<GradientTensors, Error> {
        self.check_memory(self.backward_bytes())?;
        let gradients = self.allocate_backward(tensors.sel_scale.is_some())?;
        self.launch_backward(tensors, forward, cotangents, &gradients)?;
        Ok(gradients)
    }

    /// # Errors
    /// [`Kind::OutOfMemory`] where fewer than `needed` bytes are free.
    pub(crate) fn check_memory(&self, needed: u64) -> Result<(), Error> {
        let free = self.device.free_bytes()?;
        if needed > free { Err(Kind::OutOfMemory { needed, free }.into()) } else { Ok(()) }
    }

    /// Bytes on the device of the forward's inputs and of the cotangents, at most.
    pub fn input_bytes(&self) -> u64 {
        self.places.input_bytes(self.settings.safety)
    }

    /// Bytes on the device that [`Attend::forward`] allocates.
    pub fn forward_bytes(&self) -> u64 {
        self.places.forward_bytes(self.settings.sliding_window.is_some(), self.settings.safety)
    }

    /// Bytes on the device that [`Attend::backward`] allocates, at most.
    pub fn backward_bytes(&self) -> u64 {
        self.places.backward_bytes(self.settings.safety)
    }

    pub(crate) fn allocate_forward(&self) -> Result<ForwardTensors, Error> {
        let Places { out, lse, .. } = self.places;
        let sliding = self.settings.sliding_window.is_some();
        Ok(ForwardTensors {
            out: self.allocate("out", out)?,
            lse: self.allocate("lse", lse)?,
            sliding_out: sliding.then(|| self.allocate("sliding_out", out)).transpose()?,
            sliding_lse: sliding.then(|| self.allocate("sliding_lse", lse)).transpose()?,
        })
    }

    pub(crate) fn allocate_backward(&self, dsel_scale: bool) -> Result<GradientTensors, Error> {
        let Places { dq, dk, dv, delta, counts, starts, visits, partial, .. } = self.places;
        let sliding = self.settings.sliding_window.is_some();
        Ok(GradientTensors {
            dq: self.allocate("dq", dq)?,
            dk: self.allocate("dk", dk)?,
            dv: self.allocate("dv", dv)?,
            dsel_scale: dsel_scale.then(|| self.allocate("dsel_scale", self.places.dsel_scale)).transpose()?,
            workspace: WorkspaceTensors {
                delta: self.allocate("delta", delta)?,
                sliding_delta: sliding.then(|| self.allocate("sliding_delta", delta)).transpose()?,
                counts: self.allocate("counts", counts)?,
                starts: self.allocate("starts", starts)?,
                segment_starts: self.allocate("segment_starts", starts)?,
                visits: self.allocate("visits", visits)?,
                partial: self.allocate("partial", partial)?,
            },
        })
    }

    fn allocate(&self, name: &str, place: Place) -> Result<Buffer, Error> {
        Buffer::new(self.device, name, place, self.settings.safety)
    }

    /// One launch: the selected part and, beside a window, the sliding part.
    pub(crate) fn launch_forward(&self, tensors: &Tensors, outputs: &ForwardTensors) -> Result<(), Error> {
        self.check_tensors(tensors)?;
        let buffers = [
            tensors.q.address(),
            tensors.k.address(),
            tensors.v.address(),
            tensors.indices.address(),
            tensors.mask.address(),
            optional(tensors.sel_scale.as_ref()),
            outputs.out.address(),
            outputs.lse.address(),
            optional(outputs.sliding_out.as_ref()),
            optional(outputs.sliding_lse.as_ref()),
        ];
        self.launch_pass(Pass::Forward, &buffers, &self.dims)
    }

    /// Seven launches: delta; dq; the inverted index in three; dk and dv in two.
    pub(crate) fn launch_backward(
        &self,
        tensors: &Tensors,
        forward: &ForwardTensors,
        cotangents: &CotangentTensors,
        gradients: &GradientTensors,
    ) -> Result<(), Error> {
        self.check_tensors(tensors)?;
        check_bytes("d_out", &cotangents.d_out, self.places.d_out)?;
        let mut dims = self.dims;
        if cotangents.d_sliding.is_none() {
            // Nothing flows back through a sliding output that has no cotangent.
            dims.window = -1;
        }
        self.launch_delta(forward, cotangents, gradients, &dims)?;
        self.launch_query_gradients(tensors, forward, cotangents, gradients, &dims)?;
        self.launch_inversion(tensors, &gradients.workspace, &dims)?;
        self.launch_key_gradients(tensors, forward, cotangents, gradients, &dims)
    }

    fn launch_delta(
        &self,
        forward: &ForwardTensors,
        cotangents: &CotangentTensors,
        gradients: &GradientTensors,
        dims: &Dims,
    ) -> Result<(), Error> {
        let buffers = [
            forward.out.address(),
            cotangents.d_out.address(),
            optional(cotangents.d_lse.as_ref()),
            optional(forward.sliding_out.as_ref()),
            optional(cotangents.d_sliding.as_ref()),
            gradients.workspace.delta.address(),
            optional(gradients.workspace.sliding_delta.as_ref()),
        ];
        let ctas = rows(&self.shape, self.shape.q_heads()).div_ceil(4);
        self.launch(&delta_program(&self.shape, self.element), (ctas, 1), 128, &buffers, dims)
    }

    fn launch_query_gradients(
        &self,
        tensors: &Tensors,
        forward: &ForwardTensors,
        cotangents: &CotangentTensors,
        gradients: &GradientTensors,
        dims: &Dims,
    ) -> Result<(), Error> {
        let buffers = [
            tensors.q.address(),
            tensors.k.address(),
            tensors.v.address(),
            tensors.indices.address(),
            tensors.mask.address(),
            optional(tensors.sel_scale.as_ref()),
            forward.lse.address(),
            cotangents.d_out.address(),
            gradients.workspace.delta.address(),
            optional(forward.sliding_lse.as_ref()),
            optional(cotangents.d_sliding.as_ref()),
            optional(gradients.workspace.sliding_delta.as_ref()),
            gradients.dq.address(),
            optional(gradients.dsel_scale.as_ref()),
        ];
        self.launch_pass(Pass::QueryGradients, &buffers, dims)
    }

    /// Who selected each block, in fixed order.
    fn launch_inversion(&self, tensors: &Tensors, workspace: &WorkspaceTensors, dims: &Dims) -> Result<(), Error> {
        let WorkspaceTensors { counts, starts, segment_starts, visits, .. } = workspace;
        let lists = (dims.batch * dims.sel_heads) as u64;
        let chunks = (lists * dims.chunks as u64).div_ceil(4);
        let [count, scan, fill] =
            ["visit_count", "visit_scan", "visit_fill"].map(|name| Program::new(name, Element::F32, Vec::new()));
        let (indices, mask) = (tensors.indices.address(), tensors.mask.address());
        self.launch(&count, (chunks, 1), 128, &[indices, mask, counts.address()], dims)?;
        let tables = [counts.address(), starts.address(), segment_starts.address()];
        self.launch(&scan, (lists, 1), SCAN_THREADS as u32, &tables, dims)?;
        self.launch(&fill, (chunks, 1), 128, &[indices, mask, counts.address(), visits.address()], dims)
    }

    fn launch_key_gradients(
        &self,
        tensors: &Tensors,
        forward: &ForwardTensors,
        cotangents: &CotangentTensors,
        gradients: &GradientTensors,
        dims: &Dims,
    ) -> Result<(), Error> {
        let workspace = &gradients.workspace;
        let buffers = [
            tensors.q.address(),
            tensors.k.address(),
            tensors.v.address(),
            optional(tensors.sel_scale.as_ref()),
            forward.lse.address(),
            cotangents.d_out.address(),
            workspace.delta.address(),
            optional(forward.sliding_lse.as_ref()),
            optional(cotangents.d_sliding.as_ref()),
            optional(workspace.sliding_delta.as_ref()),
            workspace.visits.address(),
            workspace.starts.address(),
            workspace.segment_starts.address(),
            workspace.partial.address(),
        ];
        self.launch_pass(Pass::KeyGradients, &buffers, dims)?;
        let merge = Program::new("dkdv_merge", self.element, Vec::new());
        let buffers = [
            workspace.partial.address(),
            workspace.segment_starts.address(),
            gradients.dk.address(),
            gradients.dv.address(),
        ];
        self.launch(&merge, (rows(&self.shape, self.shape.kv_heads()), 1), 128, &buffers, dims)
    }

    fn launch_pass(&self, pass: Pass, buffers: &[Address], dims: &Dims) -> Result<(), Error> {
        let program = self.variant.program(pass, &self.shape, self.element);
        let geometry = self.variant.geometry(pass, &self.shape);
        let ctas = geometry.pieces.div_ceil(u64::from(geometry.warps));
        let grid = if pass == Pass::KeyGradients { (dims.tasks() as u64, ctas) } else { (ctas, 1) };
        self.launch(&program, grid, 32 * geometry.warps, buffers, dims)
    }

    fn launch(
        &self,
        program: &Program,
        grid: (u64, u64),
        threads: u32,
        buffers: &[Address],
        dims: &Dims,
    ) -> Result<(), Error> {
        let program = match self.settings.apart {
            Some(workspace) => {
                let stride = workspace.far_stride(&self.shape, &self.dims);
                program.clone().with_apart(workspace, stride)
            }
            None => program.clone(),
        };
        let function = self.device.function(&program)?;
        function.prefer_shared(self.settings.safety.poison)?;
        let mut parameters: Vec<Parameter> = buffers.iter().map(|address| Parameter::Address(*address)).collect();
        parameters.push(Parameter::Dims(*dims));
        let call = function.call(parameters)?;
        let (Ok(x), Ok(y)) = (i32::try_from(grid.0), u16::try_from(grid.1)) else {
            return Err(Kind::Unsupported(format!("{} needs a grid of {grid:?} CTAs", program.kernel)).into());
        };
        if self.settings.safety.poison {
            self.device.poison_shared(checks::POISON)?;
        }
        call.launch(
            &Extent { grid: [x as u32, u32::from(y)], threads, cluster: 1, dynamic_shared: 0 },
            &Stream::DEFAULT,
        )
    }

    fn check_tensors(&self, tensors: &Tensors) -> Result<(), Error> {
        let Places { q, k, v, indices, mask, sel_scale, .. } = self.places;
        check_bytes("q", &tensors.q, q)?;
        check_bytes("k", &tensors.k, k)?;
        check_bytes("v", &tensors.v, v)?;
        check_bytes("indices", &tensors.indices, indices)?;
        check_bytes("mask", &tensors.mask, mask)?;
        tensors.sel_scale.as_ref().map_or(Ok(()), |buffer| check_bytes("sel_scale", buffer, sel_scale))
    }
}

fn optional(buffer: Option<&Buffer>) -> Address {
    buffer.map_or(Address::NULL, Buffer::address)
}

fn check_bytes(name: &str, buffer: &Buffer, place: Place) -> Result<(), Error> {
    let expected = place.bytes();
    if buffer.bytes() == expected {
        return Ok(());
    }
    Err(Kind::Invalid(format!("{name} has {} bytes, the problem needs {expected}", buffer.bytes())).into())
}
