//! What a GPU answered, judged again without one. A kernel, an entry or a record that has changed since fails here.

use std::path::PathBuf;

use nsa_harness::campaign::records::{check, open};

fn records() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus/records");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut records: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect();
    records.sort();
    records
}

#[test]
fn the_stored_answers_of_a_gpu_still_pass_and_are_of_these_kernels() {
    let (mut judged, mut wrong) = (0, Vec::new());
    for record in records() {
        let (again, problems) = check(&record).unwrap();
        judged += again;
        wrong.extend(problems);
    }
    assert!(wrong.is_empty(), "{} problems; record again on a GPU: nsa-diff record\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(records().len(), 5, "plain in three formats, tensor in two");
    assert!(judged > 300, "{judged} stored answers judged again");
}

#[test]
fn one_changed_byte_of_a_record_is_seen() {
    for record in records() {
        let text = std::fs::read(&record).unwrap();
        let tensors = std::fs::read(record.with_extension("safetensors")).unwrap();
        let intact =
            |text: &[u8], tensors: &[u8]| std::str::from_utf8(text).is_ok_and(|text| open(text, tensors).is_ok());
        assert!(intact(&text, &tensors));
        // Places that share no factor with anything: keys, digits, blanks and line ends all come up.
        for position in (0..text.len()).step_by((text.len() / 40) | 1).chain([text.len() - 1]) {
            let mut changed = text.clone();
            changed[position] ^= 1;
            assert!(!intact(&changed, &tensors), "{}: byte {position}", record.display());
        }
        for position in (0..tensors.len()).step_by((tensors.len() / 10) | 1).chain([tensors.len() - 1]) {
            let mut changed = tensors.clone();
            changed[position] ^= 1;
            assert!(!intact(&text, &changed), "{}: byte {position} of the tensors", record.display());
        }
        assert!(!intact(&[text.as_slice(), b" "].concat(), &tensors));
    }
}

#[test]
fn a_changed_record_fails_the_check() {
    let record = records().remove(0);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("record.json");
    std::fs::copy(record.with_extension("safetensors"), copy.with_extension("safetensors")).unwrap();
    std::fs::write(&copy, std::fs::read_to_string(&record).unwrap().replacen("H200", "H100", 1)).unwrap();
    let (judged, wrong) = check(&copy).unwrap();
    assert_eq!((judged, wrong.len()), (0, 1), "{wrong:?}");
}

#[test]
fn records_are_small() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus/records");
    let bytes: u64 = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 4_000_000, "{bytes} bytes");
}
