//! One child process: bytes to it and from it, each with a time limit.
//!
//! One thread does it all, by `poll`: while it waits for room on the child's stdin or for bytes on its stdout, it reads the
//! child's stderr. Nothing is read that was not asked for: a flood waits in the child's pipe.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::owner::{MARK, OURS, kill_marked};
use super::{frame, held};

/// The longest line that is read: replies name files, they do not hold tensors.
const LINE_BYTES_MAX: usize = 1 << 16;
/// What is kept of the child's stderr.
const STDERR_BYTES_MAX: usize = 4096;
/// What is read or written at once: as much as a pipe holds.
const CHUNK: usize = 1 << 16;
/// How often a child that says nothing is asked whether it still lives.
const LOOK: Duration = Duration::from_millis(20);
/// How long a child that has closed its stdout is given to end.
const ENDING: Duration = Duration::from_millis(500);
/// How long a child whose stdin was closed is given to end by itself.
const LEAVING: Duration = Duration::from_millis(100);
/// How long a killed child is waited for. A process that a driver holds may not even die of SIGKILL.
const DYING: Duration = Duration::from_secs(10);

/// Why nothing came.
#[derive(Debug)]
pub(in crate::candidate) enum Silence {
    /// Not in time.
    Timeout,
    /// The child ended: how, and the end of its stderr.
    Ended(String),
    /// A line or a frame that is too long, or a line that is not UTF-8.
    Unreadable(String),
}

/// A running child, which leads a process group of its own: the terminal's Ctrl-C reaches us alone, and we end it.
pub(in crate::candidate) struct Process {
    child: Child,
    /// What every process of its making carries in its environment.
    mark: String,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Read from stdout, and not yet asked for.
    unread: Vec<u8>,
    stderr_end: VecDeque<u8>,
    /// Killed with all that it left, and waited for.
    finished: bool,
}

/// Which stream is waited for.
#[derive(Clone, Copy)]
enum Stream {
    Stdin,
    Stdout,
}

impl Process {
    /// Starts the program `words` with `environment` beside ours, and at most `memory_mib` MiB of address space.
    pub(in crate::candidate) fn start(
        words: &[OsString],
        environment: &[(OsString, OsString)],
        memory_mib: Option<u64>,
    ) -> std::io::Result<Self> {
        let mark = format!("{}-{}", *OURS, held::number());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(environment.iter().map(|(key, value)| (key, value)));
        command.env(MARK, OsStr::new(&mark)).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = held::spawn(&mut command)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (unread, stderr_end) = (Vec::new(), VecDeque::new());
        let process = Process { child, mark, stdin, stdout, stderr, unread, stderr_end, finished: false };
        // Dropped by an error, the process is ended.
        process.streams().try_for_each(|stream| ioctl_fionbio(stream, true))?;
        if let Some(mib) = memory_mib {
            limit_address_space(Pid::from_child(&process.child), mib.saturating_mul(1 << 20))?;
        }
        Ok(process)
    }

