//! Anyone's implementation as a candidate: a child process that answers requests (docs/guest-protocol.md).
//!
//! `guest:FILE.py [ARGUMENT…]` runs a Python file, `guest:LIBRARY.so` a shared object behind the C interface,
//! `guest:NAME` a bundled guest, and `guest:PROGRAM [ARGUMENT…]` anything else. Whatever a guest does, it is an answer, a
//! skip or a [`BackendError`]; after a crash, a hang or nonsense it is killed and started again for the next case.

mod command;
mod declaration;
mod exchange;
mod process;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nsa_corpus::{Arithmetic, Field, Inputs, Outputs};
use serde_json::json;
use tempfile::TempDir;

use self::command::Program;
use self::declaration::{Declaration, PROTOCOL};
use self::exchange::{Reply, read_answer, request_file, request_line};
use self::process::{Process, Silence};
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
}

impl Limits {
    /// `NSA_GUEST_TIMEOUT_S` (60) and `NSA_GUEST_MEMORY_MIB` (8192; without an NVIDIA device only).
    pub fn from_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seconds = number("NSA_GUEST_TIMEOUT_S").unwrap_or(60);
        let gpu = Path::new("/dev/nvidia0").exists();
        Limits {
            case: Duration::from_secs(seconds),
            start: Duration::from_secs(seconds.max(120)),
            memory_mib: number("NSA_GUEST_MEMORY_MIB").or((!gpu).then_some(8192)),
        }
    }
}

/// A guest: its program, its declaration and, between a start and a fault, its process.
pub struct GuestBackend {
    name: String,
    program: Program,
    limits: Limits,
    folder: TempDir,
    declaration: Declaration,
    running: Mutex<Running>,
}

struct Running {
    process: Option<Process>,
    requests: u64,
}

impl GuestBackend {
    /// Starts the guest that `name` (with its `guest:`) describes and reads its declaration.
    ///
    /// # Errors
    /// It does not start, does not declare itself in time, or its declaration cannot be read.
    pub fn start(name: &str, limits: Limits) -> Result<Self, Unavailable> {
        let program = Program::parse(name.strip_prefix("guest:").unwrap_or(name))?;
        let folder = private_folder().map_err(|error| Unavailable(format!("no temporary folder: {error}")))?;
        let (process, declaration) = launch(&program, &limits, folder.path()).map_err(Unavailable)?;
        let running = Mutex::new(Running { process: Some(process), requests: 0 });
        Ok(GuestBackend { name: name.to_owned(), program, limits, folder, declaration, running })
    }

    /// The name that the guest gives itself.
    pub fn declared_name(&self) -> &str {
        &self.declaration.name
    }

    /// Sends one request and waits for its reply; the process outlives only a reply that makes sense.
    fn ask(&self, inputs: &Inputs, fields: &[Field]) -> Result<Outputs, BackendError> {
        // Written before the lock: another case may be computed meanwhile.
        let bytes = request_file(inputs);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.requests += 1;
        let id = running.requests;
        let mut process = match running.process.take() {
            Some(process) => process,
            None => {
                let started = launch(&self.program, &self.limits, self.folder.path());
                started.map_err(|why| BackendError::Crash(format!("it did not start again: {why}")))?.0
            }
        };
        let file = format!("request-{id}.safetensors");
        let path = self.folder.path().join(&file);
        let unwritable = |error| BackendError::Environment(format!("{}: {error}", path.display()));
        std::fs::write(&path, bytes).map_err(unwritable)?;
        process.send(&request_line(id, &file, fields, self.limits.case));
        let reply = receive(&mut process, id, self.limits.case);
        let answer = reply.and_then(|reply| self.answer(reply, inputs, fields));
        clear(self.folder.path());
        let (keep, answer) = match answer {
            Ok(answer) => (true, answer),
            Err(error) => (false, Err(error)),
        };
        if keep {
            running.process = Some(process);
        }
        answer
    }

    /// The outer result says whether the process can be asked again, the inner one is the answer.
    fn answer(
        &self,
        reply: Reply,
        inputs: &Inputs,
        fields: &[Field],
    ) -> Result<Result<Outputs, BackendError>, BackendError> {
        match reply {
            Reply::Result { outputs, .. } => read_answer(self.folder.path(), &outputs, inputs, fields).map(Ok),
            Reply::Skip { reason, .. } => Ok(Err(BackendError::Unsupported(reason.chars().take(500).collect()))),
            Reply::Error { class, message, fatal: false, .. } => Ok(Err(class.error(&message))),
            Reply::Error { class, message, fatal: true, .. } => Err(class.error(&message)),
        }
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

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        self.declaration.refuses(inputs).map_or(Ok(()), |reason| Err(Unsupported(reason)))
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        let asked = |field: &Field| field.asked_by(inputs) && self.computes(*field);
        let fields: Vec<Field> = Field::ALL.into_iter().filter(asked).collect();
        self.ask(inputs, &fields)
    }
}

/// In memory where the system has such a place.
fn private_folder() -> std::io::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("nsa-guest-");
        builder
    };
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir())
}

fn launch(program: &Program, limits: &Limits, folder: &Path) -> Result<(Process, Declaration), String> {
    clear(folder);
    let mut process = Process::start(&program.words, &program.environment, limits.memory_mib)
        .map_err(|error| format!("{}: {error}", program.words[0].display()))?;
    process.send(&json!({ "type": "hello", "protocol": PROTOCOL, "folder": folder }).to_string());
    let line = process.receive(limits.start).map_err(|silence| match silence {
        Silence::Timeout => format!("no declaration within {} s; stderr: {}", limits.start.as_secs(), process.stderr()),
        Silence::Ended(how) => format!("it ended before it declared itself: {how}"),
        Silence::Unreadable(why) => why,
    })?;
    let declaration = Declaration::parse(&line)?;
    Ok((process, declaration))
}

fn receive(process: &mut Process, id: u64, limit: Duration) -> Result<Reply, BackendError> {
    let line = process.receive(limit).map_err(|silence| match silence {
        Silence::Timeout => BackendError::Timeout(limit),
        Silence::Ended(how) => BackendError::Crash(how),
        Silence::Unreadable(why) => BackendError::Broken(why),
    })?;
    let reply: Reply = serde_json::from_str(&line).map_err(|error| {
        let start: String = line.trim_end().chars().take(80).collect();
        BackendError::Broken(format!("its reply `{}`: {error}", start.escape_debug()))
    })?;
    if reply.id() != id {
        return Err(BackendError::Broken(format!("it answered request {} when asked for {id}", reply.id())));
    }
    Ok(reply)
}

/// Empties the folder: what one case left is not there for the next. A folder made by the guest stays until the end.
fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
}
