//! Streams, and points in time on them.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::context::{Context, failed};
use crate::error::Error;

/// An order of work on the device. A handle: whoever made it sees to it that the stream exists as long as the handle is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(super) raw: sys::CUstream,
}

impl Stream {
    /// The stream that the driver's own copies use too.
    pub(crate) const DEFAULT: Stream = Stream { raw: std::ptr::null_mut() };
}

/// A stream of our own, which does not wait for the default stream nor makes it wait.
#[derive(Debug)]
pub(crate) struct OwnStream {
    context: Arc<Context>,
    raw: sys::CUstream,
}

impl OwnStream {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, Error> {
        context.bind()?;
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("cuStreamCreate"))?;
        Ok(OwnStream { context: Arc::clone(context), raw })
    }

    /// The stream, as long as `self` lives.
    pub(crate) fn handle(&self) -> Stream {
        Stream { raw: self.raw }
    }

    /// Whether everything that was put on it is done.
    pub(crate) fn is_done(&self) -> Result<bool, Error> {
        self.context.bind()?;
        // SAFETY: the stream exists until `self` is dropped.
        match unsafe { sys::cuStreamQuery(self.raw) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => other.result().map(|()| true).map_err(failed("cuStreamQuery")),
        }
    }

    /// Waits for everything that was put on it.
    pub(crate) fn synchronize(&self) -> Result<(), Error> {
        self.context.bind()?;
        // SAFETY: the stream exists until `self` is dropped.
        unsafe { result::stream::synchronize(self.raw) }.map_err(failed("a kernel failed"))
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: created in `new`, destroyed only here; the driver lets work that is still on it finish.
            let _ = unsafe { result::stream::destroy(self.raw) };
        }
    }
}

/// A point in time on a stream.
#[derive(Debug)]
pub(crate) struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

impl Event {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, Error> {
        context.bind()?;
        let raw = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(failed("cuEventCreate"))?;
        Ok(Event { context: Arc::clone(context), raw })
    }

    /// Happens once everything that was put on `stream` before is done.
    pub(crate) fn record(&self, stream: Stream) -> Result<(), Error> {
        self.context.bind()?;
        // SAFETY: the event exists until `self` is dropped, the stream as long as its handle is used.
        unsafe { result::event::record(self.raw, stream.raw) }.map_err(failed("cuEventRecord"))
    }

    /// Milliseconds from `earlier` to this event, once both have happened.
    pub(crate) fn milliseconds_since(&self, earlier: &Event) -> Result<f32, Error> {
        // SAFETY: both events exist, were recorded on one stream, and have timing enabled.
        unsafe {
            result::event::synchronize(self.raw).map_err(failed("cuEventSynchronize"))?;
            result::event::elapsed(earlier.raw, self.raw).map_err(failed("cuEventElapsedTime"))
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: created in `new`, destroyed only here.
            let _ = unsafe { result::event::destroy(self.raw) };
        }
    }
}
