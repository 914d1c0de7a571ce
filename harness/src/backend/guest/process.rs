//! The child process of a guest: lines to it and from it, each with a time limit, and nothing of it left behind.
//!
//! Nothing that the child does may block or exhaust us: its lines have a longest length, a flood of them waits in the
//! pipe, and of its stderr only the end is kept.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest line that is read: replies name files, they do not hold tensors.
const LINE_BYTES_MAX: u64 = 1 << 16;
/// Lines that may wait; the rest of a flood waits in the child's pipe.
const LINES_WAITING: usize = 4;
/// What is kept of the child's stderr.
const STDERR_BYTES_MAX: usize = 4096;
/// How long a child that has closed its stdout, or been killed, is given to end.
const ENDING: Duration = Duration::from_millis(500);

/// Why no line came.
#[derive(Debug)]
pub(super) enum Silence {
    /// Not in time.
    Timeout,
    /// The child ended: how, and the end of its stderr.
    Ended(String),
    /// A line that is too long, or is not UTF-8.
    Unreadable(String),
}

/// A running child.
pub(super) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Result<String, String>>,
    stderr: Arc<Mutex<VecDeque<u8>>>,
}

impl Process {
    /// Starts `program` in a process group of its own: the terminal's Ctrl-C stops us, and we stop it.
    ///
    /// With `memory_mib`, a shell limits the address space and then becomes the program.
    pub(super) fn start(
        program: &[OsString],
        environment: &[(OsString, OsString)],
        memory_mib: Option<u64>,
    ) -> std::io::Result<Self> {
        let mut command = match memory_mib {
            None => Command::new(&program[0]),
            Some(mib) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -v {} && exec \"$0\" \"$@\"", mib << 10)).arg(&program[0]);
                shell
            }
        };
        command.args(&program[1..]).envs(environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let (sender, lines) = sync_channel(LINES_WAITING);
        let stdout = child.stdout.take().expect("piped above");
        thread::spawn(move || read_lines(BufReader::new(stdout), &sender));
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let (pipe, tail) = (child.stderr.take().expect("piped above"), Arc::clone(&stderr));
        thread::spawn(move || keep_the_end(pipe, &tail));
        let stdin = child.stdin.take();
        Ok(Process { child, stdin, lines, stderr })
    }

    /// Sends a line. One that cannot be sent is noticed where the reply stays out.
    pub(super) fn send(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let sent = stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush());
            if sent.is_err() {
                self.stdin = None;
            }
        }
    }

    /// The next line, within `limit`.
    pub(super) fn receive(&mut self, limit: Duration) -> Result<String, Silence> {
        match self.lines.recv_timeout(limit) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(why)) => Err(Silence::Unreadable(why)),
            Err(RecvTimeoutError::Timeout) => Err(Silence::Timeout),
            Err(RecvTimeoutError::Disconnected) => Err(Silence::Ended(self.ending())),
        }
    }

    /// The end of what it wrote to stderr, made fit for a report.
    pub(super) fn stderr(&self) -> String {
        let kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }

    fn ending(&mut self) -> String {
        let status = match self.wait(ENDING) {
            Some(status) => status.to_string(),
            None => "closed its stdout and did not end".to_owned(),
        };
        // The thread that reads stderr may be a moment behind.
        thread::sleep(Duration::from_millis(20));
        match self.stderr() {
            text if text.is_empty() => status,
            text => format!("{status}; stderr ends: {text}"),
        }
    }

    fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(2)),
                _ => return None,
            }
        }
    }
}

impl Drop for Process {
    /// A guest that reads the end of its stdin ends by itself; whatever is left of its group is killed, and waited for.
    fn drop(&mut self) {
        self.stdin = None;
        if self.lines.try_recv().is_ok() || self.wait(ENDING / 5).is_none() {
            let group = format!("-{}", self.child.id());
            // Signals to a group are not in the standard library.
            let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn read_lines(mut stdout: impl BufRead, lines: &SyncSender<Result<String, String>>) {
    loop {
        let mut line = Vec::new();
        let read = (&mut stdout).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let whole = line.last() == Some(&b'\n');
        let next = match read {
            Ok(0) | Err(_) => return,
            Ok(_) if !whole && line.len() as u64 == LINE_BYTES_MAX => {
                Err(format!("a line on stdout is longer than {LINE_BYTES_MAX} bytes"))
            }
            Ok(_) => String::from_utf8(line).map_err(|_| "a line on stdout is not UTF-8".to_owned()),
        };
        let ends = next.is_err();
        // Nobody listens any more, or nothing after this can be understood.
        if lines.send(next).is_err() || ends {
            return;
        }
    }
}

fn keep_the_end(mut stderr: impl Read, tail: &Mutex<VecDeque<u8>>) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut chunk) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&chunk[..count]);
        let surplus = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..surplus);
    }
}
