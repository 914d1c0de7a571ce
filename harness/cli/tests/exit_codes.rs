//! Every command, every way to end: the verdict decides the exit code whatever happens to what is printed, what was asked for
//! and cannot be written is said before the work begins, and nothing tested is no success.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nsa_corpus::{Dtype, Entry, GoldenCase, entries};
use nsa_reference::oracle;
use tempfile::TempDir;

/// A candidate that is wrong everywhere.
const WRONG: &str = "rowwise+diagonal_own_key_missing";

fn entry(name: &str) -> Entry {
    entries().iter().find(|entry| entry.name == name).unwrap().clone()
}

/// Small files that commands read, and room for what they write.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let small = entry("edges/seq_1");
        let inputs = small.case.materialize(Dtype::F32).unwrap();
        let outputs = oracle::attend(&inputs);
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("golden")).unwrap();
        GoldenCase::new("small", inputs, outputs).write(at("golden/small.safetensors")).unwrap();
        let entry = Entry { dtypes: vec![Dtype::F32], ..small };
        std::fs::write(at("entry.toml"), entry.to_toml()).unwrap();
        Files(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The words of a command line, in which `@name` is a file of this folder and `BUG` a stored failure.
    fn words(&self, line: &str) -> Vec<OsString> {
        let bug = "../../corpus/bugs/guest_triton_nsa-f16-over_budget-dk-e382ddb8e4c7.safetensors";
        let word = |word: &str| match (word, word.strip_prefix('@')) {
            ("BUG", _) => Path::new(env!("CARGO_MANIFEST_DIR")).join(bug).into(),
            (_, Some(name)) => self.path(name).into(),
            _ => word.into(),
        };
        line.split(' ').map(word).collect()
    }
}

fn nsa_diff(words: &[OsString]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nsa-diff"));
    command.args(words).env_remove("RAYON_NUM_THREADS");
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn code(output: &Output, what: &dyn std::fmt::Debug) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{what:?} ended by a signal\n{}", said(output)))
}

/// A standard output that nobody reads.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Command lines with their exit codes, and whether printing is all that they do.
fn commands() -> Vec<(String, i32, bool)> {
    let lines = [
        ("run edges/seq_1 --dtype f32", 0, false),
        ("run edges/seq_1 --dtype f32 --candidate WRONG", 1, false),
        ("fuzz --cases 4 --dtype f32 --bugs @none", 0, false),
        ("fuzz --cases 8 --dtype f32 --bugs @bugs --failures 1 --effort 1 --candidate WRONG", 1, false),
        ("replay BUG", 1, false),
        ("replay @entry.toml --candidate tiled", 0, false),
        ("confirm BUG", 0, false),
        ("confirm BUG --witness oracle --witness WRONG", 1, false),
        ("matrix edges/seq_1 --dtype f32 --candidates tiled,oracle", 0, false),
        ("matrix edges/seq_1 --dtype f32 --candidates tiled,WRONG", 1, false),
        ("shrink @entry.toml --out @shrunk --candidate WRONG --calls 3", 1, false),
        ("shrink @entry.toml --out @shrunk", 0, false),
        ("show edges/seq_1", 0, true),
        ("candidates", 0, true),
        ("gradcheck edges/seq_1", 0, false),
        ("gradcheck edges/seq_1 --candidate WRONG", 1, false),
        ("golden @golden", 0, false),
        ("golden @golden --candidate WRONG", 1, false),
        ("oracle @golden/small.safetensors @out.safetensors", 0, false),
        ("detect edges/seq_1 --dtype f32 --only diagonal_own_key_missing", 0, false),
        ("detect edges/seq_1 --dtype f32 --only dsel_scale_gain_of_1_percent", 1, false),
        ("calibrate --dtype f32", 0, false),
        ("bench upstream --candidate tiled --dtype f32 --repetitions 1 --unchecked", 0, false),
    ];
    lines.map(|(line, code, shown)| (line.replace("WRONG", WRONG), code, shown)).to_vec()
}

