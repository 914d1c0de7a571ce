//! Whose memory a problem's tensors lie in, and on which stream.

use super::buffers::Buffers;
use crate::driver::{Address, Foreign, Stream};
use crate::plan::Tensor;

/// Where a problem's tensors lie.
#[derive(Clone, Copy, Debug)]
pub enum Operands<'a> {
    /// In memory of our own, on the default stream.
    Own(&'a Buffers),
    /// In somebody else's, on a stream of theirs.
    Foreign(&'a Foreign),
}

impl<'a> From<&'a Buffers> for Operands<'a> {
    fn from(buffers: &'a Buffers) -> Self {
        Operands::Own(buffers)
    }
}

impl<'a> From<&'a Foreign> for Operands<'a> {
    fn from(foreign: &'a Foreign) -> Self {
        Operands::Foreign(foreign)
    }
}

impl Operands<'_> {
    pub(super) fn address(self, tensor: Tensor) -> Option<Address> {
        match self {
            Operands::Own(buffers) => buffers.address(tensor),
            Operands::Foreign(foreign) => foreign.address(tensor),
        }
    }

    pub(super) fn stream(self) -> Stream {
        match self {
            Operands::Own(_) => Stream::DEFAULT,
            Operands::Foreign(foreign) => foreign.stream(),
        }
    }
}
