//! The worker processes: so many for each GPU, started when first needed, replaced when they die or hang.

use std::io::{BufReader, Read};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nsa_corpus::{Inputs, Outputs};

use super::{frame, worker};
use crate::backend::BackendError;

/// What is kept of a worker's standard error.
const STDERR_BYTES: usize = 4096;

/// Idle places, each with its GPU and, once started, its process.
pub(super) struct Pool {
    arguments: Vec<String>,
    time_limit: Duration,
    idle: Mutex<Vec<Place>>,
    returned: Condvar,
}

struct Place {
    device: usize,
    process: Option<Process>,
}

struct Process {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<std::io::Result<Option<Vec<u8>>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Pool {
    pub(super) fn new(arguments: Vec<String>, devices: usize, workers: usize, time_limit: Duration) -> Self {
        Pool { arguments, time_limit, idle: Mutex::new(places(devices, workers)), returned: Condvar::new() }
    }

    /// Computes `inputs` in a worker, waiting for one to be idle.
    pub(super) fn run(&self, inputs: &Inputs) -> Result<Outputs, BackendError> {
        let mut place = self.take();
        let result = self.run_in(&mut place, inputs);
        // After anything but an answer the context may be poisoned: the next case gets a new process.
        let healthy = matches!(result, Ok(_) | Err(BackendError::Compile(_) | BackendError::Nondeterministic(_)));
        if !healthy {
            place.process = None;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        self.returned.notify_one();
        result
    }

    fn take(&self) -> Place {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(place) = idle.pop() {
                return place;
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run_in(&self, place: &mut Place, inputs: &Inputs) -> Result<Outputs, BackendError> {
        if place.process.is_none() {
            place.process = Some(self.start(place.device)?);
        }
        let process = place.process.as_mut().expect("started above");
        if let Err(error) = frame::write(&mut process.requests, &worker::encode_inputs(inputs)) {
            return Err(BackendError::Crash(process.obituary(&error.to_string())));
        }
        match process.answers.recv_timeout(self.time_limit) {
            Ok(Ok(Some(answer))) => worker::decode(answer),
            Ok(Ok(None)) | Err(RecvTimeoutError::Disconnected) => {
                Err(BackendError::Crash(process.obituary("it ended")))
            }
            Ok(Err(error)) => Err(BackendError::Broken(process.obituary(&error.to_string()))),
            Err(RecvTimeoutError::Timeout) => Err(BackendError::Timeout(self.time_limit)),
        }
    }

    fn start(&self, device: usize) -> Result<Process, BackendError> {
        let environment =
            |error: std::io::Error| BackendError::Environment(format!("the worker cannot be started: {error}"));
        let program = std::env::current_exe().map_err(environment)?;
        let mut child = Command::new(program)
            .args(&self.arguments)
            .args(["--device", &device.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(environment)?;
        let requests = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut errors = child.stderr.take().expect("piped");
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            loop {
                let answer = frame::read(&mut output);
                let last = !matches!(answer, Ok(Some(_)));
                if sender.send(answer).is_err() || last {
                    break;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = errors.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = STDERR_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
        });
        Ok(Process { child, requests, answers, stderr })
    }
}

/// `workers` places for each device, the devices taking turns: however few places are in use, they are on as many devices
/// as there are.
fn places(devices: usize, workers: usize) -> Vec<Place> {
    let turns = (0..workers.max(1)).flat_map(|_| 0..devices.max(1));
    turns.map(|device| Place { device, process: None }).collect()
}

impl Process {
    /// Why it died, as far as it can be told.
    fn obituary(&mut self, what: &str) -> String {
        std::thread::sleep(Duration::from_millis(50));
        let status = match self.child.try_wait() {
            Ok(Some(status)) => format!(" ({status})"),
            _ => String::new(),
        };
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        format!("the worker: {what}{status} {}", String::from_utf8_lossy(&stderr).trim())
    }
}

impl Drop for Process {
    /// Leaves no process behind, not even one that hangs.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_its_workers_and_they_take_turns() {
        for (devices, workers) in [(0, 0), (1, 8), (2, 1), (3, 4), (8, 8)] {
            let places = places(devices, workers);
            let (devices, workers) = (devices.max(1), workers.max(1));
            for device in 0..devices {
                assert_eq!(places.iter().filter(|place| place.device == device).count(), workers);
            }
            // Taken from the end, as cases arrive: the first ones are on different devices.
            let mut first: Vec<usize> = places.iter().rev().take(devices).map(|place| place.device).collect();
            first.sort_unstable();
            assert_eq!(first, (0..devices).collect::<Vec<_>>());
        }
    }
}
