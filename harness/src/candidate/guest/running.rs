//! A running guest: its process and its private folder, both new at every start and both gone after a fault.

use std::time::Duration;

use nsa_corpus::{Field, Inputs, Outputs};
use serde_json::json;

use super::super::process::{After, Folder, Process, Silence, deadline};
use super::super::{CandidateError, Cause};
use super::Limits;
use super::command::Program;
use super::declaration::{Declaration, PROTOCOL};
use super::exchange::{Reply, read_answer, request_line};

/// How long emptying the folder may take: a guest that fills it faster than that is ended.
const EMPTYING: Duration = Duration::from_secs(5);

/// The process is dropped, and with it ended, before its folder.
pub(super) struct Running {
    process: Process,
    folder: Folder,
    requests: u64,
}

/// What a guest said to one request.
type Answer = (After, Result<Outputs, CandidateError>);

impl Running {
    /// Starts the guest and reads its declaration.
    ///
    /// # Errors
    /// There is no folder for it: an environment's fault. It does not start, or does not declare itself: a crash.
    pub(super) fn start(program: &Program, limits: &Limits) -> Result<(Self, Declaration), CandidateError> {
        let folder =
            Folder::new().map_err(|error| CandidateError::Environment(format!("no temporary folder: {error}")))?;
        let crash = |(cause, why)| CandidateError::Crash(cause, why);
        let mut process = Process::start(&program.words, &program.environment, limits.memory_mib).map_err(|error| {
            crash((Cause::named("did not start"), format!("{}: {error}", program.words[0].display())))
        })?;
        let until = deadline(limits.start);
        let hello = json!({ "type": "hello", "protocol": PROTOCOL, "folder": folder.path() });
        let line = process.send(format!("{hello}\n").as_bytes(), until).and_then(|()| process.receive_line(until));
        let line = line.map_err(|silence| match silence {
            Silence::Timeout => {
                let (seconds, said) = (limits.start.as_secs(), process.stderr());
                (Cause::Unnamed, format!("no declaration within {seconds} s; stderr: {said}"))
            }
            Silence::Ended(cause, how) => (cause, format!("it ended before it declared itself: {how}")),
            Silence::Unreadable(why) => (Cause::Unnamed, why),
        });
        let parse = |line: String| Declaration::parse(&line).map_err(|why| (Cause::Unnamed, why));
        let declaration = line.and_then(parse).map_err(crash)?;
        Ok((Running { process, folder, requests: 0 }, declaration))
    }

    /// Sends one request, whose tensors are `bytes`, and waits for its reply; the process outlives only a reply that makes
    /// sense.
    pub(super) fn ask(&mut self, limits: &Limits, bytes: &[u8], inputs: &Inputs, fields: &[Field]) -> Answer {
        self.requests += 1;
        let file = format!("request-{}.safetensors", self.requests);
        let answer = self.offer(&file, bytes).and_then(|()| {
            let line = request_line(self.requests, &file, fields, limits.case);
            self.receive(&line, limits.case)
        });
        match answer {
            Err(error) => (After::Replace, Err(error)),
            Ok(reply) => {
                let (after, answer) = self.answer(reply, inputs, fields);
                (if self.folder.empty(EMPTYING) { after } else { After::Replace }, answer)
            }
        }
    }

    /// Makes the file of a request. Nothing else can have its name but what the guest made, whose folder was emptied.
    fn offer(&self, file: &str, bytes: &[u8]) -> Result<(), CandidateError> {
        self.folder.write(file, bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                CandidateError::Broken(format!("it made `{file}` before it was asked"))
            }
            _ => CandidateError::Environment(format!("{}: {error}", self.folder.path().join(file).display())),
        })
    }

    fn receive(&mut self, request: &str, limit: Duration) -> Result<Reply, CandidateError> {
        let until = deadline(limit);
        let sent = self.process.send(format!("{request}\n").as_bytes(), until);
        let line = sent.and_then(|()| self.process.receive_line(until)).map_err(|silence| match silence {
            Silence::Timeout => CandidateError::Timeout(limit),
            Silence::Ended(cause, how) => CandidateError::Crash(cause, how),
            Silence::Unreadable(why) => CandidateError::Broken(why),
        })?;
        let reply: Reply = serde_json::from_str(&line).map_err(|error| {
            let start: String = line.trim_end().chars().take(80).collect();
            CandidateError::Broken(format!("its reply `{}`: {error}", start.escape_debug()))
        })?;
        if reply.id() != self.requests {
            let (found, asked) = (reply.id(), self.requests);
            return Err(CandidateError::Broken(format!("it answered request {found} when asked for {asked}")));
        }
        Ok(reply)
    }

    fn answer(&self, reply: Reply, inputs: &Inputs, fields: &[Field]) -> Answer {
        match reply {
            Reply::Result { outputs, .. } => match read_answer(&self.folder, &outputs, inputs, fields) {
                Ok(outputs) => (After::Keep, Ok(outputs)),
                Err(error) => (After::Replace, Err(error)),
            },
            Reply::Skip { reason, .. } => {
                (After::Keep, Err(CandidateError::Unsupported(reason.chars().take(500).collect())))
            }
            Reply::Error { class, message, fatal, .. } => {
                (if fatal { After::Replace } else { After::Keep }, Err(class.error(&message)))
            }
        }
    }
}
