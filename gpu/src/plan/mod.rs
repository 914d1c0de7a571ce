//! What to launch for a problem: from sizes, options, strides, format and architecture to a list of launches, and the buffers that
//! they need. Nothing here knows CUDA: a [`Plan`] is plain data, which the driver executes and others may.

mod dims;
mod extent;
mod kernels;
mod ladder;
mod launch;
mod problem;
mod program;
mod tensor;
mod variant;
mod views;
mod workspace;

use nsa_corpus::Arithmetic;

use crate::error::{Error, Kind};
use kernels::{Cut, Kernel, PRODUCERS};
use tensor::Form;

pub use dims::{Dims, Lists};
pub use extent::Extent;
pub use ladder::{FEATURES_MAX, Pass, Rung};
pub use launch::{Access, Argument, Dim3, Launch, Value};
pub use problem::Problem;
pub use program::Program;
pub(crate) use program::ROW_STRIDE;
pub use tensor::{Role, Tensor};
pub use variant::{Variant, catalogue};
pub use views::{Axis, Layout, Operand, Strides, Views};
pub use workspace::Workspace;

/// The launches of a problem, forward and backward, and the buffers that they need.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    variant: Variant,
    arithmetic: Arithmetic,
    buffers: Vec<Planned>,
    forward: Vec<Launch>,
    backward: Vec<Launch>,
}

/// A buffer that a plan needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What lies in it.
    pub tensor: Tensor,
    /// Where its rows lie, and its bytes.
    pub extent: Extent,
    /// Its address is a multiple of so many bytes.
    pub align: usize,
}

impl Plan {
    /// Plans `problem` for devices of `arch` ([`crate::DeviceInfo::arch`]).
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where the variant does not compute such a problem or take such views, or a launch would be too
    /// large; [`Kind::Invalid`] where rows of a view overlap.
    pub fn new(problem: &Problem, arch: &str) -> Result<Plan, Error> {
        let Problem { shape, dtype, views, include_block_causal, .. } = problem;
        let chosen = || Variant::choose_for(shape, *dtype, arch, views);
        let variant = problem.variant.unwrap_or_else(chosen);
        variant.supports(shape, *dtype, arch)?;
        variant.takes(shape, views)?;
        let dims_of = |window| Dims::new(shape, views, *include_block_causal, window);
        let dims = dims_of(problem.sliding_window);
        // Nothing flows back through a sliding output that has no cotangent.
        let backward_dims = dims_of(problem.sliding_window.filter(|_| problem.d_sliding));
        let [forward, query_gradients, key_gradients] = variant.steps().map(|step| step.kernels);
        let buffers = Tensor::ALL.into_iter().filter(|tensor| problem.has(*tensor));
        Ok(Plan {
            problem: *problem,
            variant,
            arithmetic: variant.arithmetic(shape, *dtype, arch),
            buffers: buffers.map(|tensor| planned(problem, variant, &dims, tensor)).collect::<Result<_, _>>()?,
            forward: launches(problem, &dims, &with_producers(&[forward]))?,
            backward: launches(problem, &backward_dims, &with_producers(&[query_gradients, key_gradients]))?,
        })
    }

    /// What is computed.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The rung of each pass.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The arithmetic of the results.
    pub fn arithmetic(&self) -> &Arithmetic {
        &self.arithmetic
    }

    /// Every buffer that forward and backward need.
    pub fn buffers(&self) -> &[Planned] {
        &self.buffers
    }

    /// The buffer of `tensor`, where the problem has one.
    pub fn buffer(&self, tensor: Tensor) -> Option<&Planned> {
        self.buffers.iter().find(|planned| planned.tensor == tensor)
    }

    /// What computes the outputs.
    pub fn forward(&self) -> &[Launch] {
        &self.forward
    }

    /// What computes the gradients, from the outputs as they were stored.
    pub fn backward(&self) -> &[Launch] {
        &self.backward
    }
}

