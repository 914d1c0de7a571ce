//! Anyone's implementation as a candidate: a child process that answers requests (docs/guest-protocol.md).
//!
//! `guest:FILE.py [ARGUMENT…]` runs a Python file, `guest:LIBRARY.so` a shared object behind the C interface,
//! `guest:NAME` a bundled guest, and `guest:PROGRAM [ARGUMENT…]` anything else. Whatever a guest does, it is an answer, a
//! skip or a [`BackendError`]; after a crash, a hang or nonsense it is killed and started again for the next case.

mod command;
mod declaration;
mod exchange;
mod place;
mod process;

use std::path::Path;
use std::time::Duration;

use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use serde_json::Value;

use self::command::Program;
use self::declaration::Declaration;
use self::exchange::request_file;
use self::place::{Place, Places};
use super::{Backend, BackendError, Determinism, Unavailable, Unsupported};

/// How a guest is held.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For one case, the guest's compilation of kernels included.
    pub case: Duration,
    /// From its start to its declaration: importing a framework takes a while.
    pub start: Duration,
    /// Address space in MiB; `None`: no limit. A CUDA context reserves more address space than any limit that would help.
    pub memory_mib: Option<u64>,
    /// Processes that may run at once, each asked for one case at a time.
    pub processes: usize,
}

impl Limits {
    /// `NSA_GUEST_TIMEOUT_S` (60), `NSA_GUEST_MEMORY_MIB` (8192; without an NVIDIA device only) and
    /// `NSA_GUEST_PROCESSES` (1).
    pub fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seconds = number("NSA_GUEST_TIMEOUT_S").unwrap_or(60);
        let gpu = Path::new("/dev/nvidia0").exists();
        Limits {
            case: Duration::from_secs(seconds),
            start: Duration::from_secs(seconds.max(120)),
            memory_mib: number("NSA_GUEST_MEMORY_MIB").or((!gpu).then_some(8192)),
            processes: number("NSA_GUEST_PROCESSES").map_or(1, |count| count.clamp(1, 256) as usize),
        }
    }
}

/// A guest: its program, its declaration and the places that it runs in.
pub struct GuestBackend {
    name: String,
    program: Program,
    limits: Limits,
    declaration: Declaration,
    places: Places,
}

impl GuestBackend {
    /// Starts the guest that `name` (with its `guest:`) describes and reads its declaration. Further processes start when
    /// they are first needed.
    ///
    /// # Errors
    /// It does not start, does not declare itself in time, or its declaration cannot be read.
    pub fn start(name: &str, limits: Limits) -> Result<Self, Unavailable> {
        let program = Program::parse(name.strip_prefix("guest:").unwrap_or(name))?;
        let places: std::io::Result<Vec<Place>> = (0..limits.processes.max(1)).map(|_| Place::new()).collect();
        let mut places = places.map_err(|error| Unavailable(format!("no temporary folder: {error}")))?;
        // The last is taken first.
        let first = places.last_mut().expect("one at least");
        let declaration = first.start(&program, &limits).map_err(Unavailable)?;
        Ok(GuestBackend { name: name.to_owned(), program, limits, declaration, places: Places::new(places) })
    }

    /// The name that the guest gives itself.
    pub fn declared_name(&self) -> &str {
        &self.declaration.name
    }
}

/// Reads what a guest writes, as one function of bytes each. See [`crate::readers`].
pub(crate) mod read {
    use nsa_corpus::{Field, Inputs, TensorFile};

    use super::declaration::Declaration;
    use super::exchange::{Reply, answer_of, check_length};

    /// The reply to `hello`, and what follows from it for a problem.
    pub(crate) fn hello(line: &str, inputs: &Inputs) -> Result<(), String> {
        let declaration = Declaration::parse(line)?;
        declaration.arithmetic(inputs.element());
        declaration.refuses(inputs).map_or(Ok(()), Err)
    }

    /// A reply to `run`.
    pub(crate) fn reply(line: &str) -> Result<(), String> {
        match Reply::parse(line)? {
            Reply::Error { class, message, .. } => Err(class.error(&message).to_string()),
            _ => Ok(()),
        }
    }

    /// The file of an answer to `inputs`.
    pub(crate) fn answer(bytes: &[u8], inputs: &Inputs) -> Result<(), String> {
        let broken = |error: super::BackendError| error.to_string();
        check_length(bytes.len() as u64, inputs, &Field::ALL).map_err(broken)?;
        let file = TensorFile::parse(bytes.to_vec()).map_err(|error| error.to_string())?;
        answer_of(&file, &Field::ALL).map(drop).map_err(broken)
    }
}

impl Backend for GuestBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn arithmetic(&self, inputs: &Inputs) -> Arithmetic {
        self.declaration.arithmetic(inputs.element())
    }

    fn determinism(&self, field: Field) -> Determinism {
        self.declaration.determinism(field)
    }

    fn computes(&self, field: Field) -> bool {
        self.declaration.computes(field)
    }

    fn reads_only_what_it_attends_to(&self, _inputs: &Inputs) -> bool {
        self.declaration.reads_only_what_it_attends_to
    }

    fn environment(&self) -> Value {
        self.declaration.environment.clone()
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        self.declaration.refuses(inputs).map_or(Ok(()), |reason| Err(Unsupported(reason)))
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        let asked = |field: &Field| field.asked_by(inputs) && self.computes(*field);
        let fields: Vec<Field> = Field::ALL.into_iter().filter(asked).collect();
        // Written before a place is taken: another case may be computed meanwhile.
        let bytes = request_file(inputs);
        self.places.with(|place| place.ask(&self.program, &self.limits, &bytes, inputs, &fields))
    }
}
