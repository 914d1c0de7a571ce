//! Device memory: our own, and somebody else's.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::context::{Context, failed};
use super::stream::Stream;
use crate::error::{Error, Kind};
use crate::plan::Tensor;

/// A place in device memory, handed to a kernel. Zero stands for an absent tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(u64);

impl Address {
    pub(crate) const NULL: Address = Address(0);

    /// As a number, for a message.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// Whether it is a multiple of `bytes`.
    pub(crate) fn is_aligned(self, bytes: usize) -> bool {
        self.0.is_multiple_of(bytes as u64)
    }
}

/// Device memory, freed on drop.
#[derive(Debug)]
pub(crate) struct Allocation {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Allocation {
    pub(crate) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, Error> {
        context.bind()?;
        // SAFETY: freed once, in `Drop`. The driver refuses 0 bytes, so at least one is asked for.
        let address = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| {
            // Free when it was asked, and not any more: another process was faster.
            match (error.0, context.free_bytes()) {
                (sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY, Ok(free)) => {
                    Kind::OutOfMemory { needed: bytes as u64, free }.into()
                }
                _ => failed(&format!("cuMemAlloc of {bytes} bytes"))(error),
            }
        })?;
        Ok(Allocation { context: Arc::clone(context), address, bytes })
    }

    /// The address of byte `start`.
    pub(crate) fn address(&self, start: usize) -> Address {
        assert!(start <= self.bytes);
        Address(self.address + start as u64)
    }

    /// Sets `count` bytes from `start` on to `value`.
    pub(crate) fn fill(&self, start: usize, count: usize, value: u8) -> Result<(), Error> {
        self.check(start, count);
        self.context.bind()?;
        // SAFETY: the range lies within the allocation.
        unsafe { result::memset_d8_sync(self.address + start as u64, value, count) }.map_err(failed("cuMemsetD8"))
    }

    pub(crate) fn copy_in(&self, start: usize, source: &[u8]) -> Result<(), Error> {
        self.check(start, source.len());
        self.context.bind()?;
        // SAFETY: the range lies within the allocation, and the copy is done when the call returns.
        unsafe { result::memcpy_htod_sync(self.address + start as u64, source) }.map_err(failed("cuMemcpyHtoD"))
    }

    pub(crate) fn copy_out(&self, start: usize, target: &mut [u8]) -> Result<(), Error> {
        self.check(start, target.len());
        self.context.bind()?;
        // SAFETY: the range lies within the allocation, and the copy is done when the call returns.
        unsafe { result::memcpy_dtoh_sync(target, self.address + start as u64) }.map_err(failed("cuMemcpyDtoH"))
    }

    fn check(&self, start: usize, count: usize) {
        assert!(start.checked_add(count).is_some_and(|end| end <= self.bytes), "{start} + {count} of {}", self.bytes);
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: allocated in `new`, freed only here. After a fault the driver refuses, and nothing can be done.
            let _ = unsafe { result::free_sync(self.address) };
        }
    }
}

/// Device memory and a stream that somebody else owns: the tensors of a problem where they already lie.
///
/// Nothing is copied, allocated or freed, and nothing is waited for: [`crate::Bound::launch`] puts kernels on the stream and returns.
#[derive(Clone, Debug)]
pub struct Foreign {
    stream: Stream,
    addresses: Vec<(Tensor, Address)>,
}

impl Foreign {
    /// The tensors at these device addresses, whose work is ordered by `stream`, a `CUstream` (null: the default stream).
    ///
    /// What is given is what the passes to be bound need: [`crate::plan::Plan::buffers`] names the tensors, workspaces included, and
    /// tells each one's bytes and alignment.
    ///
    /// # Safety
    /// As long as a [`crate::Bound`] made of this may be launched, and until the stream is done with what was launched:
    ///
    /// * `stream` is a live stream of the device's *primary* context (the one that PyTorch and the CUDA runtime use), or null;
    /// * at each address lie as many bytes as the plan's [`crate::plan::Extent`] of that tensor has, in memory that the device may
    ///   read, and write unless it is an input or a cotangent, laid out as the problem's views say;
    /// * the two regions of any two tensors do not overlap, unless neither is written;
    /// * whatever was written there before, and whatever reads or writes there afterwards, is ordered against this work by the
    ///   stream;
    /// * `indices` hold numbers below the problem's number of blocks wherever `mask` is not 0, and `mask` holds zeros and ones.
    pub unsafe fn new(stream: *mut c_void, addresses: &[(Tensor, u64)]) -> Self {
        let addresses = addresses.iter().map(|(tensor, address)| (*tensor, Address(*address))).collect();
        Foreign { stream: Stream { raw: stream.cast() }, addresses }
    }

    /// Memory and a stream of our own, given away as somebody else's would be: to test. They are the caller's to keep.
    pub(crate) fn lent(stream: Stream, addresses: &[(Tensor, Address)]) -> Self {
        let numbers: Vec<(Tensor, u64)> = addresses.iter().map(|(tensor, address)| (*tensor, address.0)).collect();
        // SAFETY: an `Address` is of an allocation in the primary context, a `Stream` of a stream in it; whoever made them keeps them
        // as long as they are used, as for any launch.
        unsafe { Foreign::new(stream.raw.cast(), &numbers) }
    }

    pub(crate) fn stream(&self) -> Stream {
        self.stream
    }

    /// Where `tensor` lies, if it was given.
    pub(crate) fn address(&self, tensor: Tensor) -> Option<Address> {
        self.addresses.iter().find(|(given, _)| *given == tensor).map(|(_, address)| *address)
    }
}
