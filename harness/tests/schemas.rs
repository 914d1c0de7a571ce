//! The JSON Schemas in `docs/schemas` are those of the types that the program writes.

use std::path::{Path, PathBuf};

use nsa_harness::document::schemas;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas")
}

/// Every file of the folder as it should be.
fn files() -> Vec<(PathBuf, String)> {
    let text = |schema| serde_json::to_string_pretty(&schema).expect("plain data") + "\n";
    schemas().into_iter().map(|(kind, schema)| (folder().join(format!("{kind}.json")), text(schema))).collect()
}

#[test]
fn the_schemas_in_the_documentation_are_current() {
    let how = "cargo test -p nsa-harness --test schemas -- --ignored writes them";
    let files = files();
    for (file, text) in &files {
        let there = std::fs::read_to_string(file).unwrap_or_default();
        assert!(there == *text, "{} is not current: {how}", file.display());
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().path();
        let known = files.iter().any(|(known, _)| known.file_name() == file.file_name());
        assert!(known, "{}: no document is of this kind", file.display());
    }
}

#[test]
#[ignore = "writes docs/schemas"]
fn write_the_schemas() {
    std::fs::create_dir_all(folder()).unwrap();
    files().into_iter().for_each(|(file, text)| std::fs::write(file, text).unwrap());
}
