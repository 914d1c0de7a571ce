//! Style that matters is a test: dependency arrows, licences, where `unsafe` stands, lengths, documented paths, snapshots.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{read, root};

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Of this platform's dependencies: those of others were never downloaded on a machine that builds for this one alone.
fn metadata() -> Value {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--offline", "--filter-platform", host]))
        .unwrap()
}

/// Files below `folder` whose names end in `ending`, generated folders left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let generated = ["target", ".git", ".cuda", ".python", ".scratch"].contains(&name.as_str());
        if path.is_dir() && !generated && path != root().join("shared") {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn crates_depend_on_each_other_in_one_direction() {
    let metadata = metadata();
    let of = |name: &str| -> BTreeSet<String> {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let names = dependencies.map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("nsa-")).collect()
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(of("nsa-corpus"), set(&[]));
    assert_eq!(of("nsa-reference"), set(&["nsa-corpus"]));
    assert_eq!(of("nsa-gpu"), set(&["nsa-corpus"]));
    assert_eq!(of("nsa-harness"), set(&["nsa-corpus", "nsa-gpu", "nsa-reference"]));
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let deny = read(&root().join("deny.toml"));
    let allowed: BTreeSet<&str> =
        deny.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\",")).collect();
    assert!(allowed.contains("MIT"));
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none");
        // `A OR B` needs one of them, `A AND B` all; an old spelling separates by `/`.
        let plain = licence.replace('/', " OR ").replace(['(', ')'], "");
        let fits = plain.split(" AND ").all(|all| all.split(" OR ").any(|one| allowed.contains(one.trim())));
        assert!(fits || plain.split(" OR ").any(|one| allowed.contains(one.trim())), "{}: {licence}", package["name"]);
    }
}

#[test]
fn unsafe_stands_in_one_thin_folder() {
    let word = ["un", "safe"].concat();
    for path in files(&root(), ".rs") {
        let text = read(&path);
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let uses = code
            .filter(|line| {
                line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part == word)
            })
            .count();
        let driver = path.starts_with(root().join("gpu/src/driver"));
        assert!(uses == 0 || driver, "{}: {uses} uses", path.display());
    }
    for name in ["corpus", "reference", "harness"] {
        let text = read(&root().join(name).join("src/lib.rs"));
        assert!(text.contains("#![forbid(unsafe_code)]") || text.contains("#![deny(unsafe_code)]"), "{name}");
    }
}

#[test]
fn files_and_functions_stay_short() {
    for path in files(&root(), ".rs") {
        let text = read(&path);
        assert!(text.lines().count() <= 500, "{} has {} lines", path.display(), text.lines().count());
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
        let mut start = None;
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let indent = line.len() - code.len();
            let opens =
                ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn "].iter().any(|word| code.starts_with(word));
            if opens && start.is_none() {
                start = Some((number, indent));
            }
            if let Some((first, depth)) = start.filter(|(_, depth)| code.starts_with('}') && indent == *depth) {
                let _ = depth;
                assert!(number - first <= 70, "{}:{} has {} lines", path.display(), first + 1, number - first);
                start = None;
            }
            if start.is_some_and(|(first, _)| first == number) && (code.ends_with('}') || code.ends_with(';')) {
                start = None;
            }
        }
    }
}

#[test]
fn every_documented_path_exists() {
    let folders = ["corpus/", "reference/", "gpu/", "harness/", "docs/", ".ci/", ".config/"];
    let mut checked = 0;
    for document in files(&root(), ".md") {
        let text = read(&document);
        for word in text.split(['`', '(', ')', ' ', ',', '\n']) {
            let path = word.trim_end_matches(['.', ':', ';']);
            let made_later = path.starts_with("corpus/bugs/");
            if folders.iter().any(|folder| path.starts_with(folder)) && !path.contains(['*', '{', '<']) && !made_later {
                assert!(root().join(path).exists(), "{} speaks of {path}", document.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn the_glossary_defines_each_term_once_in_order_and_briefly() {
    let text = read(&root().join("docs/glossary.md"));
    let anchor = |title: &str| title.to_lowercase().replace(' ', "-");
    let sections: Vec<(&str, &str)> = text.split("\n### ").skip(1).map(|part| part.split_once('\n').unwrap()).collect();
    let titles: Vec<String> = sections.iter().map(|(title, _)| title.to_lowercase()).collect();
    assert!(titles.len() > 60 && titles.is_sorted_by(|one, next| one < next), "{titles:?}");
    for (title, definition) in &sections {
        // Formulas and names end no sentence.
        let sentences = definition.matches(". ").count() + definition.matches(".\n").count();
        let asides = definition.matches("(").count();
        assert!((1..=2 + asides).contains(&sentences), "{title}: {sentences} sentences");
        for link in definition.split("](#").skip(1) {
            let target = link.split(')').next().unwrap();
            assert!(titles.iter().any(|title| anchor(title) == target), "{title} links to #{target}");
        }
    }
}

#[test]
fn no_file_speaks_of_one_machine() {
    let words =
        [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["../sha", "red"].concat(), [".lib", "rary/"].concat()];
    for ending in [".rs", ".md", ".toml", ".cu", ".cuh", ".py"] {
        for path in files(&root(), ending) {
            let text = read(&path);
            let found = words.iter().find(|word| text.contains(word.as_str()));
            assert_eq!(found, None, "{}", path.display());
        }
    }
}
