//! House rules as tests: who may depend on whom, licences, where `unsafe` may stand, lengths, that documented paths exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Files below `folder`, relative to the root, of these endings; build outputs and hidden folders are left out.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, endings));
        } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Which crates of this workspace the crate `name` depends on, in any way: to build, to test, behind a feature.
fn arrows(metadata: &Value, name: &str) -> Vec<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == name).unwrap();
    let names =
        package["dependencies"].as_array().unwrap().iter().map(|dependency| dependency["name"].as_str().unwrap());
    let ours: BTreeSet<&str> = names.filter(|name| name.starts_with("nsa-")).collect();
    ours.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_arrows_between_the_crates_are_those_of_the_design() {
    let metadata = metadata();
    assert_eq!(arrows(&metadata, "nsa-corpus"), [""; 0]);
    assert_eq!(arrows(&metadata, "nsa-reference"), ["nsa-corpus"], "the reference never sees gpu");
    assert_eq!(arrows(&metadata, "nsa-gpu"), ["nsa-corpus"], "gpu never sees the reference");
    assert_eq!(arrows(&metadata, "nsa-harness"), ["nsa-corpus", "nsa-gpu", "nsa-reference"]);
}

/// Whether an SPDX expression of AND, OR and brackets can be met with `allowed` alone. OR binds weaker than AND.
fn licensed(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ");
    if let (Some(open), Some(close)) = (expression.find('('), expression.find(')')) {
        let inner = if licensed(&expression[open + 1..close], allowed) { &allowed[0] } else { "none" };
        return licensed(&format!("{}{inner}{}", &expression[..open], &expression[close + 1..]), allowed);
    }
    let met = |name: &str| allowed.iter().any(|licence| licence == name.trim());
    expression.split(" OR ").any(|choice| choice.split(" AND ").all(met))
}

/// The list `allow` of deny.toml.
fn allowed_licences() -> Vec<String> {
    let text = read(&root().join("deny.toml"));
    let line = text.lines().find(|line| line.starts_with("allow = ")).unwrap();
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_dependency_has_an_allowed_licence_and_comes_from_the_registry() {
    let (metadata, allowed) = (metadata(), allowed_licences());
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        if !licensed(licence, &allowed) {
            wrong.push(format!("{name}: {licence}"));
        }
        let source = package["source"].as_str();
        if source.is_some_and(|source| !source.starts_with("registry+https://github.com/rust-lang/crates.io-index")) {
            wrong.push(format!("{name}: from {source:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!licensed("GPL-3.0 OR (MIT AND LGPL-2.1)", &allowed) && licensed("(GPL-3.0 OR MIT) AND Zlib", &allowed));
}

#[test]
fn unsafe_code_stands_in_one_file_and_is_forbidden_elsewhere() {
    let word = concat!("un", "safe");
    let uses = |text: &str| {
        text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
            [" {", " fn", " impl", " extern", "(no_mangle)"]
                .iter()
                .any(|after| line.contains(&format!("{word}{after}")))
        })
    };
    assert!(uses(&format!("let x = {word} {{ y() }};")), "the check can fail");
    let holding: Vec<PathBuf> = files(&root(), &["rs"]).into_iter().filter(|path| uses(&read(path))).collect();
    assert_eq!(holding, [root().join("gpu/src/driver.rs")]);
    for file in ["corpus/src/lib.rs", "harness/src/lib.rs", "harness/src/main.rs"] {
        assert!(read(&root().join(file)).contains("#![forbid(unsafe_code)]"), "{file}");
    }
    // Nothing in these allows what is denied: the uses above would show it.
    assert!(read(&root().join("reference/src/lib.rs")).contains("#![deny(unsafe_code)]"));
    assert!(read(&root().join("gpu/Cargo.toml")).contains("unsafe_code = \"deny\""));
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let text = read(&root().join("gpu/src/driver.rs"));
    let lines: Vec<&str> = text.lines().collect();
    let block = concat!("un", "safe {");
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(block)) {
        let above = &lines[number.saturating_sub(8)..number];
        assert!(above.iter().any(|line| line.contains("SAFETY:")), "gpu/src/driver.rs:{}: {line}", number + 1);
    }
}

/// Functions of a formatted file, with the number of their first line and their length: from `fn` to the closing brace of
/// the same indent.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let starts = |line: &str| {
        let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        let line = line.trim_start_matches("pub(super) ").trim_start_matches("const ");
        line.starts_with("fn ")
    };
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| starts(line)) {
        let closing = format!("{}}}", " ".repeat(indent(line)));
        let rest = lines[number..]
            .iter()
            .position(|line| *line == closing || line.ends_with(';') && indent(line) == closing.len() - 1);
        found.push((number + 1, rest.map_or(1, |rest| rest + 1)));
    }
    found
}

