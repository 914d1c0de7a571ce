//! Whatever ends the harness, nothing of its guests is left behind, and the exit code says what it was.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::scripted::{alive_with, folders, leaves_nothing, started, wait_until, write_script};

/// The guest starts others, of which one leaves its process group, and never answers; none of them heeds a signal.
const STUBBORN: &str = "trap '' TERM INT HUP; sleep 600 & setsid sleep 600 & sleep 0.2; touch $at/asked; sleep 600";

/// `nsa-diff SUBCOMMAND` with a guest that has been asked, and does not answer.
struct Hanging {
    fixtures: TempDir,
    harness: Child,
}

impl Hanging {
    fn start(subcommand: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_nsa-diff")), subcommand)
    }

    fn start_by(mut command: Command, subcommand: &[&str]) -> Self {
        let fixtures = tempfile::tempdir().unwrap();
        let script = write_script(fixtures.path(), STUBBORN);
        let candidate = format!("guest:sh {}", script.display());
        command.args(subcommand).args(["--candidate", &candidate]).env("NSA_GUEST_TIMEOUT_S", "100");
        let mut harness = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let asked = fixtures.path().join("asked");
        wait_until("the guest is not asked", || asked.exists() || harness.try_wait().unwrap().is_some());
        assert!(asked.exists(), "the harness ended before it asked");
        // The script, and two that it started.
        assert!(alive_with(fixtures.path()).len() >= 3);
        Hanging { fixtures, harness }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.harness), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the harness goes on", || {
            status = self.harness.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn at(&self) -> &Path {
        self.fixtures.path()
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.harness.kill();
        let _ = self.harness.wait();
        for id in alive_with(self.at()) {
            let _ = kill_process(Pid::from_raw(id as i32).unwrap(), Signal::KILL);
        }
    }
}

const RUN: &[&str] = &["run", "edges/seq_1", "--dtype", "f32"];

#[test]
fn a_second_signal_ends_the_harness_at_once_and_all_that_its_guests_left() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut hanging = Hanging::start(RUN);
        hanging.signal(signal);
        // The first one asks for an end after the case, which does not come.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(hanging.harness.try_wait().unwrap(), None, "{signal:?}");
        hanging.signal(signal);
        assert_eq!(hanging.wait().code(), Some(code), "{signal:?}");
        leaves_nothing(hanging.at(), &format!("{signal:?} twice"));
    }
}

#[test]
fn a_command_that_cannot_report_a_part_ends_with_the_first_signal() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/golden");
    let mut hanging = Hanging::start(&["golden", files.to_str().unwrap()]);
    hanging.signal(Signal::TERM);
    assert_eq!(hanging.wait().code(), Some(143));
    leaves_nothing(hanging.at(), "golden");
}

#[test]
fn a_harness_that_ignores_hangups_goes_on_ignoring_them() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_nsa-diff")]);
    let mut hanging = Hanging::start_by(shell, RUN);
    for _ in 0..3 {
        hanging.signal(Signal::HUP);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(hanging.harness.try_wait().unwrap(), None);
    hanging.signal(Signal::TERM);
    hanging.signal(Signal::INT);
    assert!([Some(130), Some(143)].contains(&hanging.wait().code()));
}

#[test]
fn the_next_run_sweeps_what_a_killed_harness_left_and_nothing_else() {
    let mut living = Hanging::start(RUN);
    let mut killed = Hanging::start(RUN);
    // Its folder holds more than it was given, and leads elsewhere.
    let folder = &folders(killed.at())[0];
    let canary = killed.at().join("canary");
    std::fs::write(&canary, "sings").unwrap();
    std::os::unix::fs::symlink(&canary, folder.join("link")).unwrap();
    std::os::unix::fs::symlink(killed.at(), folder.join("folder_link")).unwrap();
    std::fs::create_dir_all(folder.join("a/b/c")).unwrap();
    killed.signal(Signal::KILL);
    killed.wait();

    // Any guest will do, even one that is none.
    let mut next = Command::new(env!("CARGO_BIN_EXE_nsa-diff"));
    let ended = next.args(RUN).args(["--candidate", "guest:true"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
    leaves_nothing(killed.at(), "SIGKILL and the next run");
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "sings");

    assert_eq!(living.harness.try_wait().unwrap(), None);
    assert!(folders(living.at()).iter().all(|folder| folder.exists()));
    assert!(alive_with(living.at()).contains(&started(living.at())[0]));
}

/// The Python that guests run with, where it has what they need; else it says why not.
pub(crate) fn python() -> Option<String> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.python");
    let python = std::env::var("NSA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let required_features =
        Command::new(&python).env("PYTHONPATH", packages).args(["-c", "import numpy, safetensors"]).output();
    let there = required_features.is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: {python} has no numpy or no safetensors");
    }
    there.then_some(python)
}

#[test]
fn a_python_guest_ends_soon_after_a_killed_harness_whatever_it_is_at() {
    let Some(_) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (guest, asked) = (folder.path().join("sleeper.py"), folder.path().join("asked"));
    let text = "import os, sys, time\nfrom nsa_guest import guest\n\n\n\
                @guest(name='sleeper', arithmetic='f32', fields=['out'])\n\
                def attend(case):\n    open(sys.argv[-1], 'w').write(str(os.getpid()))\n    time.sleep(600)\n";
    std::fs::write(&guest, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsa-diff"));
    let candidate = format!("guest:{} {}", guest.display(), asked.display());
    command.args(RUN).args(["--candidate", &candidate]).env("NSA_GUEST_TIMEOUT_S", "100");
    let mut harness = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut id = String::new();
    wait_until("the guest is not asked", || {
        id = std::fs::read_to_string(&asked).unwrap_or_default();
        !id.is_empty()
    });
    harness.kill().unwrap();
    harness.wait().unwrap();
    // One that has ended and that nobody waited for has no command line.
    let command_line = PathBuf::from(format!("/proc/{id}/cmdline"));
    wait_until("the guest goes on", || std::fs::read(&command_line).unwrap_or_default().is_empty());
}