/// Where `tensor` lies.
fn planned(problem: &Problem, variant: Variant, dims: &Dims, tensor: Tensor) -> Result<Planned, Error> {
    let Problem { shape, dtype, views, far, .. } = problem;
    let bytes = tensor.element_bytes(*dtype);
    let (extent, words) = match tensor.form() {
        Form::Operand(operand) => (views.extent(operand, shape, bytes)?, variant.words(operand)),
        Form::Workspace(workspace) => (workspace.extent(shape, dims, *far == Some(workspace)), 1),
    };
    Ok(Planned { tensor, extent, align: bytes * words })
}

/// The kernels of `steps`, each step's behind those that fill what it reads of workspaces, unless an earlier one had them launched.
fn with_producers(steps: &[&'static [&'static Kernel]]) -> Vec<&'static Kernel> {
    let mut kernels: Vec<&'static Kernel> = Vec::new();
    for step in steps {
        // From the last to the first, so that what a producer needs is asked for before its own producer is looked at.
        let mut needed: Vec<&'static Kernel> = Vec::new();
        for producer in PRODUCERS.into_iter().rev() {
            let wanted = step.iter().chain(&needed).any(|kernel| feeds(producer, kernel));
            if wanted && kernels.iter().all(|launched| launched.name != producer.name) {
                needed.push(producer);
            }
        }
        kernels.extend(needed.into_iter().rev());
        kernels.extend(step.iter());
    }
    kernels
}

/// Whether `kernel` uses a workspace that `producer` fills.
fn feeds(producer: &Kernel, kernel: &Kernel) -> bool {
    let filled = Tensor::ALL.into_iter().filter(|tensor| producer.takes(*tensor, Access::Write));
    let mut workspaces = filled.filter(|tensor| tensor.role() == Role::Workspace);
    workspaces.any(|tensor| kernel.takes(tensor, Access::Read) || kernel.takes(tensor, Access::Write))
}

fn launches(problem: &Problem, dims: &Dims, kernels: &[&'static Kernel]) -> Result<Vec<Launch>, Error> {
    let mut launches: Vec<Launch> =
        kernels.iter().map(|kernel| launch(problem, dims, kernel)).collect::<Result<_, _>>()?;
    launch::order(&mut launches);
    Ok(launches)
}

fn launch(problem: &Problem, dims: &Dims, kernel: &Kernel) -> Result<Launch, Error> {
    let mut program = kernel.program(&problem.shape, problem.dtype);
    let uses = |workspace| kernel.parameters.iter().any(|parameter| parameter.tensor.workspace() == Some(workspace));
    if let Some(workspace) = problem.far.filter(|workspace| uses(*workspace)) {
        program = program.with_far_rows(workspace, workspace.far_stride(&problem.shape, dims));
    }
    let arguments = kernel.parameters.iter().map(|parameter| {
        let (tensor, access) = (parameter.tensor, parameter.access);
        let value = if problem.has(tensor) { Value::Tensor { tensor, access } } else { Value::Absent };
        Argument { name: parameter.name, value }
    });
    let dims_argument = Argument { name: "dims", value: Value::Dims(Box::new(*dims)) };
    let extent = extent(kernel.name, (kernel.cut)(&problem.shape, dims))?;
    Ok(Launch { program, extent, arguments: arguments.chain([dims_argument]).collect(), after: Vec::new() })
}

/// What `cut` makes of a launch, where a device takes that many CTAs.
fn extent(kernel: &str, cut: Cut) -> Result<Dim3, Error> {
    let (Ok(x), Ok(y)) = (i32::try_from(cut.ctas[0]), u16::try_from(cut.ctas[1])) else {
        return Err(Kind::Unsupported(format!("{kernel} needs a grid of {:?} CTAs", cut.ctas)).into());
    };
    Ok(Dim3 {
        grid: [x as u32, u32::from(y), 1],
        threads: 32 * cut.warps,
        cluster: 1,
        static_shared: cut.static_shared,
        dynamic_shared: 0,
    })
}

#[cfg(test)]
mod tests;
