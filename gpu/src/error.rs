//! Why nothing was computed: no device, a kernel that does not compile, too little memory, a fault.

use std::path::PathBuf;

/// Why no kernel can run on this machine at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The driver's library is not installed.
    #[error("no CUDA driver: libcuda was not found")]
    NoDriver,
    /// The driver refused to start.
    #[error("the CUDA driver does not start: {0}")]
    Driver(String),
    /// The driver sees fewer devices than asked for.
    #[error("no CUDA device {ordinal}: the driver sees {count}")]
    NoDevice {
        /// The device that was asked for.
        ordinal: usize,
        /// Devices that there are.
        count: usize,
    },
    /// The device lacks instructions that the kernels use.
    #[error("{name} has compute capability {major}.{minor}; the kernels need 8.0 or later")]
    TooOld {
        /// The device's name.
        name: String,
        /// Major compute capability.
        major: u32,
        /// Minor compute capability.
        minor: u32,
    },
    /// The compiler library is not installed.
    #[error("no NVRTC: libnvrtc was found in none of {}", list(.searched))]
    NoCompiler {
        /// Folders and names that were tried.
        searched: Vec<PathBuf>,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

/// What went wrong, to match on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// There is no device or no compiler.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The variant does not compute such a problem.
    #[error("{0}")]
    Unsupported(String),
    /// NVRTC refused a kernel.
    #[error("{kernel} does not compile with {}:\n{log}", flags.join(" "))]
    Compile {
        /// The kernel's name.
        kernel: String,
        /// Every option that NVRTC was given.
        flags: Vec<String>,
        /// What NVRTC said.
        log: String,
    },
    /// A call into the driver or the compiler library failed.
    #[error("{call}: {message}")]
    Call {
        /// The call, and what it was about.
        call: String,
        /// What the library answered.
        message: String,
    },
    /// The device lacks the memory; nothing was launched.
    #[error("{needed} bytes are needed on the device and {free} are free")]
    OutOfMemory {
        /// Bytes of every buffer of the call, guard zones included; of one buffer where others took the memory meanwhile.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// A kernel wrote outside a buffer, or between its rows.
    #[error("{buffer}: a kernel wrote {distance} bytes {side} the buffer's own")]
    OutOfBounds {
        /// The buffer whose guard zone changed.
        buffer: String,
        /// `"before"` or `"behind"`.
        side: &'static str,
        /// Distance of the nearest changed byte from a row of the buffer, from 1.
        distance: usize,
    },
    /// A kernel wrote into one of its inputs.
    #[error("{buffer}: a kernel changed byte {byte} of its input")]
    InputChanged {
        /// The input.
        buffer: String,
        /// The first changed byte.
        byte: usize,
    },
    /// A tensor has another size than the problem.
    #[error("{0}")]
    Invalid(String),
    /// A mutant's file is malformed, or its text does not occur exactly once.
    #[error("{0}")]
    Mutant(String),
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &Kind {
        &self.0
    }
}

impl<K: Into<Kind>> From<K> for Error {
    fn from(kind: K) -> Self {
        Error(Box::new(kind.into()))
    }
}