#[test]
fn the_verdict_decides_the_exit_code_whatever_happens_to_standard_output() {
    let files = Files::new();
    for (line, expected, shown) in commands() {
        let report = files.path("report.json");
        let mut words = files.words(&line);
        words.extend(["--json".into(), report.clone().into()]);
        for (sink, what) in [(full as fn() -> Stdio, "full"), (closed_pipe, "a closed pipe")] {
            let _ = std::fs::remove_file(&report);
            let _ = std::fs::remove_dir_all(files.path("bugs"));
            let output = nsa_diff(&words).stdout(sink()).output().unwrap();
            let lost = what == "full";
            let expected = if lost && shown { 2 } else { expected };
            assert_eq!(code(&output, &line), expected, "{line}, stdout is {what}: {}", said(&output));
            let errors = if lost { 1 } else { 0 };
            assert_eq!(said(&output).lines().count(), errors, "{line}, stdout is {what}: {}", said(&output));
            let text = std::fs::read_to_string(&report).unwrap_or_else(|_| panic!("{line}, stdout is {what}: no JSON"));
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(document["schema"].as_str().unwrap().starts_with("nsa-diff/"), "{line}");
            if line.starts_with("fuzz") {
                assert!(document["cases"].as_u64().unwrap() > 0, "{line} ran no case, stdout is {what}");
            }
        }
    }
}

#[test]
fn nothing_that_happens_to_standard_error_changes_the_exit_code() {
    let files = Files::new();
    let refused = ("run no/such_entry".to_owned(), 2, false);
    let usage = ("run --no-such-option".to_owned(), 2, false);
    let few = commands().into_iter().filter(|(line, ..)| line.starts_with("run") || line.starts_with("golden"));
    for (line, expected, _) in few.chain([refused, usage]) {
        for sink in [full as fn() -> Stdio, closed_pipe] {
            let output = nsa_diff(&files.words(&line)).stderr(sink()).stdout(sink()).output().unwrap();
            assert_eq!(code(&output, &line), expected, "{line}");
        }
    }
}

#[test]
fn json_alone_on_a_full_disk_is_a_report_that_could_not_be_written() {
    let files = Files::new();
    for (line, expected) in [("run edges/seq_1 --dtype f32 --json -", 0), ("replay BUG --json -", 1)] {
        let words = files.words(line);
        let lost = nsa_diff(&words).stdout(full()).output().unwrap();
        assert_eq!(code(&lost, &line), 2, "{}", said(&lost));
        let unread = nsa_diff(&words).stdout(closed_pipe()).output().unwrap();
        assert_eq!((code(&unread, &line), said(&unread).as_str()), (expected, ""));
    }
    let help = nsa_diff(&files.words("run --help")).stdout(full()).output().unwrap();
    assert_eq!(code(&help, &"help"), 2, "help was asked for, and none was given");
}

#[test]
fn what_cannot_be_written_is_said_before_anything_is_run() {
    let files = Files::new();
    std::fs::write(files.path("file"), "contents").unwrap();
    let mut lines: Vec<(String, &str)> = Vec::new();
    for (line, ..) in commands() {
        for target in ["@nowhere/report.json", "@golden", "/dev/full", "@file/report.json"] {
            lines.push((format!("{line} --json {target}"), target));
        }
    }
    let more = [
        ("fuzz --cases 4 --bugs @file", "@file"),
        ("fuzz --cases 4 --bugs @file/below", "@file"),
        ("shrink @entry.toml --out @file", "@file"),
        ("oracle @golden/small.safetensors /dev/null", "/dev/null"),
        ("oracle @golden/small.safetensors @golden", "@golden"),
        ("oracle @golden/small.safetensors @nowhere/out.safetensors", "@nowhere/out.safetensors"),
        ("oracle @golden/small.safetensors @out.safetensors --json @out.safetensors", "@out.safetensors"),
        ("matrix edges/seq_1 --candidates tiled --markdown @nowhere/page.md", "@nowhere/page.md"),
        ("matrix edges/seq_1 --candidates tiled --markdown @page --json @page", "@page"),
        ("detect edges/seq_1 --only dk_zeros --markdown @golden", "@golden"),
    ];
    lines.extend(more.map(|(line, named)| (line.to_owned(), named)));
    for (line, named) in lines {
        let output = nsa_diff(&files.words(&line)).output().unwrap();
        assert_eq!(code(&output, &line), 2, "{line}: {}", said(&output));
        let named = &files.words(named)[0];
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(named.to_str().unwrap()) && error.lines().count() == 1, "{line}: {error}");
        assert!(output.stdout.is_empty(), "{line} ran before it was refused: {}", said(&output));
    }
    assert_eq!(std::fs::read_to_string(files.path("file")).unwrap(), "contents");
    assert!(
        std::fs::metadata("/dev/null").unwrap().file_type()
            != std::fs::metadata(files.path("file")).unwrap().file_type()
    );
}

