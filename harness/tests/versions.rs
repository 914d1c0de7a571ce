//! Stored failures and records of version 1 say today what they said when they were written.

use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, TensorFile, entries};
use nsa_harness::campaign::records;
use nsa_harness::campaign::store::stored_report;
use serde_json::Value;

fn below_the_corpus(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == ending));
    files.sort();
    files
}

#[test]
fn every_report_of_version_1_in_a_stored_failure_is_read_whole() {
    let mut read = 0;
    for path in below_the_corpus("bugs", "safetensors") {
        let Some(text) = TensorFile::read(&path).unwrap().metadata("note.report").map(str::to_owned) else { continue };
        let old: Value = serde_json::from_str(&text).unwrap();
        if old.get("format").is_some() {
            continue;
        }
        let report = stored_report(&Bundle::read(&path).unwrap()).unwrap_or_else(|| panic!("{}", path.display()));
        assert_eq!(report.dtype.name(), old["element"], "{}", path.display());
        assert_eq!(Value::from(report.features.clone()), old["covers"], "{}", path.display());
        assert_eq!(report.comparisons.len(), old["comparisons"].as_array().unwrap().len());
        for (comparison, old) in report.comparisons.iter().zip(old["comparisons"].as_array().unwrap()) {
            assert_eq!(
                (comparison.field.name(), comparison.not_judged as u64),
                (old["field"].as_str().unwrap(), old["unbounded"].as_u64().unwrap())
            );
        }
        assert_eq!(report.verdict.word(), old["verdict"]);
        read += 1;
    }
    assert!(read >= 16, "{read} reports of version 1");
}

#[test]
fn every_record_of_version_1_is_opened_under_its_old_seal_and_names_entries_of_today() {
    let records = below_the_corpus("records", "json");
    for path in &records {
        let text = std::fs::read_to_string(path).unwrap();
        let tensors = std::fs::read(path.with_extension("safetensors")).unwrap();
        let old: Value = serde_json::from_str(&text).unwrap();
        let record = records::open(&text, &tensors).unwrap();
        assert_eq!(record.format, old["format"].as_u64().unwrap_or(1) as u32);
        if record.format == 1 {
            assert_eq!(record.dtype.name(), old["element"], "{}", path.display());
            assert!(old["cases"].get("seed/small").is_some() && record.cases.contains_key("upstream/small"));
        }
        assert_eq!(record.cases.len(), old["cases"].as_object().unwrap().len());
        let known = |name: &String| entries().iter().any(|entry| entry.name == *name);
        assert_eq!(record.cases.keys().find(|name| !known(name)), None, "{}", path.display());
        // The version is under the seal: a record of version 1 cannot be passed off as another.
        let claimed = text.replacen("{\n", "{\n  \"format\": 2,\n", 1);
        assert!(records::open(&claimed, &tensors).unwrap_err().contains("the seal does not fit"));
    }
    assert_eq!(records.len(), 5);
}
