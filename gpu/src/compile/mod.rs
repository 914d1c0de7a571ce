//! From a kernel's text to a CUBIN: finding NVRTC without any environment variable, compiling, and a disk cache.
//!
//! CUBIN rather than PTX: PTX would not have checked inline assembly, and the driver would compile it again.

mod cache;
mod far;
mod files;
mod find;
mod mutant;
pub mod source;

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use sha2::{Digest, Sha256};

use crate::driver::CompilerLibrary;
use crate::error::{Error, Kind, Unavailable};
use crate::plan::Program;
use cache::{default_cache, read_entry, write_entry};
use find::{folders, libraries};

pub use cache::Cubin;
pub use files::{CHECKS, FILES, File, file};
pub use mutant::{Mutant, mutants};

/// NVRTC, found and opened.
#[derive(Debug)]
pub struct Compiler {
    // The library compiles one program at a time: it guards its state by one lock of its own anyway.
    library: Mutex<CompilerLibrary>,
    version: (u32, u32),
    /// Version and, of a library found as a file, its bytes: two releases of one version differ there.
    identity: String,
    path: PathBuf,
    cache: Option<PathBuf>,
}

impl Compiler {
    /// Looks for NVRTC and opens it, once for the process.
    ///
    /// # Errors
    /// [`Unavailable::NoCompiler`] with every place that was searched.
    pub fn find() -> Result<&'static Compiler, Unavailable> {
        static COMPILER: OnceLock<Result<Compiler, Unavailable>> = OnceLock::new();
        COMPILER.get_or_init(|| Self::search(default_cache())).as_ref().map_err(Clone::clone)
    }

    /// A compiler of its own, whose results are kept in `cache`.
    ///
    /// # Errors
    /// As [`Compiler::find`].
    pub fn with_cache(cache: Option<PathBuf>) -> Result<Compiler, Unavailable> {
        Self::search(cache)
    }

    fn search(cache: Option<PathBuf>) -> Result<Compiler, Unavailable> {
        let folders = folders();
        let candidates = folders.iter().flat_map(|folder| libraries(folder));
        let by_name = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(|name| (PathBuf::from(name), None));
        Self::open_first(candidates.chain(by_name), cache).ok_or(Unavailable::NoCompiler { searched: folders })
    }

    /// The first library, each with its builtins, that opens and is NVRTC.
    fn open_first(
        mut candidates: impl Iterator<Item = (PathBuf, Option<PathBuf>)>,
        cache: Option<PathBuf>,
    ) -> Option<Compiler> {
        candidates.find_map(|(path, builtins)| {
            let library = CompilerLibrary::open(&path, builtins.as_deref()).ok()?;
            let version = library.version();
            let identity = identity(version, &path);
            Some(Compiler { library: Mutex::new(library), version, identity, path, cache: cache.clone() })
        })
    }

    /// Major and minor version of NVRTC.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Where the library was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compiles `program` for `arch`, such as `"sm_90a"`, or takes it from the cache.
    ///
    /// # Errors
    /// [`Kind::Compile`] with the flags and the compiler's log.
    pub fn compile(&self, program: &Program, arch: &str, mutant: Option<&Mutant>) -> Result<Cubin, Error> {
        let text = source::flatten(program, mutant);
        let mut flags = program.flags();
        flags.push(format!("--gpu-architecture={arch}"));
        let entry = self.cache.as_ref().map(|folder| folder.join(self.key(&text, &flags)));
        if let Some(cubin) = entry.as_deref().and_then(read_entry) {
            return Ok(cubin);
        }
        let cubin = self.compile_text(program.kernel, &text, &flags)?;
        if let Some(entry) = &entry {
            // A cache that cannot be written costs time, not the answer.
            let _ = write_entry(entry, &cubin);
        }
        Ok(cubin)
    }

    fn compile_text(&self, kernel: &str, text: &str, flags: &[String]) -> Result<Cubin, Error> {
        let terminated = |text: &str| {
            CString::new(text).map_err(|_| Error::from(Kind::Invalid(format!("{kernel}: a zero byte in its text"))))
        };
        let options = flags.iter().map(|flag| terminated(flag)).collect::<Result<Vec<_>, _>>()?;
        let name = terminated(&format!("{kernel}.cu"))?;
        let source = terminated(text)?;
        let library = self.library.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (status, log, image) = library.compile(&source, &name, &options);
        if status != 0 || image.is_empty() {
            return Err(Kind::Compile { kernel: kernel.to_owned(), flags: flags.to_vec(), log }.into());
        }
        Ok(Cubin { image, log })
    }

    /// Name of the cache's entry: a digest of everything that decides the result.
    fn key(&self, text: &str, flags: &[String]) -> String {
        let mut hasher = Sha256::new();
        hasher.update(format!("{}\n{}\n{text}", self.identity, flags.join("\n")).as_bytes());
        source::hex(&hasher.finalize()) + ".cubin"
    }
}

