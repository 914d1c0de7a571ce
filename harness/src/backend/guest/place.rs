//! Where a guest runs: a private folder and, between a start and a fault, a process. There are as many as were allowed.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use nsa_corpus::{Field, Inputs, Outputs};
use serde_json::json;
use tempfile::TempDir;

use super::super::BackendError;
use super::Limits;
use super::command::Program;
use super::declaration::{Declaration, PROTOCOL};
use super::exchange::{Reply, lines, read_answer, request_line};
use super::process::{Process, Silence};

/// One of them.
pub(super) struct Place {
    folder: TempDir,
    process: Option<Process>,
    requests: u64,
}

/// Those that no case is computed in now.
pub(super) struct Places {
    idle: Mutex<Vec<Place>>,
    returned: Condvar,
}

impl Place {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Place { folder: private_folder()?, process: None, requests: 0 })
    }

    /// Starts the guest and reads its declaration.
    pub(super) fn start(&mut self, program: &Program, limits: &Limits) -> Result<Declaration, String> {
        let folder = self.folder.path();
        clear(folder);
        let mut process = Process::start(&program.words, &program.environment, limits.memory_mib)
            .map_err(|error| format!("{}: {error}", program.words[0].display()))?;
        process.send(&json!({ "type": "hello", "protocol": PROTOCOL, "folder": folder }).to_string());
        let line = process.receive(limits.start).map_err(|silence| match silence {
            Silence::Timeout => {
                format!("no declaration within {} s; stderr: {}", limits.start.as_secs(), process.stderr())
            }
            Silence::Ended(how) => format!("it ended before it declared itself: {how}"),
            Silence::Unreadable(why) => why,
        })?;
        let declaration = Declaration::parse(&line)?;
        self.process = Some(process);
        Ok(declaration)
    }

    /// Sends one request, whose tensors are `bytes`, and waits for its reply; the process outlives only a reply that makes
    /// sense.
    pub(super) fn ask(
        &mut self,
        program: &Program,
        limits: &Limits,
        bytes: &[u8],
        inputs: &Inputs,
        fields: &[Field],
    ) -> Result<Outputs, BackendError> {
        if self.process.is_none() {
            self.start(program, limits).map_err(|why| BackendError::Crash(format!("it did not start again: {why}")))?;
        }
        let mut process = self.process.take().expect("started above");
        self.requests += 1;
        let file = format!("request-{}.safetensors", self.requests);
        let path = self.folder.path().join(&file);
        let unwritable = |error| BackendError::Environment(format!("{}: {error}", path.display()));
        std::fs::write(&path, bytes).map_err(unwritable)?;
        process.send(&request_line(self.requests, &file, fields, limits.case));
        let reply = receive(&mut process, self.requests, limits.case);
        let answer = reply.and_then(|reply| self.answer(reply, inputs, fields));
        clear(self.folder.path());
        let (keep, answer) = match answer {
            Ok(answer) => (true, answer),
            Err(error) => (false, Err(error)),
        };
        if keep {
            self.process = Some(process);
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
            Reply::Skip { reason, .. } => Ok(Err(BackendError::Unsupported(lines(&reason, 500)))),
            Reply::Error { class, message, fatal: false, .. } => Ok(Err(class.error(&message))),
            Reply::Error { class, message, fatal: true, .. } => Err(class.error(&message)),
        }
    }
}

impl Places {
    pub(super) fn new(places: Vec<Place>) -> Self {
        Places { idle: Mutex::new(places), returned: Condvar::new() }
    }

    /// Runs `work` in a place, waiting for one to be idle; the one that was used last comes first.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Place) -> T) -> T {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = loop {
            if let Some(place) = idle.pop() {
                break place;
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        };
        drop(idle);
        let result = work(&mut place);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        self.returned.notify_one();
        result
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

fn receive(process: &mut Process, id: u64, limit: Duration) -> Result<Reply, BackendError> {
    let line = process.receive(limit).map_err(|silence| match silence {
        Silence::Timeout => BackendError::Timeout(limit),
        Silence::Ended(how) => BackendError::Crash(how),
        Silence::Unreadable(why) => BackendError::Broken(why),
    })?;
    let reply = Reply::parse(&line).map_err(BackendError::Broken)?;
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
