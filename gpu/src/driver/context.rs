//! Devices and their contexts.

use std::ffi::c_int;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute};

use crate::error::{Error, Kind, Unavailable};

pub(super) fn failed(call: &str) -> impl FnOnce(DriverError) -> Error {
    let call = call.to_owned();
    move |error| Kind::Call { call, message: format!("{error:?}") }.into()
}

/// The device's primary context, retained for as long as this lives.
#[derive(Debug)]
pub(crate) struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

// SAFETY: a primary context may be made current in any thread, and the driver locks its own state.
unsafe impl Send for Context {}
// SAFETY: as above; no method changes the fields.
unsafe impl Sync for Context {}

impl Context {
    /// Devices that the driver sees.
    pub(crate) fn count() -> Result<usize, Error> {
        // SAFETY: only looks for the library; without this question cudarc panics where it is missing.
        if !unsafe { sys::is_culib_present() } {
            return Err(Unavailable::NoDriver.into());
        }
        result::init().map_err(|error| Unavailable::Driver(format!("{error:?}")))?;
        Ok(result::device::get_count().map_err(failed("cuDeviceGetCount"))? as usize)
    }

    /// Opens device number `ordinal`.
    pub(crate) fn open(ordinal: usize) -> Result<Arc<Self>, Error> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(Unavailable::NoDevice { ordinal, count }.into());
        }
        let device = result::device::get(ordinal as c_int).map_err(failed("cuDeviceGet"))?;
        // SAFETY: the device was just returned by the driver; `Drop` releases the context once.
        let raw = unsafe { result::primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        Ok(Arc::new(Context { device, raw }))
    }

    /// Makes the context current in this thread, as every later call needs.
    pub(super) fn bind(&self) -> Result<(), Error> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { result::ctx::set_current(self.raw) }.map_err(failed("cuCtxSetCurrent"))
    }

    pub(crate) fn name(&self) -> Result<String, Error> {
        result::device::get_name(self.device).map_err(failed("cuDeviceGetName"))
    }

    /// Version of CUDA that the driver supports, as 1000 major + 10 minor.
    pub(crate) fn driver_version(&self) -> Result<i32, Error> {
        let mut version = 0;
        // SAFETY: the driver writes one integer to a place that outlives the call.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed("cuDriverGetVersion"))?;
        Ok(version)
    }

    /// Compute capability of device number `ordinal`, major and minor. Opens nothing.
    pub(crate) fn capability_of(ordinal: usize) -> Result<(u32, u32), Error> {
        use CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        Self::count()?;
        let device = result::device::get(ordinal as c_int).map_err(failed("cuDeviceGet"))?;
        Ok((attribute(device, MAJOR)?, attribute(device, MINOR)?))
    }

    pub(crate) fn multiprocessors(&self) -> Result<u32, Error> {
        attribute(self.device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    /// Bytes of shared memory that one CTA may have, where it asks for them.
    pub(crate) fn shared_bytes(&self) -> Result<u32, Error> {
        attribute(self.device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    }

    pub(crate) fn cache_bytes(&self) -> Result<u32, Error> {
        attribute(self.device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)
    }

    /// Bytes of device memory that are free now.
    pub(crate) fn free_bytes(&self) -> Result<u64, Error> {
        self.bind()?;
        Ok(result::mem_get_info().map_err(failed("cuMemGetInfo"))?.0 as u64)
    }

    /// Waits for everything launched so far; a fault of a kernel surfaces here.
    pub(crate) fn synchronize(&self, what: &str) -> Result<(), Error> {
        self.bind()?;
        result::ctx::synchronize().map_err(failed(what))
    }
}

fn attribute(device: sys::CUdevice, attribute: CUdevice_attribute) -> Result<u32, Error> {
    // SAFETY: the device was returned by the driver.
    let value = unsafe { result::device::get_attribute(device, attribute) };
    Ok(value.map_err(failed("cuDeviceGetAttribute"))? as u32)
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`; buffers, modules and events hold an `Arc` and are gone by now.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
