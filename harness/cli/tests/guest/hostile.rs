//! Guests that mean harm: what they put in the place of a file, of their folder, or of an answer to wait for.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use nsa_harness::candidate::guest::{GuestCandidate, Limits};
use nsa_harness::candidate::{Candidate, CandidateError};

use super::scripted::{Scripted, folders, inputs, wait_until};

/// What `work` gives, unless it hangs.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// A folder outside the guest's own, with a file that must survive.
fn precious(guest: &Scripted) -> std::path::PathBuf {
    let folder = guest.folder.path().join("precious");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("canary"), "sings").unwrap();
    folder
}

fn canary_sings(folder: &Path) {
    assert_eq!(std::fs::read_to_string(folder.join("canary")).unwrap(), "sings");
}

#[test]
fn a_folder_replaced_by_a_link_costs_its_target_nothing() {
    let replaced = "rm -rf $folder; ln -s $at/precious $folder; give right";
    let moved = "mv $folder $at/moved-$id-$$; ln -s $at/precious $folder; give right";
    for mutation in [replaced, moved] {
        let guest = Scripted::new(mutation, None);
        let folder = precious(&guest);
        for case in 1..=2 {
            let verdict = guest.verdict();
            assert!(verdict.contains("No such file"), "{mutation}: {verdict}");
            canary_sings(&folder);
            // A new process has a new folder: what one did to its own does not follow the next.
            assert_eq!((guest.processes().len(), folders(guest.folder.path()).len()), (case, case));
        }
        // The answer was written through the link by the guest itself, and is not ours to delete.
        assert!(folder.join("answer").exists());
        let Scripted { folder: fixtures, candidate } = guest;
        drop(candidate);
        canary_sings(&folder);
        super::scripted::leaves_nothing(fixtures.path(), mutation);
    }
}

#[test]
fn a_folder_replaced_while_nothing_is_asked_costs_its_target_nothing() {
    let later = "give right; sleep 0.2; rm -rf $folder; ln -s $at/precious $folder; touch $at/replaced";
    let guest = Scripted::new(later, None);
    let folder = precious(&guest);
    assert_eq!(guest.verdict(), "pass");
    wait_until("the folder is not replaced", || guest.folder.path().join("replaced").exists());
    let verdict = guest.verdict();
    assert!(verdict.contains("No such file"), "{verdict}");
    canary_sings(&folder);
    guest.leaves_nothing(later);
}

#[test]
fn a_link_in_the_place_of_the_next_request_is_not_written_through() {
    let plant = "give right; until [ -z \"$(ls $folder)\" ]; do sleep 0.01; done; \
                 ln -s $at/precious/canary $folder/request-$((id + 1)).safetensors; touch $at/planted";
    let guest = Scripted::new(plant, None);
    let folder = precious(&guest);
    assert_eq!(guest.verdict(), "pass");
    wait_until("no link is planted", || guest.folder.path().join("planted").exists());
    let verdict = guest.verdict();
    assert!(verdict.contains("it made `request-2.safetensors` before it was asked"), "{verdict}");
    canary_sings(&folder);
    assert_eq!(guest.verdict(), "pass");
    guest.leaves_nothing(plant);
}

#[test]
fn a_guest_that_never_reads_is_a_timeout_once_its_pipe_is_full() {
    // It answers what it was never asked, by counting: each request stays in its stdin.
    let mutation = "while :; do echo '{\"type\":\"skip\",\"id\":'$id',\"reason\":\"no\"}'; id=$((id + 1)); done";
    let guest = Scripted::new(mutation, None);
    let guest = in_time("a guest that never reads", move || {
        let inputs = inputs();
        let mut skipped = 0;
        let error = loop {
            match guest.candidate.run(&inputs) {
                Err(CandidateError::Unsupported(_)) if skipped < 100_000 => skipped += 1,
                other => break other.unwrap_err(),
            }
        };
        assert_eq!(error, CandidateError::Timeout(Duration::from_secs(2)), "after {skipped} skips");
        // A pipe holds that many requests at least.
        assert!(skipped > 10, "{skipped}");
        assert_eq!(guest.candidate.run(&inputs), Err(CandidateError::Unsupported("no".to_owned())));
        guest
    });
    assert_eq!(guest.processes().len(), 2);
    guest.leaves_nothing(mutation);
}

#[test]
#[cfg(target_os = "linux")]
fn a_pipe_exchanged_for_the_answer_is_never_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("race");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/exchanged_pipe.c");
    match Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(&source).output() {
        Err(error) => return println!("skipped: a pipe exchanged for the answer: cc: {error}"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    let name = format!("guest:{}", program.display());
    let (answers, pipes) = in_time("a pipe exchanged for the answer", move || {
        let second = Duration::from_secs(20);
        let limits = Limits { case: second, start: second, memory_mib: None, processes: 1 };
        let guest = GuestCandidate::start(&name, limits).unwrap();
        let inputs = inputs();
        let (mut answers, mut pipes) = (0, 0);
        // Until it was lucky with both, which takes a few cases.
        while answers.min(pipes) < 10 && answers + pipes < 2000 {
            match guest.run(&inputs) {
                Ok(_) => answers += 1,
                Err(CandidateError::Broken(why)) if why.contains("is no regular file") => pipes += 1,
                other => panic!("{other:?}"),
            }
        }
        (answers, pipes)
    });
    println!("the file was read {answers} times, the pipe refused {pipes} times");
    assert!(answers > 0 && pipes > 0, "{answers} answers, {pipes} pipes: there was no race");
}
