//! A guest with two bugs behind one signature: the campaign tells them apart, knows them the next time, waives them with a
//! reason, notices when one is mended, and witnesses confirm them. The matrix says who is wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nsa_corpus::{Bundle, Field};
use nsa_harness::campaign::waiver::Extent;
use serde_json::Value;
use tempfile::TempDir;

/// `numpy_plain` whose dk has the wrong sign beside a sliding window, and where there are factors; `mended` has the first
/// fault no more, `worse` is wrong by more where there is `d_lse` too, and `eightfold` everywhere.
const WRONG_GUEST: &str = r#"
import sys
import numpy_plain
from nsa_guest import guest, serve

plain = serve.GUESTS[0][0]
serve.GUESTS.clear()


@guest(name="faulty", arithmetic="f32")
def attend(case):
    outputs = plain(case)
    sliding = case.sliding_window is not None and "mended" not in sys.argv
    if sliding or case.sel_scale is not None:
        outputs["dk"] = -outputs["dk"]
        if "worse" in sys.argv and case.d_lse is not None:
            outputs["dk"] = 3 - 7 * outputs["dk"]
        if "eightfold" in sys.argv:
            outputs["dk"] = 8 * outputs["dk"]
    return outputs
"#;

/// A folder with the faulty guest, or a line that says why the test is left out.
fn wrong_guest() -> Option<(TempDir, String)> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.python");
    let mut command = Command::new("python3");
    if packages.is_dir() {
        command.env("PYTHONPATH", &packages);
    }
    if !command.args(["-c", "import numpy, safetensors"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 cannot do `import numpy, safetensors`");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("faulty.py");
    std::fs::write(&file, WRONG_GUEST).unwrap();
    Some((folder, format!("guest:{}", file.display())))
}

fn nsa_diff(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nsa-diff")).args(arguments).env_remove("NSA_PYTHON").output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A campaign of the same cases; its exit code, what it said, its report, null where it was refused.
fn campaign(folder: &Path, candidate: &str) -> (i32, String, Value) {
    let (bugs, report) = (folder.join("bugs"), folder.join("fuzz.json"));
    let arguments = ["fuzz", "--seed", "1", "--cases", "128", "--size", "5", "--element", "f32", "--effort", "60"];
    let more = ["--candidate", candidate, "--bugs", bugs.to_str().unwrap(), "--json", report.to_str().unwrap()];
    let _ = std::fs::remove_file(&report);
    let output = nsa_diff(&[&arguments[..], &more[..]].concat());
    let document = if report.is_file() { json(&report) } else { Value::Null };
    (output.status.code().unwrap(), text(&output), document)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn two_bugs_behind_one_signature_are_told_apart_known_waived_and_confirmed() {
    let Some((folder, guest)) = wrong_guest() else { return };
    let (code, said, report) = campaign(folder.path(), &guest);
    assert_eq!(code, 1, "{said}");
    let failures = report["failures"].as_array().unwrap();
    let required_features: Vec<String> =
        failures.iter().map(|failure| failure["required_features"].to_string()).collect();
    assert_eq!(failures.len(), 2, "{said}");
    let required = |one: &str, not: &str| required_features.iter().any(|all| all.contains(one) && !all.contains(not));
    assert!(required("sliding", "sel_scale") && required("sel_scale", "sliding"), "{required_features:?}");
    assert!(report["left"].as_array().unwrap().is_empty(), "{said}");
    let failing: u64 = failures.iter().map(|failure| failure["cases"].as_u64().unwrap()).sum();
    assert_eq!(failing, report["verdicts"]["fail"].as_u64().unwrap(), "every failing case has its reason");

    let bugs = folder.path().join("bugs");
    let stored = files(&bugs);
    assert_eq!(stored.len(), 2);
    for file in &stored {
        holds_what_was_expected(file);
        let witnesses = ["--witness", "regular_attend", "--witness", "tiled"];
        let output = nsa_diff(&[&["confirm", file.to_str().unwrap()][..], &witnesses[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let same = nsa_diff(&["confirm", file.to_str().unwrap(), "--witness", &guest]);
        assert_eq!(same.status.code(), Some(1), "a witness with the same fault confirms nothing: {}", text(&same));
    }

    let (code, said, report) = campaign(folder.path(), &guest);
    assert_eq!((code, report["failures"].as_array().unwrap().len()), (1, 0), "known, and failing: {said}");
    assert_eq!(report["known"].as_array().unwrap().len(), 2);
    assert_eq!(files(&bugs), stored, "nothing is stored twice");

    waive(&bugs, &stored);
    let (code, said, _) = campaign(folder.path(), &guest);
    assert_eq!(code, 0, "all failures are waived: {said}");
    assert!(said.contains("waived: a test"), "{said}");

    // Another bug of the same field and class, in cases that have all that the waived ones need.
    let worse = format!("{guest} worse");
    stored.iter().for_each(|file| give(file, &worse));
    let (code, said, report) = campaign(folder.path(), &worse);
    assert_eq!(code, 1, "{said}");
    assert!(!report["failures"].as_array().unwrap().is_empty(), "{said}");
    assert!(report["known"].as_array().unwrap().iter().any(|known| known["cases"].as_u64() > Some(0)), "{said}");

    // The stored cases themselves fail by more than is waived, and that alone fails the run.
    let eightfold = format!("{guest} eightfold");
    stored.iter().for_each(|file| give(file, &eightfold));
    let bugs_folder = bugs.to_str().unwrap();
    let once = |seed: u64| {
        let seed = seed.to_string();
        let arguments = ["fuzz", "--seed", &seed, "--cases", "1", "--size", "5", "--dtype", "f32", "--effort", "1"];
        nsa_diff(&[&arguments[..], &["--bugs", bugs_folder, "--candidate", &eightfold]].concat())
    };
    let passes = |output: &Output| text(output).contains("1 pass\n");
    let output = (0..20).map(once).find(passes).expect("a generated case without the fault");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("fails otherwise than its waiver says").count(), 2, "{said}");

    // A waiver as they were written before, which says nothing of how wrong an answer may be.
    let waivers = std::fs::read_to_string(bugs.join("waivers.toml")).unwrap();
    let old: Vec<&str> = waivers.lines().filter(|line| !line.starts_with("errors")).collect();
    std::fs::write(bugs.join("waivers.toml"), old.join("\n")).unwrap();
    let (code, said, _) = campaign(folder.path(), &eightfold);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("without `errors`") && said.contains("add errors = { dk = ["), "{said}");
}

/// Waives these files, each by as much as it says itself.
fn waive(bugs: &Path, files: &[PathBuf]) {
    let waiver = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        let extent = Extent::of_bundle(&Bundle::read(file).unwrap()).to_toml();
        format!("[[waiver]]\nfile = {name:?}\nreason = \"a test\"\n{extent}\n")
    };
    std::fs::write(bugs.join("waivers.toml"), files.iter().map(waiver).collect::<String>()).unwrap();
}

/// Makes a stored failure one of another candidate.
fn give(file: &Path, candidate: &str) {
    let mut bundle = Bundle::read(file).unwrap();
    bundle.notes.insert("candidate".to_owned(), candidate.to_owned());
    bundle.write(file).unwrap();
}

/// The stored failure has an interval for its field, and the answer lies outside of it somewhere.
fn holds_what_was_expected(file: &Path) {
    let bundle = Bundle::read(file).unwrap();
    let [lowest, highest] = [0, 1].map(|end| bundle.intervals[end].get(Field::Dk).unwrap().clone());
    let found = bundle.outputs.as_ref().unwrap().get(Field::Dk).unwrap();
    let inside = |index: usize| {
        let at = |tensor: &ndarray::ArrayD<f64>| tensor.as_slice().unwrap()[index];
        at(&lowest) <= at(found) && at(found) <= at(&highest)
    };
    assert!((0..found.len()).any(|index| !inside(index)));
    assert!(bundle.notes["environment"].contains("numpy"), "{}", bundle.notes["environment"]);
    let shown = nsa_diff(&["show", file.to_str().unwrap()]);
    assert!(text(&shown).contains("expected"), "{}", text(&shown));
}

#[test]
fn a_waived_failure_that_passes_is_said() {
    let Some((folder, guest)) = wrong_guest() else { return };
    let mended = format!("{guest} mended");
    let (code, said, _) = campaign(folder.path(), &guest);
    assert_eq!(code, 1, "{said}");
    // The stored failures are the faulty guest's; the mended one is another candidate, and is given them as its own.
    let bugs = folder.path().join("bugs");
    for file in files(&bugs) {
        give(&file, &mended);
    }
    waive(&bugs, &files(&bugs));
    let (code, said, report) = campaign(folder.path(), &mended);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("passes now: its waiver is stale"), "{said}");
    assert_eq!(report["passing"].as_array().unwrap().len(), 1, "{said}");
}

#[test]
fn the_matrix_says_who_is_wrong() {
    let Some((folder, guest)) = wrong_guest() else { return };
    let [report, markdown] = ["matrix.json", "matrix.md"].map(|name| folder.path().join(name));
    let candidates = format!("tiled,{guest},guest:absent");
    let arguments = ["matrix", "sliding/window_1", "edges/seq_1", "--dtype", "f32", "--candidates", &candidates];
    let refused = nsa_diff(&arguments);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(text(&refused).contains("guest:absent"));

    let files = ["--json", report.to_str().unwrap(), "--markdown", markdown.to_str().unwrap(), "--available"];
    let output = nsa_diff(&[&arguments[..], &files[..]].concat());
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("sliding/window_1 f32: {guest} is wrong (tiled pass)")), "{said}");
    assert!(said.contains("left out: candidate `guest:absent`"), "{said}");
    let report = json(&report);
    assert_eq!(report["schema"], "nsa-diff/matrix/2");
    let case = report["cases"].as_array().unwrap().iter().find(|case| case["name"] == "sliding/window_1").unwrap();
    let wrong = &case["wrong"][0];
    assert_eq!((wrong["field"].as_str(), wrong["candidate"].as_str()), (Some("dk"), Some(guest.as_str())));
    let [right, found] = [0, 1].map(|at| wrong["values"][at]["value"].as_f64().unwrap());
    assert!((right + found).abs() < 1e-3 * found.abs(), "the sign alone differs: {right} and {found}");
    let markdown = std::fs::read_to_string(markdown).unwrap();
    assert!(markdown.contains("| sliding/window_1 | f32 | . | F |"), "{markdown}");
}
