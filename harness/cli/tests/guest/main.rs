//! Everything that a guest can do wrong is a verdict: it is never our crash, and nothing of the guest is left behind.

mod hostile;
mod scripted;
mod signals;

use std::path::PathBuf;
use std::time::Duration;

use nsa_harness::candidate::Candidate;
use nsa_harness::candidate::guest::{GuestCandidate, Limits};

use scripted::{Scripted, inputs};

/// Each fault, what the verdict says of it, and whether the process is asked again after it.
const MISBEHAVIOURS: &[(&str, &str, bool)] = &[
    ("give right", "pass", true),
    ("head -c 30000000 /dev/zero >&2; give right", "pass", true),
    (r#"echo '{"type":"skip","id":'$id',"reason":"too hard"}'"#, "skip: too hard", true),
    (r#"echo '{"type":"error","id":'$id',"message":"a bad day"}'"#, "fail: crash: crashed: a bad day", true),
    (r#"echo '{"type":"error","id":'$id',"class":"compile","message":"line 3"}'"#, "fail: compile:", true),
    (r#"echo '{"type":"error","id":'$id',"class":"environment","message":"no GPU"}'"#, "inconclusive: no GPU", true),
    (r#"echo '{"type":"error","id":'$id',"message":"illegal address","fatal":true}'"#, "illegal address", false),
    ("give nan", "fail: non-finite", true),
    ("give wrong_shape", "fail: shape", true),
    ("give without_out", "out is missing", true),
    ("exit 3", "exit status: 3", false),
    ("kill -SEGV $$", "signal: 11", false),
    ("echo the last words >&2; exit 1", "the last words", false),
    ("exec >&-; sleep 60", "closed its stdout", false),
    ("sleep 60", "fail: timeout: no answer within 2 s", false),
    ("sleep 60 & sleep 60", "fail: timeout", false),
    ("trap '' TERM INT HUP; sleep 60", "fail: timeout", false),
    ("cat /dev/zero >&2", "fail: timeout", false),
    ("sleep 600 & exit 3", "exit status: 3", false),
    ("(trap '' TERM HUP; sleep 600) & kill -SEGV $$", "signal: 11", false),
    ("setsid sleep 600 & sleep 0.2; exit 3", "exit status: 3", false),
    ("setsid sleep 600 & sleep 0.2; give right", "pass", true),
    ("yes", "its reply `y`", false),
    ("yes | tr -d '\\n'", "longer than", false),
    ("printf '\\377\\n'", "not UTF-8", false),
    ("echo loading weights", "its reply `loading weights`", false),
    ("echo '{}'", "broken answer", false),
    ("reply 7 right", "it answered request 7 when asked for", false),
    ("reply $id ../right", "not one of its folder's", false),
    ("reply $id /etc/passwd", "not one of its folder's", false),
    ("reply $id absent", "No such file", false),
    ("ln -s $at/right $folder/link; reply $id link", "no regular file", false),
    ("mkfifo $folder/pipe; reply $id pipe", "no regular file", false),
    ("mkdir $folder/d; reply $id d", "no regular file", false),
    ("mkdir -p $folder/a/b/c; give right", "pass", true),
    ("truncate -s 10G $folder/huge; reply $id huge", "more than", false),
    ("give whole_numbers", "is I64", false),
    ("give ten_gigabytes", "the header claims", false),
    ("give nested", "no readable tensor file", false),
    ("give truncated", "no readable tensor file", false),
];

#[test]
fn every_misbehaviour_is_a_verdict_and_the_next_case_is_asked_all_the_same() {
    for (mutation, expected, stays) in MISBEHAVIOURS {
        let guest = Scripted::new(mutation, None);
        for _ in 0..2 {
            let verdict = guest.verdict();
            assert!(verdict.contains(expected), "{mutation}: {verdict}");
        }
        let processes = guest.processes();
        assert_eq!(processes.len(), if *stays { 1 } else { 2 }, "{mutation}");
        guest.leaves_nothing(mutation);
    }
}

#[test]
fn a_guest_that_takes_too_much_memory_is_stopped_by_its_limit() {
    let guest = Scripted::new("head -c 300000000 /dev/zero | tail -c 290000000 | wc -c >&2; exit 9", Some(64));
    let verdict = guest.verdict();
    assert!(verdict.contains("memory exhausted"), "{verdict}");
}

#[test]
fn so_many_processes_answer_at_once() {
    // Each waits for the other to have been asked: one after the other they would not come to an end in time.
    let meet = "touch $at/asked-$$; until [ $(ls $at/asked-* | wc -l) = 2 ]; do sleep 0.02; done; give right";
    let guest = Scripted::with(meet, None, 2);
    let verdicts = std::thread::scope(|scope| {
        let asked = [(); 2].map(|()| scope.spawn(|| guest.verdict()));
        asked.map(|verdict| verdict.join().unwrap())
    });
    assert_eq!(verdicts, ["pass", "pass"]);
    assert_eq!(guest.processes().len(), 2);
}

#[test]
fn what_does_not_declare_itself_is_not_available() {
    let limits = Limits { case: Duration::from_secs(1), start: Duration::from_secs(1), memory_mib: None, processes: 1 };
    let refused = |program: &str| match GuestCandidate::start(program, limits.clone()) {
        Ok(_) => panic!("{program} was accepted"),
        Err(reason) => reason.to_string(),
    };
    assert!(refused("guest:").contains("no program"));
    assert!(refused("guest:no-such-program").contains("No such file"));
    assert!(refused("guest:no/such/file.py").contains("is no file"));
    assert!(refused("guest:true").contains("it ended before it declared itself: exit status: 0"));
    assert!(refused("guest:sleep 30").contains("no declaration within 1 s"));
    assert!(refused("guest:yes").contains("its declaration"));
    assert!(refused("guest:cat").contains("its declaration"));
}

#[test]
fn a_request_file_does_not_outlive_its_case() {
    let guest = Scripted::new("echo \"$folder\" > $at/where; give right", None);
    assert_eq!(guest.verdict(), "pass");
    let folder = PathBuf::from(std::fs::read_to_string(guest.folder.path().join("where")).unwrap().trim());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(guest.candidate.supports(&inputs()).is_ok());
    drop(guest);
    assert!(!folder.exists());
}

/// What a Python guest raises, and the verdict. Its `torch` has the types of the real one, and nothing else.
#[test]
fn only_the_type_of_a_full_device_excuses_what_a_python_guest_raises() {
    let Some(_) = signals::python() else { return };
    let text = r#"
import sys, types
from nsa_guest import guest

class OutOfMemoryError(RuntimeError):
    pass

class MyOutOfMemory(Exception):
    pass

sys.modules["torch"] = types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError)

@guest(name="raises", arithmetic="f32", fields=["out"])
def attend(case):
    raise eval(sys.argv[1])
"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("raises.py");
    std::fs::write(&file, text).unwrap();
    let cases = [
        ("OutOfMemoryError('full')", "inconclusive: OutOfMemoryError: full"),
        ("MemoryError()", "fail: crash: crashed: MemoryError"),
        ("ImportError('numba')", "fail: crash: crashed: ImportError: numba"),
        ("ModuleNotFoundError('numba')", "fail: crash"),
        ("ValueError('OutOfMemory')", "fail: crash"),
        ("MyOutOfMemory()", "fail: crash"),
    ];
    for (raised, expected) in cases {
        let limits = Limits {
            case: Duration::from_secs(60),
            start: Duration::from_secs(60),
            memory_mib: Some(8192),
            processes: 1,
        };
        let guest = GuestCandidate::start(&format!("guest:{} {raised}", file.display()), limits).unwrap();
        let case = &nsa_corpus::entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap().case;
        let report = nsa_harness::run::run_case(case, nsa_corpus::Dtype::F32, &guest).unwrap();
        assert!(report.verdict.to_string().contains(expected), "{raised}: {}", report.verdict);
    }
}