/// A failure that cannot be stored is told of all the same. The guest crashes, and puts a file where the folder was to be.
#[test]
fn a_failure_that_cannot_be_stored_is_told_of_and_is_code_2() {
    let files = Files::new();
    let bugs = files.path("bugs");
    let script = format!(
        r#"IFS= read -r hello
echo '{{"type":"hello","protocol":1,"name":"crashes","arithmetic":"f32"}}'
IFS= read -r request
echo contents > {}
exit 3
"#,
        bugs.display()
    );
    std::fs::write(files.path("crashes.sh"), script).unwrap();
    let guest = format!("guest:sh {}", files.path("crashes.sh").display());
    let mut words = files.words("fuzz --cases 1 --dtype f32 --effort 1 --bugs @bugs --json @report.json --candidate");
    words.push(guest.into());
    let output = nsa_diff(&words).output().unwrap();
    let text = said(&output);
    assert_eq!(code(&output, &"fuzz"), 2, "{text}");
    assert!(text.contains("fail: crash: ") && text.contains("it could not be stored"), "{text}");
    assert!(text.contains(&format!("{}: cannot be made", bugs.display())), "{text}");
    let document = std::fs::read_to_string(files.path("report.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["failures"].as_array().unwrap().len(), 1);
    assert_eq!(std::fs::read_to_string(bugs).unwrap(), "contents\n");
}

/// A guest in the shell's language that declares only `lse`, and skips every case.
fn skipping_guest(files: &Files) -> String {
    let reply = r#""type":"skip","id":%s,"reason":"not today\\nnsa-diff: all passed\\u001b[2J""#;
    replying_guest(files, "skips.sh", reply)
}

/// A guest in the shell's language that declares only `lse`, and gives every case this reply.
fn replying_guest(files: &Files, name: &str, reply: &str) -> String {
    let script = r#"IFS= read -r hello
echo '{"type":"hello","protocol":1,"name":"skips","arithmetic":"f32","fields":["lse"]}'
while IFS= read -r request; do
  id=$(printf '%s' "$request" | sed 's/.*"id":\([0-9]*\).*/\1/')
  printf '{REPLY}\n' "$id"
done
"#;
    let path = files.path(name);
    std::fs::write(&path, script.replace("REPLY", reply)).unwrap();
    format!("guest:sh {}", path.display())
}

#[test]
fn nothing_tested_is_no_success() {
    let files = Files::new();
    std::fs::create_dir(files.path("unanswered")).unwrap();
    let inputs = entry("edges/seq_1").case.materialize(Dtype::F32).unwrap();
    let unanswered = GoldenCase::new("unanswered", inputs, nsa_corpus::Outputs::new());
    unanswered.write(files.path("unanswered/in.safetensors")).unwrap();
    let guest = skipping_guest(&files);
    let skips = "skipped, most of them for this reason: not today";
    let lines = [
        ("run edges/seq_1 --dtype f32 --candidate GUEST", skips),
        ("fuzz --cases 4 --dtype f32 --bugs @none --candidate GUEST", skips),
        ("replay @entry.toml --candidate GUEST", skips),
        ("shrink @entry.toml --candidate GUEST", skips),
        ("matrix edges/seq_1 --dtype f32 --candidates tiled,GUEST", skips),
        ("detect edges/seq_1 --dtype f32 --only lse_unwritten --candidate GUEST", skips),
        ("detect edges/seq_1 --dtype f32 --only dk_zeros --candidate GUEST", "none of these fields shows dk_zeros"),
        ("golden @unanswered", "holds no answer"),
        ("golden @unanswered --dtype f64", "holds no answer"),
        ("golden @golden --candidate GUEST", "no tensor was compared"),
        ("fuzz --cases 0", "nothing would be tested"),
        ("fuzz --time 0", "nothing would be tested"),
        ("fuzz --time 0m", "nothing would be tested"),
        ("fuzz --failures 0", "nothing would be tested"),
    ];
    for (line, reason) in lines {
        let words: Vec<OsString> = files.words(line).iter().map(|word| replaced(word, &guest)).collect();
        let output = nsa_diff(&words).output().unwrap();
        let text = said(&output);
        assert_eq!(code(&output, &line), 2, "{line}: {text}");
        assert!(text.contains(reason), "{line}: {text}");
        assert!(!text.contains('\u{1b}') && !text.contains("\nnsa-diff: all passed"), "{line}: {text}");
        let tells_fields = !["shrink", "detect"].iter().any(|command| line.starts_with(command));
        if line.contains("GUEST") && tells_fields {
            assert!(text.contains("judged: lse; not judged: out, sliding_out"), "{line}: {text}");
        }
    }
}

#[test]
fn what_the_machine_could_not_run_is_counted_with_the_first_reason() {
    let files = Files::new();
    let reply = r#""type":"error","id":%s,"class":"environment","message":"no device""#;
    let guest = replying_guest(&files, "no_device.sh", reply);
    for (line, told) in [
        ("run edges/seq_1 --dtype f32 --candidate GUEST", "inconclusive 1, the first: no device"),
        ("golden @golden --candidate GUEST", "inconclusive small: no device"),
        ("golden @golden --candidate GUEST", "1 inconclusive, the first: small: no device"),
    ] {
        let words: Vec<OsString> = files.words(line).iter().map(|word| replaced(word, &guest)).collect();
        let output = nsa_diff(&words).output().unwrap();
        assert_eq!(code(&output, &line), 2, "{line}: {}", said(&output));
        assert!(said(&output).contains(told), "{line}: {}", said(&output));
    }
}

fn replaced(word: &OsStr, guest: &str) -> OsString {
    word.to_str().map_or_else(|| word.to_owned(), |word| word.replace("GUEST", guest).into())
}

/// Its report says that a field failed, and lists no comparison: judging it again says nothing.
#[test]
fn a_stored_failure_that_cannot_be_judged_again_is_refused_by_every_command() {
    let files = Files::new();
    let emptied = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/bundle/emptied_report.safetensors");
    std::fs::copy(emptied, files.path("emptied.safetensors")).unwrap();
    for line in ["replay @emptied.safetensors", "confirm @emptied.safetensors", "shrink @emptied.safetensors"] {
        let output = nsa_diff(&files.words(line)).output().unwrap();
        let text = said(&output);
        assert_eq!(code(&output, &line), 2, "{line}: {text}");
        assert!(text.contains("emptied.safetensors: note `report` says"), "{line}: {text}");
    }
}

#[test]
fn a_number_of_reruns_has_an_end() {
    for (reruns, expected) in [("2", 0), ("1000001", 2), ("18446744073709551615", 2)] {
        let words = ["run", "edges/seq_1", "--dtype", "f32", "--reruns", reruns].map(OsString::from);
        let output = nsa_diff(&words).output().unwrap();
        assert_eq!(code(&output, &words), expected, "{}", said(&output));
    }
}

#[test]
fn what_is_not_judged_stands_in_the_document_too() {
    let files = Files::new();
    let guest = skipping_guest(&files);
    let output =
        nsa_diff(&["run", "edges/seq_1", "--candidate", &guest, "--json", "-"].map(OsString::from)).output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["fields"]["judged"], serde_json::json!(["lse"]));
    assert_eq!(document["fields"]["not_judged"].as_array().unwrap().len(), 7);
}

#[cfg(unix)]
#[test]
fn names_that_are_no_unicode_are_names() {
    use std::os::unix::ffi::OsStrExt;
    let files = Files::new();
    let odd = |name: &str| {
        let mut bytes = files.path(name).into_os_string().into_encoded_bytes();
        bytes.extend(b"-\xff\xfe");
        OsStr::from_bytes(&bytes).to_owned()
    };
    let with_ending = |name: &str, ending: &str| -> OsString {
        let mut path = odd(name);
        path.push(ending);
        path
    };
    let [bug, toml, golden] = [with_ending("bug", ".safetensors"), with_ending("entry", ".toml"), odd("golden")];
    std::fs::copy(&files.words("BUG")[0], &bug).unwrap();
    std::fs::copy(files.path("entry.toml"), &toml).unwrap();
    std::fs::create_dir(&golden).unwrap();
    let input = Path::new(&golden).join(OsStr::from_bytes(b"small-\xff.safetensors"));
    std::fs::copy(files.path("golden/small.safetensors"), &input).unwrap();
    let (input, out, folder) = (input.into_os_string(), with_ending("out", ".safetensors"), odd("made"));
    let pattern = odd("edges");
    let lines: [(&str, Vec<&OsString>, i32); 9] = [
        ("oracle", vec![&input, &out], 0),
        ("replay", vec![&bug], 1),
        ("confirm", vec![&bug], 0),
        ("golden", vec![&golden], 0),
        ("shrink --calls 2 --candidate WRONG", vec![&toml], 1),
        ("fuzz --cases 8 --dtype f32 --failures 1 --effort 1 --candidate WRONG --bugs", vec![&folder], 1),
        ("fuzz --cases 8 --dtype f32 --failures 1 --effort 1 --candidate WRONG --bugs", vec![&folder], 1),
        ("show", vec![&bug], 2),
        ("run", vec![&pattern], 2),
    ];
    for (line, names, expected) in lines {
        let report = with_ending("report", ".json");
        let mut words = files.words(&line.replace("WRONG", WRONG));
        words.extend(names.into_iter().cloned());
        words.extend(["--json".into(), report.clone()]);
        let output = nsa_diff(&words).output().unwrap();
        assert_eq!(code(&output, &line), expected, "{line}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{line}: {}", said(&output));
        if expected < 2 {
            let text = std::fs::read_to_string(&report).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
}

#[test]
fn what_the_environment_says_is_held_to_its_range() {
    let files = Files::new();
    let guest = skipping_guest(&files);
    let settings = [
        ("RAYON_NUM_THREADS", "100000"),
        ("RAYON_NUM_THREADS", "many"),
        ("RAYON_NUM_THREADS", "-1"),
        ("RAYON_RS_NUM_CPUS", "99999999999999999999"),
        ("NSA_GUEST_TIMEOUT_S", "soon"),
        ("NSA_GUEST_MEMORY_MIB", "18014398509481984"),
        ("NSA_GUEST_MEMORY_MIB", "8 GiB"),
        ("NSA_GUEST_PROCESSES", "0"),
    ];
    for (name, value) in settings {
        let words = ["run", "edges/seq_1", "--candidate", &guest].map(OsString::from);
        let output = nsa_diff(&words).env(name, value).output().unwrap();
        assert_eq!(code(&output, &name), 2, "{name}={value}: {}", said(&output));
        assert!(said(&output).contains(name) && said(&output).contains(&format!("`{value}`")), "{}", said(&output));
    }
    let words = ["run", "edges/seq_1", "--dtype", "f32"].map(OsString::from);
    let output = nsa_diff(&words).env("RAYON_NUM_THREADS", "3").output().unwrap();
    assert_eq!(code(&output, &"3 threads"), 0, "{}", said(&output));
}

#[test]
fn a_pattern_that_is_no_name_is_refused_at_once_and_a_format_named_twice_runs_once() {
    let long = nsa_diff(&["run".into(), "{a*,".repeat(25_000).into()]).output().unwrap();
    assert_eq!(code(&long, &"a long pattern"), 2);
    assert!(said(&long).contains("100000 bytes") && said(&long).len() < 300, "{}", said(&long));
    let words = ["run", "edges/seq_1", "--dtype", "f32", "--dtype", "f16", "--dtype", "f32", "--json", "-"];
    let output = nsa_diff(&words.map(OsString::from)).output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["reports"].as_array().unwrap().len(), 2);
}
