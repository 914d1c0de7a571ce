//! The binary as its users meet it: exit codes, help, files that are broken or hostile, the same bytes for the same input.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nsa_corpus::{Case, Dtype, GoldenCase, Outputs, Sizes, TensorFileBuilder};

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
    let inputs = Case::ordinary(SIZES, 3).materialize(Dtype::F32).unwrap();
    GoldenCase::new("small", inputs, Outputs::new())
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus")
}

#[test]
fn every_subcommand_shows_an_example() {
    let help = text(&nsa_diff(&["--help"]).stdout);
    let listed =
        help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = listed
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 16, "{names:?}");
    for name in names {
        let output = nsa_diff(&[name, "--help"]);
        assert_eq!(code(&output), 0, "{name}");
        let help = text(&output.stdout);
        assert!(help.contains("Example") && help.contains(&format!("nsa-diff {name}")), "{name}:\n{help}");
    }
}

#[test]
fn what_passes_ends_with_0_and_bad_usage_with_2() {
    assert_eq!(code(&nsa_diff(&["run", "edges/seq_1", "--dtype", "f32"])), 0);
    assert_eq!(code(&nsa_diff(&["candidates"])), 0);
    assert_eq!(code(&nsa_diff(&["show", "edges/seq_1"])), 0);
    assert_eq!(code(&nsa_diff(&["run", "--no-such-option"])), 2);
    assert_eq!(code(&nsa_diff(&["run", "edges/seq_1", "--dtype", "f8"])), 2);
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
    let entry =
        "[[entry]]\nname = \"a/b\"\nwhy = \"w\"\n[entry.case]\nseq_len = 4\ndim = 2\nblock_size = 2\nnum_sel = 1\n";
    let good = written(folder.path(), "good.toml", entry.as_bytes());
    let output = nsa_diff(&["replay", &good, "--candidate", "tiled"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let file_value = |path: &str| format!("{entry}q = {{ kind = \"given\", file = \"{path}\", tensor = \"q\" }}\n");
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
                 num_sel = 2\nq = { kind = \"given\", file = \"link.safetensors\", tensor = \"q\" }\n";
    let file = written(folder.path(), "entries.toml", entry.as_bytes());
    refused(&["replay", &file, "--candidate", "tiled"], &["link.safetensors"]);
}

#[test]
fn the_oracle_gives_the_same_bytes_and_never_overwrites_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let input = written(folder.path(), "in.safetensors", &small().to_bytes());
    let outputs = ["a.safetensors", "b.safetensors"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    for output in &outputs {
        assert_eq!(code(&nsa_diff(&["oracle", &input, output])), 0);
    }
    let [first, second] = outputs.map(|output| std::fs::read(output).unwrap());
    assert!(first == second, "the same input gave other bytes");
    refused(&["oracle", &input, &input], &["in.safetensors", "not overwritten"]);
    assert_eq!(std::fs::read(&input).unwrap(), small().to_bytes());
}

#[test]
fn the_plain_form_takes_masks_of_bytes_and_short_indices() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = small().inputs;
    let plain = |short: bool| {
        let mut file = TensorFileBuilder::new();
        file.metadata("block_size", "4".to_owned());
        file.float("q", Dtype::F32, inputs.q()).float("k", Dtype::F32, inputs.k());
        file.float("v", Dtype::F32, inputs.v());
        file.whole("indices", &inputs.indices().mapv(i64::from)).truth("mask", inputs.mask());
        if short { shortened(&file.to_bytes()) } else { file.to_bytes() }
    };
    let answers = [false, true].map(|short| {
        let input = written(folder.path(), "plain.safetensors", &plain(short));
        let output = folder.path().join("out.safetensors").to_str().unwrap().to_owned();
        let run = nsa_diff(&["oracle", &input, &output]);
        assert_eq!(code(&run), 0, "{}", text(&run.stderr));
        GoldenCase::read(&output).unwrap()
    });
    assert_eq!(answers[0].inputs, answers[1].inputs);
    assert_eq!(answers[0].outputs, answers[1].outputs);
    let fields: Vec<&str> = answers[0].outputs.iter().map(|(field, _)| field.name()).collect();
    assert_eq!(fields, ["out", "lse"], "no cotangent, no gradient");
}

/// The same file with `indices` as I32 and `mask` as U8.
fn shortened(bytes: &[u8]) -> Vec<u8> {
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let (mut short, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, tensor) in header.as_object().unwrap() {
        let mut tensor = tensor.clone();
        if name != "__metadata__" {
            let position =
                |end: usize| 8 + length + usize::try_from(tensor["data_offsets"][end].as_u64().unwrap()).unwrap();
            let old = &bytes[position(0)..position(1)];
            let start = data.len();
            match name.as_str() {
                "indices" => old.chunks(8).for_each(|number| data.extend_from_slice(&number[..4])),
                _ => data.extend_from_slice(old),
            }
            let dtype = match name.as_str() {
                "indices" => "I32".into(),
                "mask" => "U8".into(),
                _ => tensor["dtype"].clone(),
            };
            tensor["dtype"] = dtype;
            tensor["data_offsets"] = serde_json::json!([start, data.len()]);
        }
        short.insert(name.clone(), tensor);
    }
    let header = serde_json::to_vec(&short).unwrap();
    [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat()
}

#[test]
fn golden_answers_pass_and_a_tampered_one_fails() {
    let golden = corpus().join("golden");
    for candidate in ["oracle", "regular_attend", "tiled"] {
        let output = nsa_diff(&["golden", golden.to_str().unwrap(), "--candidate", candidate]);
        assert_eq!(code(&output), 0, "{candidate}: {}{}", text(&output.stdout), text(&output.stderr));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut case = GoldenCase::read(golden.join("seed_small.safetensors")).unwrap();
    let out = case.outputs.get_mut(nsa_corpus::Field::Dk).unwrap();
    *out.iter_mut().last().unwrap() += 1e-6;
    case.write(folder.path().join("tampered.safetensors")).unwrap();
    for more in [&[][..], &["--dtype", "f32"], &["--candidate", "tiled", "--dtype", "f32"]] {
        let output = nsa_diff(&[&["golden", folder.path().to_str().unwrap()], more].concat());
        assert_eq!(code(&output), 1, "{more:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("FAIL"), "{more:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_cases() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seed: &str, name: &str| {
        let file = folder.path().join(name).to_str().unwrap().to_owned();
        let bugs = folder.path().join("bugs").to_str().unwrap().to_owned();
        let output = nsa_diff(&["fuzz", "--seed", seed, "--cases", "60", "--bugs", &bugs, "--json", &file]);
        assert_eq!(code(&output), 0, "{}{}", text(&output.stdout), text(&output.stderr));
        let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(report["schema"], "nsa-diff/fuzz/2");
        assert_eq!(report["cases"], 60);
        ["elements", "verdicts", "features", "skips", "judged", "budget_use"].map(|key| report[key].to_string())
    };
    let first = run("5", "a.json");
    assert_eq!(first, run("5", "b.json"));
    assert_ne!(first, run("6", "c.json"), "another seed gives other cases");
}

#[test]
fn a_report_as_json_holds_every_case() {
    let output = nsa_diff(&["run", "edges/*", "--dtype", "f32", "--json", "-"]);
    assert_eq!(code(&output), 0);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let edges = nsa_corpus::entries().iter().filter(|entry| entry.name.starts_with("edges/")).count();
    assert_eq!(report["reports"].as_array().unwrap().len(), edges);
    assert_eq!(report["schema"], "nsa-diff/run/2");
}

#[test]
fn vacuous_checks_are_counted_and_listed_with_their_reasons() {
    let counted = nsa_diff(&["run", "edges/seq_1", "--dtype", "f32"]);
    let text = String::from_utf8(counted.stdout).unwrap();
    assert!(text.contains("5 of 20 checks are vacuous") && text.contains("swapped rows 5"), "{text}");
    assert!(text.contains("--vacuous lists them"), "{text}");
    let listed = String::from_utf8(nsa_diff(&["run", "edges/seq_1", "--dtype", "f32", "--vacuous"]).stdout).unwrap();
    assert!(listed.contains("edges/seq_1 f32 dk: swapped rows: there is one row"), "{listed}");
}

#[test]
fn large_cases_are_chosen_by_name_and_are_no_place_for_other_options() {
    let unknown = nsa_diff(&["run", "--large", "large/63k"]);
    assert_eq!(code(&unknown), 2);
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(error.contains("no entry matches `large/63k`") && error.contains("large/64k"), "{error}");
    assert_eq!(code(&nsa_diff(&["run", "--large", "--reruns", "2"])), 2);
}

#[test]
fn a_failure_says_where_it_is_wrong_and_what_it_looks_like() {
    let candidate = "rowwise+diagonal_own_key_missing";
    let arguments = ["run", "upstream/small", "--dtype", "f32", "--candidate", candidate, "--json", "-"];
    let output = nsa_diff(&arguments);
    assert_eq!(code(&output), 1);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let position = &document["reports"][0]["localization"];
    assert_eq!(position["likely"][0]["mutant"], "diagonal_own_key_missing");
    assert_eq!(position["terms"][0]["key"], position["position"][2], "the missing key is the row's own");
    let shown = text(&nsa_diff(&arguments[..arguments.len() - 2]).stdout);
    assert!(shown.contains("looks like: diagonal own key missing"), "{shown}");
    refused(
        &["run", "upstream/small", "--candidate", "rowwise+no_such_mistake"],
        &["no_such_mistake", "nsa-diff detect"],
    );
}
