//! The binary as its users meet it: exit codes, help, files that are broken or hostile, the same bytes for the same input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nsa_corpus::{Case, Element, GoldenCase, Outputs, Sizes, TensorFileBuilder};

const SIZES: Sizes = Sizes {
    batch: 1,
    q_heads: 2,
    kv_heads: 1,
    seq_len: 9,
    dim: 4,
    value_dim: 4,
    block_size: 4,
    num_sel: 2,
    sel_heads: 1,
};

fn nsa_diff(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nsa-diff")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    output.status.code().unwrap_or_else(|| panic!("ended by a signal\n{stdout}{stderr}"))
}

/// The one line of an error: exit code 2, no panic, every one of `named` in it.
fn refused(arguments: &[&str], named: &[&str]) {
    let output = nsa_diff(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), 2, "{arguments:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    named.iter().for_each(|name| assert!(stderr.contains(name), "{arguments:?}: `{name}` is not in: {stderr}"));
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn small() -> GoldenCase {
    let inputs = Case::ordinary(SIZES, 3).materialize(Element::F32).unwrap();
    GoldenCase::new("small", inputs, Outputs::new())
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

#[test]
fn every_subcommand_shows_an_example() {
    let names = ["run", "fuzz", "replay", "shrink", "show", "backends", "gradcheck", "golden", "oracle", "detect"];
    for name in names.into_iter().chain(["bench", "record"]) {
        let output = nsa_diff(&[name, "--help"]);
        assert_eq!(code(&output), 0, "{name}");
        let help = text(&output.stdout);
        assert!(help.contains("Example") && help.contains(&format!("nsa-diff {name}")), "{name}:\n{help}");
    }
}

#[test]
fn what_passes_ends_with_0_and_bad_usage_with_2() {
    assert_eq!(code(&nsa_diff(&["run", "edges/seq_1", "--element", "f32"])), 0);
    assert_eq!(code(&nsa_diff(&["backends"])), 0);
    assert_eq!(code(&nsa_diff(&["show", "edges/seq_1"])), 0);
    assert_eq!(code(&nsa_diff(&["run", "--no-such-option"])), 2);
    assert_eq!(code(&nsa_diff(&["run", "edges/seq_1", "--element", "f8"])), 2);
    assert_eq!(code(&nsa_diff(&[])), 2);
}

#[test]
fn a_name_that_matches_nothing_gets_the_nearest_ones() {
    refused(&["run", "edges/seq_one"], &["edges/seq_one", "edges/seq_1"]);
    refused(&["run", "edges/seq_1", "--candidate", "titled"], &["titled", "tiled"]);
}

#[test]
fn a_broken_tensor_file_is_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let whole = small().to_bytes();
    let long_header = (10u64 << 30).to_le_bytes().to_vec();
    let nested = [b"{\"a\":".to_vec(), vec![b'['; 100_000]].concat();
    let deep = [(nested.len() as u64).to_le_bytes().to_vec(), nested].concat();
    let huge = br#"{"q":{"dtype":"F64","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#;
    let huge = [(huge.len() as u64).to_le_bytes().to_vec(), huge.to_vec(), vec![0; 8]].concat();
    let broken: [(&str, &[u8]); 6] = [
        ("empty", b""),
        ("truncated", &whole[..whole.len() / 2]),
        ("long_header", &long_header),
        ("deep", &deep),
        ("huge", &huge),
        ("garbage", b"\xff\xfe\x00 no tensors here at all"),
    ];
    for (name, bytes) in broken {
        let file = written(folder.path(), &format!("{name}.safetensors"), bytes);
        let out = folder.path().join("out.safetensors");
        refused(&["oracle", &file, out.to_str().unwrap(), "--block-size", "4"], &[&file]);
        refused(&["replay", &file], &[&file]);
        assert!(!out.exists(), "{name}");
    }
    refused(&["oracle", "missing.safetensors", "out.safetensors"], &["missing.safetensors"]);
    refused(&["replay", "missing.safetensors"], &["missing.safetensors"]);
    refused(&["golden", "no_such_folder"], &["no_such_folder"]);
}

#[test]
fn a_broken_entry_file_is_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let entry = "[[entry]]\nname = \"a/b\"\nwhy = \"w\"\n[entry.case]\nseq_len = 4\ndim = 2\nblock_size = 2\nnum_sel = 1\n";
    let good = written(folder.path(), "good.toml", entry.as_bytes());
    let output = nsa_diff(&["replay", &good, "--candidate", "tiled"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let file_value = |path: &str| format!("{entry}q = {{ file = \"{path}\", tensor = \"q\" }}\n");
    let broken = [
        ("garbage", "{{{{".to_owned()),
        ("unknown", entry.replace("dim = 2", "dim = 2\ndimension = 3")),
        ("twice", format!("{entry}{entry}")),
        ("huge", entry.replace("seq_len = 4", "seq_len = 9000000000000000000")),
        ("zero", entry.replace("dim = 2", "dim = 0")),
        ("nested", format!("a = {}1", "[".repeat(100_000))),
        ("outside", file_value("../../secret.safetensors")),
        ("absolute", file_value("/etc/passwd")),
        ("no_file", file_value("nothing.safetensors")),
    ];
    for (name, text) in broken {
        let file = written(folder.path(), &format!("{name}.toml"), text.as_bytes());
        refused(&["replay", &file, "--candidate", "tiled"], &[&file]);
    }
}

#[cfg(unix)]
#[test]
fn a_tensor_behind_a_symbolic_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = written(elsewhere.path(), "target.safetensors", &small().to_bytes());
    std::os::unix::fs::symlink(target, folder.path().join("link.safetensors")).unwrap();
    let entry = "[[entry]]\nname = \"a/b\"\nwhy = \"w\"\n[entry.case]\nq_heads = 2\nseq_len = 9\ndim = 4\nblock_size = 4\n\
                 num_sel = 2\nq = { file = \"link.safetensors\", tensor = \"q\" }\n";
    let file = written(folder.path(), "entries.toml", entry.as_bytes());
    refused(&["replay", &file, "--candidate", "tiled"], &["link.safetensors"]);
}
