//! Ctrl-C, SIGTERM and SIGHUP keep what was found: the command ends soon, says what was left out, and its report is
//! written.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn interrupted_by(signal: Signal, arguments: &[&str], folder: &Path) -> (i32, serde_json::Value) {
    let report = folder.join("report.json");
    let bugs = folder.join("bugs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsa-diff"));
    command.args(arguments).args(["--json", report.to_str().unwrap()]);
    if arguments[0] == "fuzz" {
        command.args(["--bugs", bugs.to_str().unwrap()]);
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Long enough that some cases are done, short of what all of them take.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(child.try_wait().unwrap(), None, "{arguments:?} had ended");
    kill_process(Pid::from_child(&child), signal).unwrap();
    let code = wait(&mut child);
    (code, serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap())
}

fn wait(child: &mut Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it goes on after Ctrl-C");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_campaign_reports_the_cases_that_it_ran() {
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let folder = tempfile::tempdir().unwrap();
        let campaign = ["fuzz", "--cases", "1000000", "--candidate", "tiled"];
        let (code, report) = interrupted_by(signal, &campaign, folder.path());
        assert_eq!(code, expected);
        let cases = report["cases"].as_u64().unwrap();
        assert!((1..1_000_000).contains(&cases), "{cases}");
        let verdicts: u64 = report["verdicts"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(verdicts, cases);
    }
}

#[test]
fn interrupted_reruns_end_between_two_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (code, report) =
        interrupted_by(Signal::INT, &["run", "edges/seq_1", "--dtype", "f32", "--reruns", "1000000"], folder.path());
    assert_eq!((code, &report["left_out"]), (130, &serde_json::json!(1)));
}

#[test]
fn an_interrupted_matrix_reports_the_rows_that_it_ran() {
    let folder = tempfile::tempdir().unwrap();
    let (code, report) =
        interrupted_by(Signal::INT, &["matrix", "--candidates", "tiled,oracle,regular_attend"], folder.path());
    assert_eq!(code, 130);
    let left_out = report["left_out"].as_u64().unwrap();
    let rows = report["cases"].as_array().unwrap();
    assert!(left_out > 0 && rows.iter().all(|row| row["cells"].as_array().unwrap().len() == 3), "{left_out}");
}
