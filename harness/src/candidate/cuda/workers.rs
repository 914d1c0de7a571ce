//! The worker processes: so many for each GPU.

use std::ffi::OsString;
use std::time::Duration;

use nsa_corpus::{Field, Inputs, Outputs};

use super::worker;
use crate::candidate::CandidateError;
use crate::candidate::process::{After, Pool, Process, Silence, deadline, frame};

/// What an answer may take beside its tensors; a compiler's log, too.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Workers that are started when first needed, and replaced when they die, hang or report a fault of their context.
pub(super) struct Workers {
    /// The program and its arguments; the number of the GPU follows them.
    words: Vec<OsString>,
    devices: usize,
    time_limit: Duration,
    pool: Pool<Process>,
}

impl Workers {
    pub(super) fn new(words: Vec<OsString>, devices: usize, workers: usize, time_limit: Duration) -> Self {
        let devices = devices.max(1);
        Workers { words, devices, time_limit, pool: Pool::new(devices * workers.max(1), None) }
    }

    /// Computes `inputs` in a worker, waiting for one to be idle.
    pub(super) fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        let request = worker::encode_inputs(inputs);
        // The devices take turns: however few slots are in use, they are on as many devices as there are.
        let start = |slot| self.start(slot % self.devices);
        self.pool.ask(start, |process| {
            let result = self.ask(process, &request, answer_bytes_max(inputs));
            // After anything but an answer the context may be poisoned: the next case gets a new process.
            let healthy =
                matches!(result, Ok(_) | Err(CandidateError::Compile(..) | CandidateError::Nondeterministic(_)));
            (if healthy { After::Keep } else { After::Replace }, result)
        })
    }

    fn ask(&self, process: &mut Process, request: &[u8], bytes_max: u64) -> Result<Outputs, CandidateError> {
        let until = deadline(self.time_limit);
        let sent = process.send(&frame::head(request.len()), until).and_then(|()| process.send(request, until));
        let answer = sent.and_then(|()| process.receive_frame(bytes_max, until)).map_err(|silence| match silence {
            Silence::Timeout => CandidateError::Timeout(self.time_limit),
            Silence::Ended(cause, how) => CandidateError::Crash(cause, format!("the worker ended: {how}")),
            Silence::Unreadable(why) => CandidateError::Broken(format!("the worker: {why} {}", process.stderr())),
        })?;
        worker::decode(answer)
    }

    fn start(&self, device: usize) -> Result<Process, CandidateError> {
        let mut words = self.words.clone();
        words.extend(["--device".into(), device.to_string().into()]);
        Process::start(&words, &[], None)
            .map_err(|error| CandidateError::Environment(format!("the worker cannot be started: {error}")))
    }
}

/// Twice what every field takes in f64.
fn answer_bytes_max(inputs: &Inputs) -> u64 {
    let values: usize = Field::ALL.into_iter().map(|field| field.shape(inputs.shape()).iter().product::<usize>()).sum();
    16 * values as u64 + HEADER_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nsa_corpus::{Dtype, entries};

    use super::*;
    use crate::candidate::Cause;

    /// A worker that does `script` after it has read a byte of its request; `$2` is the number of its GPU.
    fn workers(script: &str, devices: usize, workers: usize) -> Workers {
        let script = format!("head -c 1 > /dev/null; {script}");
        let words = vec!["sh".into(), "-c".into(), script.into(), "worker".into()];
        Workers::new(words, devices, workers, Duration::from_secs(2))
    }

    fn ask(workers: &Workers) -> CandidateError {
        let entry = entries().iter().find(|entry| entry.name == "edges/seq_1").expect("an entry");
        workers.run(&entry.case.materialize(Dtype::F32).unwrap()).unwrap_err()
    }

    #[test]
    fn a_worker_that_dies_hangs_or_says_nonsense_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let starts = folder.path().join("starts");
        let message = r#"{"class":"compile","message":"line 3"}"#;
        // 39 bytes, of which the first says that trouble follows.
        let answer = format!(r"printf '\47\0\0\0\0\0\0\0\1'; printf %s '{message}'");
        let again = format!("{answer}; head -c 100 > /dev/null; {answer}; sleep 60");
        let misbehaviours = [
            ("echo last words >&2; exit 3", "crashed: the worker ended: exit status: 3; stderr ends: last words", 2),
            ("sleep 600", "no answer within 2 s", 2),
            (r"printf '\377\377\377\377\377\377\377\177'; sleep 60", "bytes, more than", 2),
            (r"printf '\1\0\0\0\0\0\0\0\5'; sleep 60", "an answer of an unknown kind", 2),
            (again.as_str(), "does not compile: line 3", 1),
        ];
        for (mutation, expected, started) in misbehaviours {
            let _ = std::fs::remove_file(&starts);
            let workers = workers(&format!("echo $2 >> {}; {mutation}", starts.display()), 1, 1);
            for _ in 0..2 {
                let error = ask(&workers).to_string();
                assert!(error.contains(expected), "{mutation}: {error}");
            }
            assert_eq!(std::fs::read_to_string(&starts).unwrap(), "0\n".repeat(started), "{mutation}");
        }
    }

    #[test]
    fn every_device_has_its_workers_and_they_take_turns() {
        for (devices, per_device) in [(0, 0), (1, 8), (2, 1), (3, 4), (8, 8)] {
            let pool = workers("exit 1", devices, per_device);
            let (devices, per_device) = (devices.max(1), per_device.max(1));
            let seen = std::sync::Mutex::new(Vec::new());
            // All slots in use at once, in the order in which they are taken.
            fn take(pool: &Pool<Process>, seen: &std::sync::Mutex<Vec<usize>>, left: usize) {
                let start = |slot| {
                    seen.lock().unwrap().push(slot);
                    if left > 1 {
                        take(pool, seen, left - 1);
                    }
                    Err(CandidateError::Crash(Cause::Unnamed, String::new()))
                };
                let _ = pool.ask::<()>(start, |_| unreachable!("none is started"));
            }
            take(&pool.pool, &seen, devices * per_device);
            let seen: Vec<usize> = seen.into_inner().unwrap().into_iter().map(|slot| slot % pool.devices).collect();
            let first: BTreeSet<usize> = seen[..devices].iter().copied().collect();
            assert_eq!(first.len(), devices, "the first are on different devices");
            for device in 0..devices {
                assert_eq!(seen.iter().filter(|found| **found == device).count(), per_device);
            }
        }
    }
}
