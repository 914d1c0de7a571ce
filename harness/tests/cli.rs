//! The command line as a user meets it: exit codes, one-line errors, files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn nsa_diff(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nsa-diff")).args(arguments).current_dir(root()).output().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A refusal: exit code 2 and one line that names every part of `naming`.
fn assert_refused(arguments: &[&str], naming: &[&str]) {
    let output = nsa_diff(arguments);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(code(&output), 2, "{arguments:?}: {stderr}");
    assert!(
        stderr.starts_with("nsa-diff: error: ") && stderr.trim_end().lines().count() == 1,
        "{arguments:?}: {stderr}"
    );
    assert!(!stderr.contains("panicked"), "{stderr}");
    naming.iter().for_each(|name| assert!(stderr.contains(name), "{arguments:?}: `{name}` is not in {stderr}"));
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in [
        "run",
        "fuzz",
        "replay",
        "shrink",
        "show",
        "backends",
        "gradcheck",
        "golden",
        "oracle",
        "bench",
        "record",
        "detect",
    ] {
        let output = nsa_diff(&[command, "--help"]);
        assert_eq!(code(&output), 0, "{command}");
        assert!(stdout(&output).contains("nsa-diff "), "{command} has no example");
    }
}

#[test]
fn a_run_passes_and_says_how_many_elements_it_judged() {
    let output = nsa_diff(&["run", "edges/seq_1", "--element", "f32"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("1 pass, 0 suspect, 0 fail"), "{}", stdout(&output));
    let json = nsa_diff(&["run", "edges/seq_1", "--json", "-"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["schema"], "nsa-diff/run/1");
    assert_eq!(document["reports"].as_array().unwrap().len(), 3);
}

#[test]
fn what_is_not_there_is_named() {
    assert_refused(&["run", "edges/sek_1"], &["edges/sek_1", "edges/seq_1"]);
    assert_refused(&["run", "--candidate", "nobody"], &["nobody", "tiled"]);
    assert_refused(&["golden", "no/such/folder"], &["no/such/folder"]);
    assert_refused(&["replay", "no/such/file.safetensors"], &["no/such/file.safetensors"]);
    assert_refused(&["replay", "no/such/file.toml"], &["no/such/file.toml"]);
    assert_eq!(code(&nsa_diff(&["run", "--element", "fp8"])), 2);
    assert_eq!(code(&nsa_diff(&["no-such-command"])), 2);
}

#[test]
fn hostile_files_get_one_line_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let hostile: [(&str, Vec<u8>); 5] = [
        ("empty", vec![]),
        ("short", vec![1, 2, 3]),
        ("huge_header", u64::MAX.to_le_bytes().to_vec()),
        ("ten_gigabytes", [10u64 << 30, 0].iter().flat_map(|word| word.to_le_bytes()).collect()),
        ("nested", [&(60_000u64).to_le_bytes()[..], "[".repeat(60_000).as_bytes()].concat()),
    ];
    for (name, bytes) in hostile {
        let path = folder.path().join(format!("{name}.safetensors"));
        std::fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap();
        assert_refused(&["replay", path], &[name]);
        assert_refused(&["oracle", path, "out.safetensors"], &[name]);
    }
    let toml = folder.path().join("entries.toml");
    std::fs::write(&toml, "[[entry]]\nname = \"a/b\"\nwhy = \"x\"\nnonsense = 1\n").unwrap();
    assert_refused(&["replay", toml.to_str().unwrap(), "--candidate", "tiled"], &["entries.toml", "nonsense"]);
}

#[test]
fn the_oracle_writes_the_same_bytes_and_never_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let golden = root().join("corpus/golden/sliding_default.safetensors");
    let (first, second) = (path("first.safetensors"), path("second.safetensors"));
    assert_eq!(code(&nsa_diff(&["oracle", golden.to_str().unwrap(), &first])), 0);
    assert_eq!(code(&nsa_diff(&["oracle", golden.to_str().unwrap(), &second])), 0);
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    assert_refused(&["oracle", &first, &first], &["not overwritten"]);
    // Activations: plain q, k, v, indices and a U8 mask; the forward only.
    let activations = root().join("corpus/activations/minilm_layer3.safetensors");
    let output = nsa_diff(&["oracle", activations.to_str().unwrap(), &path("plain.safetensors")]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).trim_end().ends_with("out, lse"), "{}", stdout(&output));
}

#[test]
fn golden_answers_pass_and_a_tampered_one_fails() {
    let folder = tempfile::tempdir().unwrap();
    let golden = root().join("corpus/golden/dim_1.safetensors");
    let copy = folder.path().join("dim_1.safetensors");
    let mut bytes = std::fs::read(golden).unwrap();
    std::fs::write(&copy, &bytes).unwrap();
    let folder = folder.path().to_str().unwrap();
    assert_eq!(code(&nsa_diff(&["golden", folder])), 0);
    // The upper byte but one of the first number of `out`: no longer what it was by far.
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = tensors["out"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + start + 6] ^= 0x10;
    std::fs::write(&copy, &bytes).unwrap();
    assert_eq!(code(&nsa_diff(&["golden", folder])), 1);
    bytes.truncate(100);
    std::fs::write(&copy, &bytes).unwrap();
    assert_refused(&["golden", folder], &["dim_1.safetensors"]);
}

#[test]
fn the_same_seed_draws_the_same_cases() {
    let fuzz = |seed: &str| {
        let output = nsa_diff(&["fuzz", "--seed", seed, "--cases", "60", "--json", "-"]);
        assert_eq!(code(&output), 0);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (document["elements"].clone(), document["covered"].clone())
    };
    assert_eq!(fuzz("5"), fuzz("5"));
    assert_ne!(fuzz("5"), fuzz("6"));
}