    /// Sends `bytes`. What a child does not take because it has ended or closed its stdin is noticed where its answer stays
    /// out.
    ///
    /// # Errors
    /// Some of it was still not taken at the `deadline`.
    pub(in crate::candidate) fn send(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), Silence> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let ready = self.wait_for(Stream::Stdin, deadline)?;
            let Some(stdin) = self.stdin.as_mut().filter(|_| ready) else { break };
            match stdin.write(&rest[..rest.len().min(CHUNK)]) {
                Ok(count) => rest = &rest[count..],
                Err(error) if is_momentary(error.kind()) => {}
                Err(_) => self.stdin = None,
            }
        }
        Ok(())
    }

    /// The next line from its stdout.
    pub(in crate::candidate) fn receive_line(&mut self, deadline: Instant) -> Result<String, Silence> {
        let line = loop {
            let searched = &self.unread[..self.unread.len().min(LINE_BYTES_MAX)];
            if let Some(end) = searched.iter().position(|byte| *byte == b'\n') {
                break self.take(end + 1);
            }
            if self.unread.len() >= LINE_BYTES_MAX {
                return Err(Silence::Unreadable(format!("a line on stdout is longer than {LINE_BYTES_MAX} bytes")));
            }
            if !self.read(deadline)? {
                if self.unread.is_empty() {
                    return Err(Silence::Ended(self.ending()));
                }
                break self.take(self.unread.len());
            }
        };
        String::from_utf8(line).map_err(|_| Silence::Unreadable("a line on stdout is not UTF-8".to_owned()))
    }

    /// The next frame from its stdout, of at most `bytes_max` bytes.
    pub(in crate::candidate) fn receive_frame(
        &mut self,
        bytes_max: u64,
        deadline: Instant,
    ) -> Result<Vec<u8>, Silence> {
        self.read_up_to(frame::HEAD_BYTES, deadline)?;
        let bytes = frame::length(self.unread.first_chunk().expect("read above"));
        if bytes > bytes_max {
            return Err(Silence::Unreadable(format!("a message of {bytes} bytes, more than {bytes_max}")));
        }
        self.take(frame::HEAD_BYTES);
        self.read_up_to(bytes as usize, deadline)?;
        Ok(self.take(bytes as usize))
    }

    /// The end of what it wrote to stderr, made fit for a report.
    pub(in crate::candidate) fn stderr(&mut self) -> String {
        // No more than a pipe holds by the end of this: another process may go on writing.
        for _ in 0..4 {
            self.read_stderr();
        }
        let bytes: Vec<u8> = self.stderr_end.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    fn read_up_to(&mut self, count: usize, deadline: Instant) -> Result<(), Silence> {
        while self.unread.len() < count {
            if !self.read(deadline)? {
                return Err(Silence::Ended(self.ending()));
            }
        }
        Ok(())
    }

    /// Reads something from stdout; `false` at its end, which is also where the child has ended and left it to others.
    fn read(&mut self, deadline: Instant) -> Result<bool, Silence> {
        let mut chunk = [0; CHUNK];
        while self.wait_for(Stream::Stdout, deadline)? {
            let Some(stdout) = &mut self.stdout else { break };
            match stdout.read(&mut chunk) {
                Ok(count @ 1..) => {
                    self.unread.extend_from_slice(&chunk[..count]);
                    return Ok(true);
                }
                Err(error) if is_momentary(error.kind()) => {}
                Ok(0) | Err(_) => self.stdout = None,
            }
        }
        Ok(false)
    }

    /// Waits until `stream` can be written or read; `false` once the child has closed it, or has ended.
    fn wait_for(&mut self, stream: Stream, deadline: Instant) -> Result<bool, Silence> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Silence::Timeout);
            }
            // Asked first: what the child wrote before its end is seen by the poll after it.
            let ended = self.has_ended();
            let (ready, noise) = self.poll(stream, if ended { Duration::ZERO } else { left.min(LOOK) });
            if noise {
                self.read_stderr();
            }
            match ready {
                Some(true) => return Ok(true),
                Some(false) if !ended => {}
                _ => return Ok(false),
            }
        }
    }

    /// Whether `stream` (`None`: closed) is ready, and whether there is something on stderr.
    fn poll(&self, stream: Stream, limit: Duration) -> (Option<bool>, bool) {
        let wanted = match stream {
            Stream::Stdin => self.stdin.as_ref().map(|stdin| PollFd::new(stdin, PollFlags::OUT)),
            Stream::Stdout => self.stdout.as_ref().map(|stdout| PollFd::new(stdout, PollFlags::IN)),
        };
        let Some(wanted) = wanted else { return (None, false) };
        let mut polled = vec![wanted];
        polled.extend(self.stderr.as_ref().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        let limit = Timespec::try_from(limit).expect("short");
        // An error is a signal's interruption: the caller looks again.
        let _ = poll(&mut polled, Some(&limit));
        (Some(!polled[0].revents().is_empty()), polled.get(1).is_some_and(|stderr| !stderr.revents().is_empty()))
    }

    fn read_stderr(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut chunk = [0; CHUNK];
        match stderr.read(&mut chunk) {
            Ok(count @ 1..) => {
                self.stderr_end.extend(&chunk[..count]);
                let surplus = self.stderr_end.len().saturating_sub(STDERR_BYTES_MAX);
                self.stderr_end.drain(..surplus);
            }
            Err(error) if is_momentary(error.kind()) => {}
            Ok(0) | Err(_) => self.stderr = None,
        }
    }

    fn streams(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stdin = self.stdin.iter().map(AsFd::as_fd);
        stdin.chain(self.stdout.iter().map(AsFd::as_fd)).chain(self.stderr.iter().map(AsFd::as_fd))
    }

    /// How it ended, whose stdout has ended, in words.
    fn ending(&mut self) -> String {
        let how = if self.ends_within(ENDING) { self.finish() } else { None };
        let how = how.map_or_else(|| "closed its stdout and did not end".to_owned(), |status| status.to_string());
        match self.stderr() {
            text if text.is_empty() => how,
            text => format!("{how}; stderr ends: {text}"),
        }
    }

    /// Whether the child itself has ended. It is not waited for: its number, which is that of its group, stays its own.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.finished || !matches!(waitid(WaitId::Pid(Pid::from_child(&self.child)), options), Ok(None))
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        loop {
            self.read_stderr();
            if self.has_ended() {
                return true;
            }
            if start.elapsed() >= limit {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills whatever is left of it: its group first, while its number is still its own, then what left the group.
    fn finish(&mut self) -> Option<ExitStatus> {
        if !self.finished {
            self.finished = true;
            held::kill_group(self.child.id());
            held::forget_group(self.child.id());
            kill_marked(|mark| mark == self.mark);
        }
        let start = Instant::now();
        while start.elapsed() < DYING {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                ended => return ended.ok().flatten(),
            }
        }
        None
    }
}

impl Drop for Process {
    /// A child that reads the end of its stdin may end by itself; whatever is left then is killed.
    fn drop(&mut self) {
        self.stdin = None;
        // It has more to say than was asked for: it will not end by itself.
        if self.unread.is_empty() && !self.finished {
            self.ends_within(LEAVING);
        }
        self.finish();
    }
}

fn is_momentary(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Limits a child that has just been started, and everything that it starts from now on. What it did in the microseconds
/// before is outside the limit: docs/decisions.md says why that is accepted.
#[cfg(target_os = "linux")]
fn limit_address_space(child: Pid, bytes: u64) -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
    let most = getrlimit(Resource::As).maximum.map_or(bytes, |most| most.min(bytes));
    prlimit(Some(child), Resource::As, Rlimit { current: Some(most), maximum: Some(most) })?;
    Ok(())
}

/// # Errors
/// Always: the limit of another process is Linux's.
#[cfg(not(target_os = "linux"))]
fn limit_address_space(_child: Pid, _bytes: u64) -> std::io::Result<()> {
    Err(std::io::Error::new(ErrorKind::Unsupported, "a memory limit for guests needs Linux"))
}

#[cfg(test)]
mod tests {
    use super::super::deadline;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A child that runs `script`.
    fn shell(script: &str) -> Process {
        Process::start(&["sh".into(), "-c".into(), script.into()], &[], None).unwrap()
    }

    fn ended(silence: Result<impl std::fmt::Debug, Silence>) -> String {
        match silence {
            Err(Silence::Ended(how)) => how,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_nobody_reads_is_written_until_the_time_is_up() {
        let mut process = shell("sleep 600");
        let sent = process.send(&vec![b'x'; 1 << 20], deadline(Duration::from_millis(300)));
        assert!(matches!(sent, Err(Silence::Timeout)), "{sent:?}");
        // One that is not there to read is noticed where its answer stays out.
        let mut process = shell("exec <&-; sleep 0.3; exit 7");
        process.send(&vec![b'x'; 1 << 20], deadline(LONG)).unwrap();
        assert_eq!(ended(process.receive_line(deadline(LONG))), "exit status: 7");
    }

    #[test]
    fn more_than_a_pipe_holds_goes_both_ways() {
        // A message of 1 000 000 bytes.
        let answer = r"printf '\100\102\017\0\0\0\0\0'; head -c 1000000 /dev/zero";
        let mut process = shell(&format!("head -c 300000 | wc -c >&2; {answer}; echo then a line"));
        process.send(&vec![b'x'; 300_000], deadline(LONG)).unwrap();
        assert_eq!(process.receive_frame(1_000_000, deadline(LONG)).unwrap(), vec![0; 1_000_000]);
        assert_eq!(process.receive_line(deadline(LONG)).unwrap(), "then a line\n");
        assert_eq!(ended(process.receive_line(deadline(LONG))), "exit status: 0; stderr ends: 300000");
        let too_long = shell(answer).receive_frame(999_999, deadline(LONG));
        assert!(matches!(&too_long, Err(Silence::Unreadable(why)) if why.contains("1000000 bytes, more than 999999")));
        let cut_off = shell(r"printf '\11\0\0\0\0\0\0\0short'; exit 2").receive_frame(100, deadline(LONG));
        assert_eq!(ended(cut_off), "exit status: 2");
    }

    #[test]
    fn of_what_it_says_on_stderr_the_last_words_are_kept() {
        let mut process = shell("head -c 300000 /dev/zero | tr '\\0' a >&2; echo the end >&2; exit 1");
        let how = ended(process.receive_line(deadline(LONG)));
        assert!(how.starts_with("exit status: 1; stderr ends: aaaa") && how.ends_with("aaathe end"), "{how}");
        assert!((4096..4196).contains(&how.len()), "{}", how.len());
    }

    #[test]
    fn its_end_is_noticed_while_others_hold_its_stdout() {
        // Without the mark: its group is what is left to find it by.
        let mut process = shell("env -i sleep 600 & echo $!; sleep 0.2; exit 3");
        let other = process.receive_line(deadline(LONG)).unwrap();
        assert_eq!(ended(process.receive_line(deadline(LONG))), "exit status: 3");
        // What it left was killed with its group; one that nobody waited for has no command line any more.
        let command_line = format!("/proc/{}/cmdline", other.trim());
        let start = Instant::now();
        while !std::fs::read(&command_line).unwrap_or_default().is_empty() {
            assert!(start.elapsed() < LONG, "{other} lives");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
