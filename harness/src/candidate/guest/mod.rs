//! Anyone's implementation as a candidate: a child process that answers requests (docs/guest-protocol.md).
//!
//! `guest:FILE.py [ARGUMENT…]` runs a Python file, `guest:LIBRARY.so` a shared object behind the C interface,
//! `guest:NAME` a bundled guest, and `guest:PROGRAM [ARGUMENT…]` anything else. Whatever a guest does, it is an answer, a
//! skip or a [`CandidateError`]; after a crash, a hang or nonsense it is killed and started again for the next case.

mod command;
mod declaration;
mod exchange;
mod limits;
mod running;

use nsa_corpus::{Field, Inputs, Outputs};

use self::command::Program;
use self::declaration::Declaration;
use self::exchange::request_file;
pub use self::limits::Limits;
use self::running::Running;
use super::process::Pool;
use super::{Candidate, CandidateError, Unavailable, Unsupported};

/// A guest: its program, its declaration and the processes that it runs as.
pub struct GuestCandidate {
    name: String,
    program: Program,
    limits: Limits,
    declaration: Declaration,
    running: Pool<Running>,
}

impl GuestCandidate {
    /// Starts the guest that `name` (with its `guest:`) describes and reads its declaration. Further processes start when
    /// they are first needed.
    ///
    /// # Errors
    /// It does not start, does not declare itself in time, or its declaration cannot be read.
    pub fn start(name: &str, limits: Limits) -> Result<Self, Unavailable> {
        let program = Program::parse(name.strip_prefix("guest:").unwrap_or(name))?;
        let (first, declaration) = Running::start(&program, &limits).map_err(|error| {
            // The caller says what it was that did not start.
            Unavailable(match error {
                CandidateError::Crash(_, why) => why,
                other => other.to_string(),
            })
        })?;
        let running = Pool::new(limits.processes, Some(first));
        Ok(GuestCandidate { name: name.to_owned(), program, limits, declaration, running })
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
    use super::exchange::{Reply, answer_of, bytes_max};

    /// The reply to `hello`, and what follows from it for a problem.
    pub(crate) fn hello(line: &str, inputs: &Inputs) -> Result<(), String> {
        let declaration = Declaration::parse(line)?;
        declaration.of(inputs.dtype());
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
        let broken = |error: super::CandidateError| error.to_string();
        let bytes_max = bytes_max(inputs, &Field::ALL);
        if bytes.len() as u64 > bytes_max {
            return Err(format!("the answer has {} bytes, more than {bytes_max}", bytes.len()));
        }
        let file = TensorFile::parse(bytes.to_vec()).map_err(|error| error.to_string())?;
        answer_of(&file, &Field::ALL).map(drop).map_err(broken)
    }
}

impl Candidate for GuestCandidate {
    fn name(&self) -> &str {
        &self.name
    }

    fn declaration(&self, inputs: &Inputs) -> super::Declaration {
        self.declaration.of(inputs.dtype())
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        self.declaration.refuses(inputs).map_or(Ok(()), |reason| Err(Unsupported(reason)))
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        let asked = |field: &Field| field.asked_by(inputs) && self.declaration.computes(*field);
        let fields: Vec<Field> = Field::ALL.into_iter().filter(asked).collect();
        // Written before a process is taken: another case may be computed meanwhile.
        let bytes = request_file(inputs);
        let start = |_| {
            Running::start(&self.program, &self.limits).map(|(running, _)| running).map_err(|error| match error {
                CandidateError::Crash(cause, why) => {
                    CandidateError::Crash(cause, format!("it did not start again: {why}"))
                }
                other => other,
            })
        };
        self.running.ask(start, |running| running.ask(&self.limits, &bytes, inputs, &fields))
    }
}
