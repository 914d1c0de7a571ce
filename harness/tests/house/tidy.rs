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

/// Words that another one replaced: `docs/glossary.md` defines that one.
const RETIRED: [(&str, &str); 14] = [
    ("backend", "candidate"),
    ("defect", "mutant"),
    ("mistake", "mutant"),
    ("fault", "mutation, perturbation"),
    ("faulty", "mutated"),
    ("planted", "mutated"),
    ("genre", "category"),
    ("tightness", "budget use"),
    ("excerpt", "sample"),
    ("unbounded", "excluded, not judged"),
    ("covers", "features"),
    ("needs", "required features"),
    ("apart", "far, excluded"),
    ("place", "extent, slot, position"),
];
/// Of these, the ones that are everyday words too: the name of a test, which is a sentence, may hold them.
const EVERYDAY: [&str; 4] = ["covers", "needs", "apart", "place"];
/// A name of more words than this is a sentence.
const WORDS_OF_A_NAME: usize = 4;

/// The identifiers of a Rust file, each with the number of its line: none of those in its comments and strings.
fn identifiers(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut rest, mut line) = (Vec::new(), text, 1);
    while let Some(letter) = rest.chars().next() {
        let name = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let hashes = rest.get(1..).map_or(0, |rest| rest.len() - rest.trim_start_matches('#').len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if letter == 'r' && rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            rest[2 + hashes..].find(&end).map_or(rest.len(), |at| 2 + hashes + at + end.len())
        } else if letter == '"' {
            let mut escaped = false;
            let closes = |(_, letter): &(usize, char)| {
                let closes = *letter == '"' && !escaped;
                escaped = *letter == '\\' && !escaped;
                closes
            };
            rest[1..].char_indices().find(closes).map_or(rest.len(), |(at, _)| at + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            3
        } else if name > 0 {
            found.push((line, rest[..name].to_owned()));
            name
        } else {
            letter.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The words of an identifier, in lower case: `judgeExcerpt_of` has three.
fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for letter in identifier.chars() {
        if letter == '_' || (letter.is_ascii_uppercase() && lower) {
            words.push(String::new());
        }
        lower = letter.is_ascii_lowercase();
        if letter != '_' {
            words.last_mut().unwrap().push(letter.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The retired word in an identifier, and what replaced it.
fn retired(identifier: &str) -> Option<(&'static str, &'static str)> {
    let words = words(identifier);
    let is = |word: &str, retired: &str| word == retired || word.strip_suffix('s') == Some(retired);
    RETIRED
        .into_iter()
        .filter(|(old, _)| words.len() <= WORDS_OF_A_NAME || !EVERYDAY.contains(old))
        .find(|(old, _)| words.iter().any(|word| is(word, old)))
}

#[test]
fn a_word_that_was_replaced_stands_in_no_identifier() {
    let code = "let a_b = c(\"place \\\" //\", '\"', r#\"a\" b\"#);\n // place\nd";
    let names = identifiers(code).into_iter().filter(|(_, name)| name != "let");
    assert_eq!(names.map(|(line, name)| format!("{line} {name}")).collect::<Vec<_>>(), ["1 a_b", "1 c", "3 d"]);
    assert_eq!(retired("judgeExcerpts_of").unwrap().0, "excerpt");
    assert_eq!(retired("PLACES").unwrap().0, "place");
    assert_eq!([retired("default"), retired("replaced"), retired("what_a_long_name_needs")], [None; 3]);
    let mut found = Vec::new();
    for path in files(&root(), ".rs") {
        for (line, name) in identifiers(&read(&path)) {
            let said =
                retired(&name).map(|(old, new)| format!("{}:{line}: `{name}`: say {new}, not {old}", path.display()));
            found.extend(said);
        }
    }
    assert!(found.is_empty(), "{} names:\n{}", found.len(), found.join("\n"));
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
