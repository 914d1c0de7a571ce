//! Who a child or a folder belongs to, and the end of what belongs to a process that is gone.
//!
//! Every child is started with the variable [`MARK`] in its environment, which its own children inherit, and every folder
//! bears its owner in its name. So a process that was killed without a chance to clean up leaves nothing that cannot be
//! recognised: the next run kills what carries the mark of an owner that is gone, and removes its folders.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, getppid, getuid};

/// The variable that marks a child and its descendants: `OWNER-NUMBER`.
pub(super) const MARK: &str = "NSA_DIFF_CHILD";

/// A process that forks while it is looked for is looked for again, so many times.
const ROUNDS: usize = 8;

/// How often a worker looks whether the harness still lives.
const LOOK: Duration = Duration::from_secs(1);

/// A process, told from every other that has had its number: `NAMESPACE-PID-STARTED` when written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The PID namespace (two containers may share a folder, and number their processes alike); 0 without `/proc`.
    namespace: u64,
    pid: u32,
    /// In clock ticks since the machine started; 0 without `/proc`.
    started: u64,
}

/// This process.
pub(super) static OURS: LazyLock<Owner> = LazyLock::new(|| {
    let pid = std::process::id();
    let started = process(pid).map_or(0, |process| process.started);
    Owner { namespace: namespace().unwrap_or(0), pid, started }
});

impl Owner {
    /// Reads an owner from the start of `text`; what follows its third part is not looked at.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (namespace, pid, started) = (number()?, number()?, number()?);
        Some(Owner { namespace, pid: u32::try_from(pid).ok()?, started })
    }

    /// Whether it certainly no longer runs. Of another namespace, or where there is no `/proc`, nothing is certain.
    pub(super) fn is_gone(&self) -> bool {
        let ours = &*OURS;
        self.namespace != 0
            && self.namespace == ours.namespace
            && process(self.pid).map_or_else(
                |error| error.kind() == std::io::ErrorKind::NotFound,
                |process| process.ended || process.started != self.started,
            )
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.namespace, self.pid, self.started)
    }
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    ended: bool,
    started: u64,
}

fn process(pid: u32) -> std::io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets, and may hold anything.
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let mut fields = after.split_whitespace();
    let ended = matches!(fields.next(), Some("Z" | "X"));
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    started.map(|started| Stat { ended, started }).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

fn namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// Kills every process of our user, but this one, whose mark `belongs`.
pub(super) fn kill_marked(belongs: impl Fn(&str) -> bool) {
    for _ in 0..ROUNDS {
        let mut killed = false;
        for pid in processes() {
            if mark_of(pid).is_some_and(|mark| belongs(&mark)) {
                killed |= kill(pid, &belongs);
            }
        }
        if !killed {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Those of our user, without this one.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let own = entry.metadata().ok()?.uid() == getuid().as_raw();
        (own && pid != std::process::id()).then_some(pid)
    })
}

fn mark_of(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mark = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(mark.to_vec()).ok()
}

/// The mark is read again once a descriptor holds the process: a number that was taken over in between is not killed.
#[cfg(target_os = "linux")]
fn kill(pid: u32, belongs: impl Fn(&str) -> bool) -> bool {
    use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let held =
        i32::try_from(pid).ok().and_then(Pid::from_raw).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    held.is_some_and(|held| {
        mark_of(pid).is_some_and(|mark| belongs(&mark)) && pidfd_send_signal(held, Signal::KILL).is_ok()
    })
}

/// Without descriptors of processes there is no `/proc` that would have named one.
#[cfg(not(target_os = "linux"))]
fn kill(_pid: u32, _belongs: impl Fn(&str) -> bool) -> bool {
    false
}

/// Ends this process, a child of the harness, soon after the harness has ended, whatever it is at.
pub(in crate::candidate) fn end_with(parent: Option<Pid>) {
    thread::spawn(move || {
        while getppid() == parent {
            thread::sleep(LOOK);
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_back_and_only_a_gone_one_is_gone() {
        let ours = OURS.clone();
        assert_eq!(Owner::parse(&ours.to_string()), Some(ours.clone()));
        assert_eq!(Owner::parse(&format!("{ours}-x7Yz")), Some(ours.clone()));
        for text in ["", "1-2", "1-2-x", "1-99999999999-3", "x7Yz"] {
            assert_eq!(Owner::parse(text), None, "{text}");
        }
        assert!(!ours.is_gone());
        if ours.namespace == 0 {
            return println!("skipped: no /proc here");
        }
        // The number is in use, by a process that started at another time; the number is in use by nobody.
        assert!(Owner { started: ours.started + 1, ..ours.clone() }.is_gone());
        assert!(Owner { pid: u32::MAX, ..ours.clone() }.is_gone());
        // Of another namespace nothing is known.
        assert!(!Owner { namespace: ours.namespace + 1, pid: u32::MAX, ..ours }.is_gone());
    }
}
