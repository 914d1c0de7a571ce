//! What a GPU answered, judged again without one. A kernel, an entry or a record that has changed since fails here.

use std::path::PathBuf;

use nsa_harness::records::check;

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
    let record = records().remove(0);
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("record.json");
    let tensors = std::fs::read(record.with_extension("safetensors")).unwrap();
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&copy, &text).unwrap();
    std::fs::write(copy.with_extension("safetensors"), &tensors).unwrap();
    assert!(check(&copy).unwrap().1.is_empty());

    let mut changed = tensors.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(copy.with_extension("safetensors"), changed).unwrap();
    assert!(!check(&copy).unwrap().1.is_empty(), "a byte of the tensors");

    std::fs::write(copy.with_extension("safetensors"), &tensors).unwrap();
    std::fs::write(&copy, text.replacen("H100", "H200", 1)).unwrap();
    assert!(!check(&copy).unwrap().1.is_empty(), "a letter of the text");
}
