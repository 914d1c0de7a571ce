//! Guests in the shell's language, with answers to copy, and what they leave behind.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nsa_corpus::{Dtype, Entry, Field, Inputs, Outputs, TensorFileBuilder, entries};
use nsa_harness::candidate::guest::{GuestCandidate, Limits};
use nsa_harness::run::run_case;
use nsa_reference::oracle;
use tempfile::TempDir;

const DTYPE: Dtype = Dtype::F32;

/// A guest in the shell's language: it declares itself, then does `fault` at every request.
pub(crate) struct Scripted {
    pub(crate) folder: TempDir,
    pub(crate) candidate: GuestCandidate,
}

impl Scripted {
    pub(crate) fn new(mutation: &str, memory_mib: Option<u64>) -> Self {
        Self::with(mutation, memory_mib, 1)
    }

    pub(crate) fn with(mutation: &str, memory_mib: Option<u64>, processes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = write_script(folder.path(), mutation);
        let limits = Limits { case: Duration::from_secs(2), start: Duration::from_secs(20), memory_mib, processes };
        let candidate = GuestCandidate::start(&format!("guest:sh {}", script.display()), limits).unwrap();
        Scripted { folder, candidate }
    }

    pub(crate) fn verdict(&self) -> String {
        run_case(&entry().case, DTYPE, &self.candidate).unwrap().verdict.to_string()
    }

    /// The processes that it ran as, one for each start.
    pub(crate) fn processes(&self) -> Vec<u32> {
        started(self.folder.path())
    }

    /// Ends it, and holds it to having left no process and no folder.
    pub(crate) fn leaves_nothing(self, mutation: &str) {
        drop(self.candidate);
        leaves_nothing(self.folder.path(), mutation);
    }
}

/// The processes that a script with these `fixtures` ran as.
pub(crate) fn started(fixtures: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(fixtures.join("processes")).unwrap();
    text.lines().map(|id| id.parse().unwrap()).collect()
}

/// The private folders that it was given.
pub(crate) fn folders(fixtures: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(fixtures.join("folders")).unwrap();
    text.lines().map(PathBuf::from).collect()
}

/// Of a script with these `fixtures` there is no folder, and soon no process: one that was killed may take a moment.
pub(crate) fn leaves_nothing(fixtures: &Path, what: &str) {
    for folder in folders(fixtures) {
        assert!(folder.symlink_metadata().is_err(), "{what}: {} is left", folder.display());
    }
    wait_until(&format!("{what}: a process is left"), || alive_with(fixtures).is_empty());
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The living processes of the script and of all that it started: they have its fixtures in their environment.
pub(crate) fn alive_with(fixtures: &Path) -> Vec<u32> {
    let marked = format!("NSA_TEST_AT={}", fixtures.display());
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_marked = |id: &u32| {
        // Of one that has ended and was not waited for, nothing is left to read.
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == marked.as_bytes())
    };
    numbers.filter(is_marked).collect()
}

/// Writes the script and what it answers with into `fixtures`.
pub(crate) fn write_script(fixtures: &Path, mutation: &str) -> PathBuf {
    write_answers(fixtures);
    let script = fixtures.join("guest.sh");
    std::fs::write(&script, script_text(fixtures, mutation)).unwrap();
    script
}

fn script_text(fixtures: &Path, mutation: &str) -> String {
    format!(
        r#"at={}
# A script that is started by name has these in its own environment only once it has become another program.
[ "$NSA_TEST_AT" = "$at" ] || NSA_TEST_AT=$at exec sh "$0"
echo $$ >> $at/processes
IFS= read -r hello
folder=$(printf '%s' "$hello" | sed 's/.*"folder":"\([^"]*\)".*/\1/')
echo "$folder" >> $at/folders
reply() {{ printf '{{"type":"result","id":%s,"outputs":"%s"}}\n' "$1" "$2"; }}
give() {{ cp "$at/$1" "$folder/answer"; reply $id answer; }}
echo '{{"type":"hello","protocol":1,"name":"scripted","arithmetic":"f32"}}'
while IFS= read -r request; do
  id=$(printf '%s' "$request" | sed 's/.*"id":\([0-9]*\).*/\1/')
  {mutation}
done
"#,
        fixtures.display()
    )
}

fn entry() -> &'static Entry {
    entries().iter().find(|entry| entry.name == "edges/seq_1").unwrap()
}

pub(crate) fn inputs() -> Inputs {
    entry().case.materialize(DTYPE).unwrap()
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
        file.float(field.name(), Dtype::F64, tensor);
    }
    file.write(path).unwrap();
}
