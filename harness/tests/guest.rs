//! Everything that a guest can do wrong is a verdict: it is never our crash, and nothing of the guest is left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nsa_corpus::{Element, Entry, Field, Inputs, Outputs, TensorFileBuilder, entries};
use nsa_harness::backend::Backend;
use nsa_harness::backend::guest::{GuestBackend, Limits};
use nsa_harness::run::run_case;
use nsa_reference::oracle;
use tempfile::TempDir;

const ELEMENT: Element = Element::F32;

/// A guest in the shell's language: it declares itself, then does `fault` at every request.
struct Scripted {
    folder: TempDir,
    backend: GuestBackend,
}

impl Scripted {
    fn new(fault: &str, memory_mib: Option<u64>) -> Self {
        Self::with(fault, memory_mib, 1)
    }

    fn with(fault: &str, memory_mib: Option<u64>, processes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_answers(folder.path());
        let script = folder.path().join("guest.sh");
        std::fs::write(&script, script_text(folder.path(), fault)).unwrap();
        let limits = Limits { case: Duration::from_secs(2), start: Duration::from_secs(20), memory_mib, processes };
        let backend = GuestBackend::start(&format!("guest:sh {}", script.display()), limits).unwrap();
        Scripted { folder, backend }
    }

    fn verdict(&self) -> String {
        run_case(&entry().case, ELEMENT, &self.backend).unwrap().verdict.to_string()
    }

    /// The processes that it ran as, one for each start.
    fn processes(&self) -> Vec<PathBuf> {
        let text = std::fs::read_to_string(self.folder.path().join("processes")).unwrap();
        text.lines().map(|id| Path::new("/proc").join(id)).collect()
    }
}

fn script_text(fixtures: &Path, fault: &str) -> String {
    format!(
        r#"at={}
echo $$ >> $at/processes
IFS= read -r hello
folder=$(printf '%s' "$hello" | sed 's/.*"folder":"\([^"]*\)".*/\1/')
reply() {{ printf '{{"type":"result","id":%s,"outputs":"%s"}}\n' "$1" "$2"; }}
give() {{ cp "$at/$1" "$folder/answer"; reply $id answer; }}
echo '{{"type":"hello","protocol":1,"name":"scripted","arithmetic":"f32"}}'
while IFS= read -r request; do
  id=$(printf '%s' "$request" | sed 's/.*"id":\([0-9]*\).*/\1/')
  {fault}
done
"#,
        fixtures.display()
    )
}

fn entry() -> &'static Entry {
    entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap()
}

fn inputs() -> Inputs {
    entry().case.materialize(ELEMENT).unwrap()
}

/// Answers to copy: the right one, and each way of being no answer or a wrong one.
fn write_answers(folder: &Path) {
    let right = oracle::attend(&inputs());
    write_answer(&right, |_| true, &folder.join("right"));
    write_answer(&right, |field| field != Field::Out, &folder.join("without_out"));
    let mut wrong = right.clone();
    wrong.set(Field::Lse, ndarray::Array3::<f64>::zeros((1, 2, 3)));
    write_answer(&wrong, |_| true, &folder.join("wrong_shape"));
    let mut wrong = right.clone();
    wrong.get_mut(Field::Out).unwrap().fill(f64::NAN);
    write_answer(&wrong, |_| true, &folder.join("nan"));
    let mut file = TensorFileBuilder::new();
    file.whole("out", &right.get(Field::Out).unwrap().mapv(|value| value as i64));
    file.write(folder.join("whole_numbers")).unwrap();
    std::fs::write(folder.join("ten_gigabytes"), (10u64 << 30).to_le_bytes()).unwrap();
    std::fs::write(folder.join("nested"), [&5000u64.to_le_bytes()[..], &[b'['; 5000]].concat()).unwrap();
    let whole = std::fs::read(folder.join("right")).unwrap();
    std::fs::write(folder.join("truncated"), &whole[..whole.len() - 3]).unwrap();
}

fn write_answer(outputs: &Outputs, keep: impl Fn(Field) -> bool, path: &Path) {
    let mut file = TensorFileBuilder::new();
    for (field, tensor) in outputs.iter().filter(|(field, _)| keep(*field)) {
        file.float(field.name(), Element::F64, tensor);
    }
    file.write(path).unwrap();
}

/// Each fault, what the verdict says of it, and whether the process is asked again after it.
const FAULTS: &[(&str, &str, bool)] = &[
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
    ("truncate -s 10G $folder/huge; reply $id huge", "more than", false),
    ("give whole_numbers", "is I64", false),
    ("give ten_gigabytes", "the header claims", false),
    ("give nested", "no readable tensor file", false),
    ("give truncated", "no readable tensor file", false),
];

#[test]
fn every_fault_is_a_verdict_and_the_next_case_is_asked_all_the_same() {
    for (fault, expected, stays) in FAULTS {
        let guest = Scripted::new(fault, None);
        for _ in 0..2 {
            let verdict = guest.verdict();
            assert!(verdict.contains(expected), "{fault}: {verdict}");
        }
        let processes = guest.processes();
        assert_eq!(processes.len(), if *stays { 1 } else { 2 }, "{fault}");
        drop(guest);
        let left: Vec<_> = processes.iter().filter(|process| process.exists()).collect();
        assert!(left.is_empty(), "{fault}: still there: {left:?}");
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
    let refused = |program: &str| match GuestBackend::start(program, limits.clone()) {
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
    assert!(guest.backend.supports(&inputs()).is_ok());
    drop(guest);
    assert!(!folder.exists());
}
