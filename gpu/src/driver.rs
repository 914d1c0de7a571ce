//! The only file with `unsafe`: calls into the CUDA driver and into NVRTC, each wrapped so that the rest of the crate
//! cannot misuse it. Handles are owned and released on drop; every slice handed over carries its length.
//!
//! What stays the kernels' own responsibility: a kernel reads and writes device memory through the addresses it is
//! given. It cannot reach the host's memory, and [`crate::memory`] checks what it wrote outside its buffers.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::dims::Dims;
use crate::error::{Error, Kind, Unavailable};

fn failed(call: &str) -> impl FnOnce(DriverError) -> Error {
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
    fn bind(&self) -> Result<(), Error> {
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

/// A place in device memory, handed to a kernel. Zero stands for an absent tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(u64);

impl Address {
    pub(crate) const NULL: Address = Address(0);
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

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

/// One value that a kernel is given.
#[derive(Clone, Debug)]
pub(crate) enum Parameter {
    Address(Address),
    Dims(Dims),
    Word(u32),
}

impl Parameter {
    /// Where the value lies, and its bytes.
    fn raw(&self) -> (*mut c_void, usize) {
        match self {
            Parameter::Address(value) => (std::ptr::from_ref(value).cast_mut().cast(), size_of_val(value)),
            Parameter::Dims(value) => (std::ptr::from_ref(value).cast_mut().cast(), size_of_val(value)),
            Parameter::Word(value) => (std::ptr::from_ref(value).cast_mut().cast(), size_of_val(value)),
        }
    }
}

/// How many threads a launch has, and what they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// CTAs along x and y.
    pub(crate) grid: [u32; 2],
    /// Threads of a CTA.
    pub(crate) threads: u32,
    /// CTAs of a cluster along x; 1: no clusters.
    pub(crate) cluster: u32,
    /// Bytes of shared memory beside what the kernel declares itself.
    pub(crate) dynamic_shared: u32,
}

/// A kernel, loaded into the context.
#[derive(Debug)]
pub(crate) struct Function {
    context: Arc<Context>,
    module: sys::CUmodule,
    raw: sys::CUfunction,
    name: String,
}

// SAFETY: modules and functions belong to the context, not to a thread.
unsafe impl Send for Function {}
// SAFETY: as above; no method changes the fields.
unsafe impl Sync for Function {}

impl Function {
    /// Loads kernel `name` from `cubin`.
    pub(crate) fn load(context: &Arc<Context>, cubin: &[u8], name: &str) -> Result<Self, Error> {
        context.bind()?;
        // SAFETY: the driver reads an ELF image, whose header tells its length; `cubin` is what NVRTC made, checked
        // against its digest when it came from disk.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }.map_err(failed("cuModuleLoadData"))?;
        let mut function =
            Function { context: Arc::clone(context), module, raw: std::ptr::null_mut(), name: name.to_owned() };
        let symbol = CString::new(name).map_err(|_| Kind::Invalid(format!("{name:?} is no kernel name")))?;
        // SAFETY: the module was just loaded.
        function.raw =
            unsafe { result::module::get_function(module, symbol) }.map_err(failed("cuModuleGetFunction"))?;
        Ok(function)
    }

    /// The kernel, to be launched with these parameters and no others.
    ///
    /// # Errors
    /// A parameter has another size than the kernel's own. That nothing follows the last is for a test of the sources: asking
    /// the driver for a parameter that is not there is an error to a sanitizer.
    pub(crate) fn call(self: &Arc<Self>, parameters: Vec<Parameter>) -> Result<Call, Error> {
        for (number, parameter) in parameters.iter().enumerate() {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: the driver writes two integers to variables that outlive the call.
            let found = unsafe { sys::cuFuncGetParamInfo(self.raw, number, &raw mut offset, &raw mut size) };
            let own = (found == sys::CUresult::CUDA_SUCCESS).then_some(size);
            if own != Some(parameter.raw().1) {
                let given = parameter.raw().1;
                let message = format!("{}: parameter {number} has {own:?} bytes, {given} are given", self.name);
                return Err(Kind::Invalid(message).into());
            }
        }
        Ok(Call { function: Arc::clone(self), parameters })
    }

    /// Of the memory that an SM divides between its cache and shared memory, asks for as much shared memory as there is
    /// (`most`), or for what the driver thinks best. Changes no result.
    pub(crate) fn prefer_shared(&self, most: bool) -> Result<(), Error> {
        let share = if most { 100 } else { -1 };
        self.set(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, share)
    }

    /// Allows launches with `bytes` of dynamic shared memory.
    pub(crate) fn allow_dynamic_shared(&self, bytes: u32) -> Result<(), Error> {
        self.set(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes as i32)
    }

    fn set(&self, attribute: sys::CUfunction_attribute, value: i32) -> Result<(), Error> {
        self.context.bind()?;
        // SAFETY: the function exists until `self` is dropped; the driver refuses a value that it cannot take.
        unsafe { result::function::set_function_attribute(self.raw, attribute, value) }
            .map_err(failed(&format!("cuFuncSetAttribute of {}", self.name)))
    }
}

/// A kernel and the parameters that it is launched with.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    function: Arc<Function>,
    parameters: Vec<Parameter>,
}

impl Call {
    /// Puts the kernel on `stream`: it may not have begun when this returns.
    pub(crate) fn launch(&self, extent: &Extent, stream: &Stream) -> Result<(), Error> {
        let Function { context, raw, name, .. } = self.function.as_ref();
        context.bind()?;
        let mut parameters: Vec<*mut c_void> = self.parameters.iter().map(|parameter| parameter.raw().0).collect();
        let Extent { grid: [x, y], threads, cluster, dynamic_shared } = *extent;
        // SAFETY: number and sizes of the parameters were compared with the kernel's own in `Function::call`; the driver
        // copies them, and the attribute, before it returns; the stream exists until `stream` is dropped.
        let launched = unsafe {
            if cluster == 1 {
                let (grid, block) = ((x, y, 1), (threads, 1, 1));
                result::launch_kernel(*raw, grid, block, dynamic_shared, stream.raw, &mut parameters)
            } else {
                let mut attribute = cluster_attribute(cluster);
                let config = sys::CUlaunchConfig {
                    gridDimX: x,
                    gridDimY: y,
                    gridDimZ: 1,
                    blockDimX: threads,
                    blockDimY: 1,
                    blockDimZ: 1,
                    sharedMemBytes: dynamic_shared,
                    hStream: stream.raw,
                    attrs: &raw mut attribute,
                    numAttrs: 1,
                };
                let none = std::ptr::null_mut();
                sys::cuLaunchKernelEx(&raw const config, *raw, parameters.as_mut_ptr(), none).result()
            }
        };
        launched.map_err(failed(&format!("launch of {name} with {extent:?}")))
    }
}

fn cluster_attribute(x: u32) -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue {
            clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y: 1, z: 1 },
        },
    }
}

