//! One launch as plain data: which program, how many threads, with which arguments, after which others.
//!
//! Whoever executes it needs nothing else: the driver does, and so can anything that reads the kernels' text.

use super::dims::Dims;
use super::program::Program;
use super::tensor::Tensor;

/// How many threads a launch has, and what they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim3 {
    /// CTAs along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a CTA along x.
    pub threads: u32,
    /// CTAs of a cluster along x; 1: no clusters. Divides the grid.
    pub cluster: u32,
    /// Bytes of shared memory that the kernel declares itself.
    pub static_shared: u32,
    /// Bytes of shared memory that it is given beside.
    pub dynamic_shared: u32,
}

/// What a kernel does with what an argument points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads it and leaves it as it is.
    Read,
    /// Writes it, and may read it.
    Write,
}

/// What is passed for one parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The address of a tensor.
    Tensor {
        /// Which one.
        tensor: Tensor,
        /// What happens to it.
        access: Access,
    },
    /// A null address: the problem has no such tensor.
    Absent,
    /// Sizes and strides.
    Dims(Box<Dims>),
}

/// One parameter of the kernel and what is passed for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// The parameter's name in the kernel's text.
    pub name: &'static str,
    /// What is passed.
    pub value: Value,
}

/// One kernel, launched once.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The kernel and its macros.
    pub program: Program,
    /// How many threads, and what they share.
    pub extent: Dim3,
    /// One for each parameter, in the kernel's order.
    pub arguments: Vec<Argument>,
    /// The launches of the same list, by their numbers, that must be done before this one begins: they write what it reads or
    /// writes, or read what it writes.
    pub after: Vec<usize>,
}

impl Launch {
    /// The tensors that it is given, each with what happens to it.
    pub fn tensors(&self) -> impl Iterator<Item = (Tensor, Access)> {
        self.arguments.iter().filter_map(|argument| match argument.value {
            Value::Tensor { tensor, access } => Some((tensor, access)),
            _ => None,
        })
    }

    fn must_follow(&self, earlier: &Launch) -> bool {
        self.tensors().any(|(tensor, access)| {
            let mut others = earlier.tensors().filter(|(other, _)| *other == tensor);
            others.any(|(_, other)| access == Access::Write || other == Access::Write)
        })
    }
}

/// Writes into each launch which earlier ones it must follow.
pub(super) fn order(launches: &mut [Launch]) {
    for number in 0..launches.len() {
        let (earlier, rest) = launches.split_at_mut(number);
        let follows = |other: &usize| rest[0].must_follow(&earlier[*other]);
        rest[0].after = (0..number).filter(follows).collect();
    }
}
