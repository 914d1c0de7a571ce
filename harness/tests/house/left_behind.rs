//! What of the corpus and the one folder with raw calls can be left behind unnoticed: data that no binary carries, a block
//! without its reason.

use std::path::{Path, PathBuf};

use crate::{read, root};

/// Files in `folder` of this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    found.sort();
    assert!(!found.is_empty(), "{} holds no .{ending}", folder.display());
    found
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let block = concat!("un", "safe {");
    for path in files(&root().join("gpu/src/driver"), "rs") {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(block)) {
            let above = &lines[number.saturating_sub(8)..number];
            assert!(above.iter().any(|line| line.contains("SAFETY:")), "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn every_data_file_is_embedded() {
    let embedded = read(&root().join("corpus/src/embedded.rs"));
    for (folder, ending) in [("cases", "toml"), ("golden", "safetensors"), ("activations", "safetensors")] {
        for path in files(&root().join("corpus").join(folder), ending) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let listed =
                embedded.contains(&name) || embedded.contains(name.strip_suffix(&format!(".{ending}")).unwrap());
            assert!(listed, "corpus/{folder}/{name} is not in corpus/src/embedded.rs");
        }
    }
}
