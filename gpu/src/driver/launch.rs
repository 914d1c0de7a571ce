//! Kernels, their parameters, and the streams that order them.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::context::{Context, failed};
use super::memory::Address;
use super::stream::Stream;
use crate::error::{Error, Kind};
use crate::plan::{Dim3, Dims};

/// One value that a kernel is given.
#[derive(Clone, Debug)]
pub(crate) enum Parameter {
    Address(Address),
    Dims(Box<Dims>),
    Word(u32),
}

impl Parameter {
    /// Where the value lies, and its bytes.
    fn raw(&self) -> (*mut c_void, usize) {
        match self {
            Parameter::Address(value) => (std::ptr::from_ref(value).cast_mut().cast(), size_of_val(value)),
            Parameter::Dims(value) => (std::ptr::from_ref(value.as_ref()).cast_mut().cast(), size_of::<Dims>()),
            Parameter::Word(value) => (std::ptr::from_ref(value).cast_mut().cast(), size_of_val(value)),
        }
    }
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
    pub(crate) fn launch(&self, extent: &Dim3, stream: Stream) -> Result<(), Error> {
        let Function { context, raw, name, .. } = self.function.as_ref();
        context.bind()?;
        let mut parameters: Vec<*mut c_void> = self.parameters.iter().map(|parameter| parameter.raw().0).collect();
        let Dim3 { grid: [x, y, z], threads, cluster, dynamic_shared, .. } = *extent;
        // SAFETY: number and sizes of the parameters were compared with the kernel's own in `Function::call`; the driver
        // copies them, and the attribute, before it returns; the stream exists as long as its owner, whom the maker of a `Stream` vouches for.
        let launched = unsafe {
            if cluster == 1 {
                let (grid, block) = ((x, y, z), (threads, 1, 1));
                result::launch_kernel(*raw, grid, block, dynamic_shared, stream.raw, &mut parameters)
            } else {
                let mut attribute = cluster_attribute(cluster);
                let config = sys::CUlaunchConfig {
                    gridDimX: x,
                    gridDimY: y,
                    gridDimZ: z,
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

impl Drop for Function {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: loaded in `load`, unloaded only here.
            let _ = unsafe { result::module::unload(self.module) };
        }
    }
}
