//! The words of version 1 on the command line: taken for one version, and shown nowhere.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn nsa_diff(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nsa-diff")).args(arguments).output().unwrap()
}

/// What both give: code, and standard output as JSON without the time it took.
fn document(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = nsa_diff(&[arguments, &["--json", "-"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut document = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {errors}"));
    without_seconds(&mut document);
    (output.status.code(), document)
}

fn without_seconds(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            keys.remove("seconds");
            keys.values_mut().for_each(without_seconds);
        }
        Value::Array(values) => values.iter_mut().for_each(without_seconds),
        _ => {}
    }
}

#[test]
fn a_line_of_version_1_does_what_the_line_of_today_does() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/golden");
    let golden = golden.to_str().unwrap();
    let wrong = "diagonal_own_key_missing";
    let (old_wrong, new_wrong) = (format!("plain+{wrong}"), format!("rowwise+{wrong}"));
    let lines: [(&[&str], &[&str], i32); 7] = [
        (&["backends"], &["candidates"], 0),
        (&["run", "seed/sm*", "--element", "f32"], &["run", "upstream/sm*", "--dtype", "f32"], 0),
        (
            &["run", "seed/small", "--element", "f32", "--candidate", &old_wrong],
            &["run", "upstream/small", "--dtype", "f32", "--candidate", &new_wrong],
            1,
        ),
        (&["golden", golden, "--backend", "tiled"], &["golden", golden, "--candidate", "tiled"], 0),
        (
            &["golden", golden, "--backend", "plain", "--element", "f32"],
            &["golden", golden, "--candidate", "rowwise", "--dtype", "f32"],
            0,
        ),
        (
            &["matrix", "edges/seq_1", "--element", "f32", "--candidates", "plain,tiled"],
            &["matrix", "edges/seq_1", "--dtype", "f32", "--candidates", "rowwise,tiled"],
            0,
        ),
        (
            &["detect", "edges/seq_1", "--candidate", "plain", "--rule", "seed", "--only", wrong],
            &["detect", "edges/seq_1", "--candidate", "rowwise", "--rule", "upstream", "--only", wrong],
            0,
        ),
    ];
    for (old, new, code) in lines {
        let (old_code, old_document) = document(old);
        let (new_code, new_document) = document(new);
        assert_eq!((old_code, new_code), (Some(code), Some(code)), "{old:?}");
        assert_eq!(old_document, new_document, "{old:?}");
    }
}

#[test]
fn no_help_shows_a_word_of_version_1() {
    let help = |words: &[&str]| String::from_utf8(nsa_diff(words).stdout).unwrap();
    let all = help(&["--help"]);
    assert!(all.contains("  candidates") && !all.contains("backends"), "{all}");
    for command in ["run", "fuzz", "golden", "bench", "compute", "detect", "matrix", "calibrate", "replay", "confirm"] {
        let help = help(&[command, "--help"]);
        for word in ["--element", "--backend", "seed/", ":apart", "|seed|"] {
            assert!(!help.contains(word), "{command}: {word} in {help}");
        }
    }
}
