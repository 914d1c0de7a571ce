//! The tensors of a problem in memory of our own.

use std::collections::BTreeMap;

use super::memory::Buffer;
use crate::driver::Address;
use crate::error::Error;
use crate::plan::Tensor;

/// Tensors on the device, by name: inputs, what was computed, and the workspaces of a backward.
#[derive(Debug, Default)]
pub struct Buffers {
    held: BTreeMap<Tensor, Buffer>,
}

impl Buffers {
    /// The buffer of `tensor`, if it has been uploaded or computed.
    pub fn get(&self, tensor: Tensor) -> Option<&Buffer> {
        self.held.get(&tensor)
    }

    /// Every buffer.
    pub fn iter(&self) -> impl Iterator<Item = (Tensor, &Buffer)> {
        self.held.iter().map(|(tensor, buffer)| (*tensor, buffer))
    }

    pub(super) fn insert(&mut self, tensor: Tensor, buffer: Buffer) {
        self.held.insert(tensor, buffer);
    }

    pub(super) fn address(&self, tensor: Tensor) -> Option<Address> {
        self.get(tensor).map(Buffer::address)
    }

    /// Whether guard zones and inputs, where they are watched, are what they were. Waits for nothing: the kernels must be done.
    ///
    /// # Errors
    /// The first buffer that a kernel wrote beside, or input that it wrote into.
    pub fn check(&self) -> Result<(), Error> {
        self.held.values().try_for_each(Buffer::check)
    }
}