/// Which compiler this is, as the cache tells compilers apart.
fn identity((major, minor): (u32, u32), path: &Path) -> String {
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let bytes = fs::metadata(&file).map_or(0, |metadata| metadata.len());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    format!("nvrtc {major}.{minor} {name} {bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_nvrtc_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"] {
            fs::write(folder.path().join(name), "no library").unwrap();
        }
        assert_eq!(libraries(folder.path()).len(), 1);
        assert!(Compiler::open_first(libraries(folder.path()).into_iter(), None).is_none());
        assert!(libraries(&folder.path().join("absent")).is_empty());
        // A library that is another one lacks the symbols.
        let other = [("libm.so.6".into(), None), ("libc.so.6".into(), Some("libm.so.6".into()))];
        assert!(Compiler::open_first(other.into_iter(), None).is_none());
        let searched = vec![folder.path().to_owned()];
        let message = Unavailable::NoCompiler { searched }.to_string();
        assert!(message.contains("libnvrtc") && message.contains(&*folder.path().to_string_lossy()), "{message}");
    }

    #[test]
    fn the_cache_tells_sources_headers_flags_architectures_and_compilers_apart() {
        let Ok(mut compiler) = Compiler::with_cache(None) else {
            eprintln!("skipped: no NVRTC");
            return;
        };
        let flags = |arch: &str| vec!["-DELEMENT=1".to_owned(), format!("--gpu-architecture={arch}")];
        let text = source::flatten(&crate::plan::catalogue()[0], None);
        let key = compiler.key(&text, &flags("sm_90a"));
        assert_eq!(compiler.key(&text, &flags("sm_90a")), key);
        assert_ne!(compiler.key(&text, &flags("sm_80")), key);
        assert_ne!(compiler.key(&text, &flags("sm_90a")[1..]), key);
        // The text is flattened: a header's change is a change of it.
        assert!(text.contains("struct Dims {"));
        assert_ne!(compiler.key(&text.replacen("long long batch", "long batch", 1), &flags("sm_90a")), key);
        compiler.identity = identity((13, 1), &compiler.path);
        assert_ne!(compiler.key(&text, &flags("sm_90a")), key);
    }

    #[test]
    fn a_kernel_that_does_not_compile_says_why_and_how() {
        let Ok(compiler) = Compiler::with_cache(None) else {
            eprintln!("skipped: no NVRTC");
            return;
        };
        let flags = ["--gpu-architecture=sm_90a".to_owned()];
        let error = compiler.compile_text("broken", "extern \"C\" __global__ void broken( {", &flags).unwrap_err();
        let Kind::Compile { kernel, flags, log } = error.kind() else { panic!("{error}") };
        assert_eq!((kernel.as_str(), flags.len()), ("broken", 1));
        assert!(log.contains("broken.cu(1)"), "{log}");
    }
}
