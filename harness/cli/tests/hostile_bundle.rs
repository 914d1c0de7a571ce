//! A stored failure that an enemy wrote: every command that opens one ends in a verdict or in one line, never in a panic.

use std::path::Path;
use std::process::{Command, Output};

use ndarray::{Array1, ArrayD, IxDyn};
use nsa_corpus::{Bundle, Dtype, Field, Outputs, entries};

fn bundle() -> Bundle {
    let entry = entries().iter().find(|entry| entry.name == "edges/one_of_everything").unwrap();
    let inputs = entry.case.materialize(Dtype::F32).unwrap();
    let outputs = nsa_reference::oracle::attend(&inputs);
    let mut bundle = Bundle::new(entry.clone(), Dtype::F32, Some(outputs)).unwrap();
    let arithmetic = serde_json::to_string(&nsa_corpus::Arithmetic::f32()).unwrap();
    bundle.notes.insert("arithmetic".to_owned(), arithmetic);
    bundle
}

fn wrong_shape(shape: &[usize]) -> Outputs {
    let mut outputs = Outputs::new();
    outputs.set(Field::Out, ArrayD::from_elem(IxDyn(shape), f64::NAN));
    outputs.set(Field::Dk, Array1::from_elem(7, 1.0));
    outputs
}

fn run(command: &str, file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nsa-diff")).args([command, file.to_str().unwrap()]).output().unwrap()
}

#[test]
fn an_enemys_stored_failure_is_a_verdict_or_one_line() {
    type Change = fn(&mut Bundle);
    let changes: [(&str, Change); 11] = [
        ("as it was", |_| {}),
        ("answers of other shapes", |bundle| bundle.outputs = Some(wrong_shape(&[3, 1]))),
        ("intervals of other shapes", |bundle| bundle.intervals = [wrong_shape(&[2]), wrong_shape(&[1, 1, 1, 1, 5])]),
        ("no arithmetic", |bundle| drop(bundle.notes.remove("arithmetic"))),
        ("tiles of no products", |bundle| {
            let text =
                bundle.notes["arithmetic"].replacen(r#"{"fma":{"unit":5.960464477539063e-8}}"#, TILES_OF_NONE, 1);
            assert!(text.contains(TILES_OF_NONE));
            bundle.notes.insert("arithmetic".to_owned(), text);
        }),
        ("a report that is none", |bundle| drop(bundle.notes.insert("report".to_owned(), "[".repeat(5000)))),
        ("a report that is emptied", |bundle| drop(bundle.notes.insert("report".to_owned(), EMPTIED.to_owned()))),
        ("a reason of megabytes", |bundle| bundle.entry.why = "long ".repeat(800_000)),
        ("notes of megabytes", |bundle| {
            drop(bundle.notes.insert("candidate".to_owned(), "long ".repeat(800_000)));
            drop(bundle.notes.insert("arithmetic".to_owned(), format!("{{\"unit\":\"{}\"}}", "long".repeat(800_000))));
        }),
        ("a reason of control characters", |bundle| bundle.entry.why = "\u{1b}]0;title\u{7}".repeat(9)),
        ("notes of control characters", |bundle| {
            drop(bundle.notes.insert("candidate".to_owned(), "\u{1b}[2J".repeat(9)))
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (what, change) in changes {
        let mut bundle = bundle();
        change(&mut bundle);
        let file = folder.path().join("found.safetensors");
        bundle.write(&file).unwrap();
        for command in ["replay", "confirm", "show"] {
            let output = run(command, &file);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(matches!(output.status.code(), Some(0..=2)), "{what}, {command}: {errors}");
            assert!(errors.lines().count() <= 1, "{what}, {command}: {errors}");
            assert!(
                !output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b),
                "{what}, {command}: control characters reach the terminal"
            );
            assert!(output.stdout.len() + output.stderr.len() < 20_000, "{what}, {command}: too long");
            let refused = what == "a report that is emptied" && command != "show";
            assert!(!refused || output.status.code() == Some(2), "{what}, {command}: {errors}");
        }
    }
}

const TILES_OF_NONE: &str = r#"{"blocks":{"block":0,"extra_bits":0}}"#;

/// A report that says what failed, and lists no comparison: judging the answer again by it would find nothing wrong.
const EMPTIED: &str = r#"{"format":2,"name":"x","id":"x","candidate":"x","dtype":"f32","features":[],"verdict":"fail",
    "detail":{"class":"over_budget","field":"dk","message":"m"},"comparisons":[],"seconds":0}"#;

/// A name with a line break would put a line of its own into our error.
#[test]
fn no_name_in_a_file_adds_a_line_to_our_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.safetensors");
    let lie = "f16\nnsa-diff: all 568 cases passed\u{1b}[2J";
    let long = format!("f16{}", " and so on".repeat(400_000));
    for dtype in [lie, &long] {
        let header = serde_json::json!({ "__metadata__": { "dtype": dtype, "entry": "" } }).to_string();
        std::fs::write(&file, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
        for command in ["replay", "confirm", "show"] {
            let output = run(command, &file);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command}: {errors}");
            assert!(errors.contains("dtype `f16") && output.stdout.is_empty(), "{command}: {errors}");
            assert!(errors.lines().count() == 1 && errors.len() < 2000 && !errors.contains('\u{1b}'), "{errors}");
        }
    }
}
