//! NVRTC, opened at run time.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

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