/// An order of work on the device.
#[derive(Debug)]
pub(crate) struct Stream {
    raw: sys::CUstream,
}

impl Stream {
    /// The stream that the driver's own copies use too.
    pub(crate) const DEFAULT: Stream = Stream { raw: std::ptr::null_mut() };
}

impl Drop for Function {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: loaded in `load`, unloaded only here.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}

/// A point in time on the device's default stream.
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

    pub(crate) fn record(&self) -> Result<(), Error> {
        self.context.bind()?;
        // SAFETY: the event exists until `self` is dropped; null is the default stream.
        unsafe { result::event::record(self.raw, std::ptr::null_mut()) }.map_err(failed("cuEventRecord"))
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

type Program = *mut c_void;

/// The functions of NVRTC that are used, from a library opened at run time.
#[derive(Debug)]
pub(crate) struct CompilerLibrary {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    _libraries: Vec<Library>,
}

impl CompilerLibrary {
    /// Opens `library`, after `builtins` where there is one: NVRTC asks the loader for its builtins by name alone, and
    /// finds a library that is already loaded, so that no search path has to be set.
    pub(crate) fn open(library: &Path, builtins: Option<&Path>) -> Result<Self, libloading::Error> {
        let load = |path: &Path| {
            // SAFETY: NVRTC's libraries run no code on loading beyond their own set-up.
            unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        };
        let mut libraries: Vec<Library> = builtins.and_then(|path| load(path).ok()).into_iter().collect();
        let nvrtc = load(library)?;
        // SAFETY: the signatures are those of nvrtc.h since CUDA 11.1; the library is kept open beside the pointers.
        let functions = unsafe {
            CompilerLibrary {
                version: *nvrtc.get(b"nvrtcVersion")?,
                create: *nvrtc.get(b"nvrtcCreateProgram")?,
                compile: *nvrtc.get(b"nvrtcCompileProgram")?,
                log_size: *nvrtc.get(b"nvrtcGetProgramLogSize")?,
                log: *nvrtc.get(b"nvrtcGetProgramLog")?,
                cubin_size: *nvrtc.get(b"nvrtcGetCUBINSize")?,
                cubin: *nvrtc.get(b"nvrtcGetCUBIN")?,
                destroy: *nvrtc.get(b"nvrtcDestroyProgram")?,
                _libraries: Vec::new(),
            }
        };
        libraries.push(nvrtc);
        Ok(CompilerLibrary { _libraries: libraries, ..functions })
    }

    /// Major and minor version, or zeros where the library does not say.
    pub(crate) fn version(&self) -> (u32, u32) {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library writes two integers to places that outlive the call.
        unsafe { (self.version)(&raw mut major, &raw mut minor) };
        (major as u32, minor as u32)
    }

    /// Compiles `source` to a CUBIN: the compiler's status (0: success), its log, and the image.
    pub(crate) fn compile(&self, source: &CString, name: &CString, flags: &[CString]) -> (i32, String, Vec<u8>) {
        let flags: Vec<*const c_char> = flags.iter().map(|flag| flag.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: every pointer is to a C string or array that outlives the program; both arrays of headers are empty.
        // The program is destroyed once, after its log and image were copied.
        unsafe {
            let none = std::ptr::null();
            let status = (self.create)(&raw mut program, source.as_ptr(), name.as_ptr(), 0, none, none);
            if status != 0 {
                return (status, "nvrtcCreateProgram failed".to_owned(), Vec::new());
            }
            let status = (self.compile)(program, flags.len() as c_int, flags.as_ptr());
            let log = fetch(program, self.log_size, self.log);
            let cubin = if status == 0 { fetch(program, self.cubin_size, self.cubin) } else { Vec::new() };
            (self.destroy)(&raw mut program);
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
            (status, log, cubin)
        }
    }
}

/// Asks for a size, then for that many bytes.
///
/// # Safety
/// `program` is alive, and `get` writes exactly as many bytes as `size` tells.
unsafe fn fetch(
    program: Program,
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
) -> Vec<u8> {
    let mut bytes = 0;
    // SAFETY: the caller vouches for the program; the buffer has the size that the library named.
    unsafe {
        if size(program, &raw mut bytes) != 0 {
            return Vec::new();
        }
        let mut buffer = vec![0u8; bytes];
        if get(program, buffer.as_mut_ptr().cast()) != 0 {
            buffer.clear();
        }
        buffer
    }
}
