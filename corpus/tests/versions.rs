//! Files of version 1 are read as if they had been written today.

use std::path::{Path, PathBuf};

use nsa_corpus::{Bundle, Dtype, GoldenCase, TensorFile, entries, parse_entries, version};

/// An entry as version 1 wrote it.
const OLD: &str = r#"
[notes]
hard = "Hard."

[[entry]]
name = "mine/window_of_one"
why = "Each query sees two keys."
flags = ["hard"]
elements = ["f16", "bf16"]
exact = ["out"]

[entry.case]
seq_len = 9
dim = 4
block_size = 4
num_sel = 1
sliding_window = 1
seed = 3
q = { kind = "normal", scale = 2.0 }
"#;

fn below_the_corpus(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    files
}

#[test]
fn an_entry_of_version_1_is_the_entry_that_version_2_writes() {
    let old = parse_entries(OLD).unwrap();
    assert_eq!(old[0].dtypes, [Dtype::F16, Dtype::Bf16]);
    let text = old[0].to_toml();
    assert!(text.starts_with("format = 2\n") && text.contains("dtypes = ") && !text.contains("elements"), "{text}");
    assert_eq!(parse_entries(&text).unwrap(), old);
    assert_eq!(parse_entries(&format!("format = 1\n{OLD}")).unwrap(), old);
    // The digest of a case is of its own words, which no version changed.
    assert_eq!(old[0].case.id(), "678ef3dd8fc4");
}

#[test]
fn words_of_version_1_are_read_in_version_1_alone() {
    let refused = |text: &str| parse_entries(text).unwrap_err().to_string();
    let new = refused(&format!("format = 2\n{OLD}"));
    assert!(new.contains("mine/window_of_one") && new.contains("`elements`"), "{new}");
    let both = refused(&OLD.replace("exact =", "dtypes = ['f32']\nexact ="));
    assert!(both.contains("line 9") && both.contains("`elements` is what format 1 calls `dtypes`"), "{both}");
    for (said, found) in [("3", "`3`"), ("0", "`0`"), ("'2'", "`string`"), ("99999999999999999999", "9999")] {
        let refusal = refused(&format!("format = {said}\n{OLD}"));
        assert!(refusal.contains(found) && refusal.contains("the formats 1 to 2 are read"), "{refusal}");
    }
}

#[test]
fn every_stored_failure_of_version_1_is_read_and_written_again_in_version_2() {
    let (mut old, mut noted) = (0, 0);
    for path in below_the_corpus("bugs") {
        let file = TensorFile::read(&path).unwrap();
        let bundle = Bundle::read(&path).unwrap();
        if file.metadata("format").is_none() {
            old += 1;
            assert_eq!(file.metadata("element"), Some(bundle.dtype.name()), "{}", path.display());
            assert!(file.metadata("entry").unwrap().contains("\nelements = ["), "{}", path.display());
            noted += usize::from(file.metadata("note.report").is_some());
        }
        let written = TensorFile::parse(bundle.to_bytes()).unwrap();
        assert_eq!((written.metadata("format"), written.metadata("element")), (Some("2"), None));
        let again = Bundle::parse(bundle.to_bytes()).unwrap();
        assert_eq!((again.to_bytes(), again.dtype, &again.notes), (bundle.to_bytes(), bundle.dtype, &bundle.notes));
    }
    assert!(old >= 19 && noted >= 16, "{old} of version 1, {noted} with a report");
}

#[test]
fn what_a_failure_of_version_1_needs_is_read_under_its_name_of_today() {
    let case = parse_entries(OLD).unwrap().remove(0);
    let mut bundle = Bundle::new(case, Dtype::F16, None).unwrap();
    bundle.notes.insert("required_features".to_owned(), r#"["sliding"]"#.to_owned());
    let changed = |changes: &[(&str, &str)]| {
        let bytes = bundle.to_bytes();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut text = std::str::from_utf8(&bytes[8..8 + length]).unwrap().to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} in {text}");
            text = text.replace(from, to);
        }
        Bundle::parse([&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[8 + length..]].concat())
    };
    let version_1 = ("\"format\":\"2\",", "");
    let (element, features) =
        (("\"dtype\":\"f16\"", "\"element\":\"f16\""), ("\"note.required_features\"", "\"note.needs\""));
    assert_eq!(changed(&[version_1, element, features]).unwrap(), bundle);
    assert!(changed(&[element]).unwrap_err().to_string().contains("has no `dtype`"), "no word of version 2");
    assert!(!changed(&[features]).unwrap().notes.contains_key("required_features"), "no word of version 2");
    let both = changed(&[("\"format\":\"2\"", "\"note.needs\":\"[]\"")]).unwrap_err().to_string();
    assert!(both.contains("`note.needs` is what format 1 calls `note.required_features`"), "{both}");
}

#[test]
fn the_embedded_entries_are_found_under_their_names_of_version_1() {
    let named: Vec<&str> = entries().iter().map(|entry| entry.name.as_str()).collect();
    let renamed: Vec<&&str> = named.iter().filter(|name| version::entry_name_in_version_1(name) != **name).collect();
    assert_eq!(renamed.len(), named.iter().filter(|name| name.starts_with("upstream/")).count());
    for name in renamed {
        let old = version::entry_name_in_version_1(name);
        assert!(old.starts_with("seed/") && !named.contains(&old), "{old}");
        assert_eq!(version::entry_name(old), *name);
    }
}

#[test]
fn golden_answers_and_activations_have_the_one_form_that_they_always_had() {
    let golden = below_the_corpus("golden");
    golden.iter().for_each(|path| drop(GoldenCase::read(path).unwrap()));
    let activations = below_the_corpus("activations");
    activations.iter().for_each(|path| drop(TensorFile::read(path).unwrap()));
    assert!(golden.len() >= 30 && activations.len() >= 2);
}
