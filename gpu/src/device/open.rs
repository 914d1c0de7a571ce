//! A CUDA device that is open, and the kernels that it has loaded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::compile::{Compiler, Mutant};
use crate::driver::{Context, Function};
use crate::error::{Error, Unavailable};
use crate::plan::Program;

/// What a device is, for a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceInfo {
    /// Its number.
    pub ordinal: usize,
    /// Its name, such as `"NVIDIA H100 80GB HBM3"`.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one CTA may have.
    pub shared_bytes: u32,
    /// Bytes of its second-level cache.
    pub cache_bytes: u32,
    /// Version of CUDA that the driver supports, major and minor.
    pub driver: (u32, u32),
    /// Version of NVRTC, major and minor.
    pub compiler: (u32, u32),
}

impl DeviceInfo {
    /// The architecture that kernels are compiled for: `"sm_90a"` with Hopper's own instructions, else `"sm_XY"`.
    pub fn arch(&self) -> String {
        arch(self.capability)
    }
}

fn arch((major, minor): (u32, u32)) -> String {
    let suffix = if (major, minor) == (9, 0) { "a" } else { "" };
    format!("sm_{major}{minor}{suffix}")
}

/// Whether kernels can run on device 0 here: its description, or what is missing. Never panics.
///
/// # Errors
/// No driver, no device, too old a device, or no compiler library.
pub fn availability() -> Result<DeviceInfo, Unavailable> {
    match Device::open(0) {
        Ok(device) => Ok(device.info.clone()),
        Err(error) => match error.kind() {
            crate::error::Kind::Unavailable(why) => Err(why.clone()),
            other => Err(Unavailable::Driver(other.to_string())),
        },
    }
}

/// Devices that the driver sees; none without a driver. Opens none of them.
pub fn device_count() -> usize {
    Context::count().unwrap_or(0)
}

/// The architecture of each device that the driver sees ([`DeviceInfo::arch`]), `"unknown"` for one that does not tell. Opens none.
pub fn architectures() -> Vec<String> {
    let unknown = |_| "unknown".to_owned();
    (0..device_count()).map(|ordinal| Context::capability_of(ordinal).map_or_else(unknown, arch)).collect()
}

type Loaded = HashMap<(Program, Option<String>), Arc<Function>>;

/// An open device. Kernels are compiled when first needed and kept loaded.
#[derive(Debug)]
pub struct Device {
    context: Arc<Context>,
    info: DeviceInfo,
    compiler: &'static Compiler,
    mutant: Option<Mutant>,
    loaded: Mutex<Loaded>,
}

impl Device {
    /// Opens device number `ordinal`.
    ///
    /// # Errors
    /// As [`availability`].
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        let context = Context::open(ordinal)?;
        let compiler = Compiler::find()?;
        let version = context.driver_version()? as u32;
        let info = DeviceInfo {
            ordinal,
            name: context.name()?,
            capability: Context::capability_of(ordinal)?,
            multiprocessors: context.multiprocessors()?,
            shared_bytes: context.shared_bytes()?,
            cache_bytes: context.cache_bytes()?,
            driver: (version / 1000, version % 1000 / 10),
            compiler: compiler.version(),
        };
        let (major, minor) = info.capability;
        if major < 8 {
            return Err(Unavailable::TooOld { name: info.name, major, minor }.into());
        }
        Ok(Device { context, info, compiler, mutant: None, loaded: Mutex::default() })
    }

    /// The same device with `mutant` planted in its kernels from now on; `None` for the kernels as they are.
    #[must_use]
    pub fn with_mutant(mut self, mutant: Option<Mutant>) -> Self {
        self.mutant = mutant;
        self
    }

    /// What the device is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Bytes of device memory that are free now.
    ///
    /// # Errors
    /// The driver's.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.context.free_bytes()
    }

    /// Waits until every kernel launched so far is done.
    ///
    /// # Errors
    /// A kernel's fault, after which the device's context is lost for this process.
    pub fn synchronize(&self) -> Result<(), Error> {
        self.context.synchronize("a kernel failed")
    }

    /// The kernel of `program`, compiled and loaded.
    pub(super) fn function(&self, program: &Program) -> Result<Arc<Function>, Error> {
        let key = (program.clone(), self.mutant.as_ref().map(|mutant| mutant.name.clone()));
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.get(&key) {
            return Ok(Arc::clone(function));
        }
        let cubin = self.compiler.compile(program, &self.info.arch(), self.mutant.as_ref())?;
        let function = Arc::new(Function::load(&self.context, &cubin.image, program.kernel)?);
        loaded.insert(key, Arc::clone(&function));
        Ok(function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn what_is_missing_is_an_error_that_says_so() {
        match availability() {
            Ok(info) => assert!(device_count() > 0 && info.arch().starts_with("sm_"), "{info:?}"),
            Err(reason) => assert!(reason.to_string().len() > 10, "{reason}"),
        }
        let error = Device::open(1 << 20).unwrap_err();
        let Kind::Unavailable(reason) = error.kind() else { panic!("{error}") };
        let expected = matches!(reason, Unavailable::NoDriver | Unavailable::Driver(_) | Unavailable::NoDevice { .. });
        assert!(expected, "{reason:?}");
    }

    #[test]
    fn only_hopper_has_instructions_of_its_own() {
        let arch = |capability| {
            let (name, driver, compiler) = (String::new(), (13, 0), (13, 0));
            DeviceInfo {
                ordinal: 0,
                name,
                capability,
                multiprocessors: 1,
                shared_bytes: 1,
                cache_bytes: 1,
                driver,
                compiler,
            }
            .arch()
        };
        assert_eq!([(8, 0), (9, 0), (10, 0), (12, 0)].map(arch), ["sm_80", "sm_90a", "sm_100", "sm_120"]);
    }
}