#[test]
fn files_and_functions_are_short_and_files_say_what_they_are_for() {
    let mut wrong = Vec::new();
    for path in files(&root(), &["rs"]) {
        let text = read(&path);
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let length = text.lines().count();
        if length > 500 {
            wrong.push(format!("{name}: {length} lines, at most 500"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{name}: does not open with `//!`"));
        }
        let long = functions(&text).into_iter().filter(|(_, length)| *length > 70);
        wrong.extend(long.map(|(line, length)| format!("{name}:{line}: a function of {length} lines, at most 70")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(70));
    assert_eq!(functions(&long), [(1, 72)], "the check can fail");
}

/// Words in backticks that look like a path of this repository.
fn paths(text: &str) -> Vec<&str> {
    let folders = ["corpus/", "reference/", "gpu/", "harness/", "docs/", ".ci/", ".config/"];
    let plain = |word: &&str| !word.contains([' ', '*', '{', '<', '…', '$', ':']) && !word.contains("...");
    let quoted = text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
    quoted.filter(|word| folders.iter().any(|folder| word.starts_with(folder))).filter(plain).collect()
}

#[test]
fn every_path_that_a_document_names_exists() {
    assert_eq!(paths("see `docs/a.md` and `gpu/*.cu` and `x`"), ["docs/a.md"], "the check can fail");
    // Written when something is found.
    let made_later = ["corpus/bugs"];
    let mut wrong = Vec::new();
    for path in files(&root(), &["md"]) {
        let text = read(&path);
        let missing = paths(&text).into_iter().filter(|named| {
            !made_later.iter().any(|folder| named.starts_with(folder))
                && !root().join(named).exists()
                && !path.parent().unwrap().join(named).exists()
        });
        wrong.extend(missing.map(|named| format!("{}: `{named}`", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_names_the_machine_that_it_was_written_on() {
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("../sha", "red")];
    let mut wrong = Vec::new();
    for path in files(&root(), &["rs", "toml", "md", "cu", "cuh", "py", "snap", "json"]) {
        let text = read(&path);
        let named = words.iter().filter(|word| text.contains(**word));
        wrong.extend(named.map(|word| format!("{}: {word}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_snapshot_is_of_a_group_of_the_corpus() {
    let snapshots = files(&root().join("corpus/snapshots"), &["snap"]);
    let names: BTreeSet<String> =
        snapshots.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let groups: BTreeSet<String> =
        nsa_corpus::entries().iter().map(|entry| entry.name.split('/').next().unwrap().to_owned()).collect();
    assert_eq!(names, groups, "left: files, right: groups of entries");
}

#[test]
fn every_data_file_is_embedded() {
    let embedded = read(&root().join("corpus/src/embedded.rs"));
    for (folder, ending) in [("cases", "toml"), ("golden", "safetensors"), ("activations", "safetensors")] {
        for path in files(&root().join("corpus").join(folder), &[ending]) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let listed =
                embedded.contains(&name) || embedded.contains(name.strip_suffix(&format!(".{ending}")).unwrap());
            assert!(listed, "corpus/{folder}/{name} is not in corpus/src/embedded.rs");
        }
    }
}
