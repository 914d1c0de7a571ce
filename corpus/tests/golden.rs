//! Golden files, plain files of inputs, and stored failures: read, written, read again.

use std::path::Path;

use nsa_corpus::{Bundle, Case, Dtype, Entry, Field, GoldenCase, Outputs, TensorFile, entries, golden};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn entry(name: &str) -> &'static Entry {
    entries().iter().find(|entry| entry.name == name).unwrap()
}

/// Outputs of the right shapes, which nobody computed.
fn some_outputs(case: &Case, dtype: Dtype) -> Outputs {
    Outputs::filled(&case.materialize(dtype).unwrap(), 0.1)
}

#[test]
fn the_golden_folder_is_embedded_whole_and_has_the_digests_of_its_index() {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder().join("golden/index.json")).unwrap()).unwrap();
    let cases = index["cases"].as_array().unwrap();
    let embedded = golden::embedded();
    assert_eq!(embedded.len(), cases.len());
    let listed = std::fs::read_dir(folder().join("golden")).unwrap();
    let ending = |file: &std::fs::DirEntry| file.path().extension().is_some_and(|ending| ending == "safetensors");
    assert_eq!(listed.filter(|file| ending(file.as_ref().unwrap())).count(), cases.len());
    for case in cases {
        let file = case["file"].as_str().unwrap();
        let bytes = std::fs::read(folder().join("golden").join(file)).unwrap();
        let digest = nsa_corpus::digest::bytes(&bytes);
        assert_eq!(digest, case["sha256"].as_str().unwrap(), "{file}");
        let golden = embedded.iter().find(|golden| golden.config == case["config"]).unwrap();
        assert_eq!(format!("{}.safetensors", golden.name), file);
        for field in Field::ALL {
            let stored = case["tensors"].get(field.name()).is_some();
            assert_eq!(golden.outputs.get(field).is_some(), stored, "{file} {field}");
            assert!(!stored || field.asked_by(&golden.inputs), "{file} {field}: an answer to nothing asked");
        }
        assert_eq!(golden.inputs.dtype().name(), golden.config["dtype"]);
        assert_eq!(golden.inputs.shape().num_sel() as u64, golden.config["num_sel"].as_u64().unwrap());
    }
}

#[test]
fn a_golden_case_reads_back_as_it_was_written_and_gives_the_same_bytes() {
    for golden in golden::embedded() {
        let bytes = golden.to_bytes();
        let read = GoldenCase::from_file(&golden.name, &TensorFile::parse(bytes.clone()).unwrap()).unwrap();
        assert_eq!((&read.inputs, &read.outputs, &read.config), (&golden.inputs, &golden.outputs, &golden.config));
        assert_eq!(read.to_bytes(), bytes);
    }
}

#[test]
fn every_entry_survives_the_golden_format_in_every_dtype() {
    for entry in entries().iter().filter(|entry| entry.case.sizes.seq_len < 50 && !entry.name.starts_with("non_finite"))
    {
        for dtype in Dtype::ALL {
            let inputs = entry.case.materialize(dtype).unwrap();
            let golden = GoldenCase::new("some", inputs, some_outputs(&entry.case, dtype));
            let read = GoldenCase::from_file("some", &TensorFile::parse(golden.to_bytes()).unwrap()).unwrap();
            assert_eq!((&read.inputs, &read.outputs), (&golden.inputs, &golden.outputs), "{}", entry.name);
        }
    }
}

#[test]
fn the_plain_form_needs_a_block_size_and_no_config() {
    let read = GoldenCase::read(folder().join("activations/minilm_layer3.safetensors")).unwrap();
    assert_eq!((read.inputs.shape().block_size(), read.inputs.shape().groups()), (32, 4));
    assert!(!read.inputs.cotangents().any() && read.inputs.sliding_window().is_none());
    assert_eq!(read.outputs, Outputs::new());
    let other = GoldenCase::read_with(folder().join("activations/minilm_layer3.safetensors"), |options| {
        options.block_size = Some(16);
        options.sliding_window = Some(5);
        options.include_block_causal = false;
    });
    let inputs = other.unwrap().inputs;
    assert_eq!(
        (inputs.shape().block_size(), inputs.sliding_window(), inputs.include_block_causal()),
        (16, Some(5), false)
    );
}

#[test]
fn a_stored_failure_holds_values_and_needs_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["edges/seq_ragged", "non_finite/nan_key", "cotangents/none", "selection/num_sel_0_with_sel_scale"] {
        let entry = entry(name).clone();
        for dtype in Dtype::ALL {
            let mut bundle = Bundle::new(entry.clone(), dtype, Some(some_outputs(&entry.case, dtype))).unwrap();
            bundle.notes.insert("environment".to_owned(), "{\"threads\": 2}".to_owned());
            let path = folder.path().join("found.safetensors");
            bundle.write(&path).unwrap();
            let read = Bundle::read(&path).unwrap();
            assert_eq!(nsa_corpus::digest::inputs(&read.inputs), nsa_corpus::digest::inputs(&bundle.inputs));
            assert_eq!((&read.outputs, &read.notes, read.dtype), (&bundle.outputs, &bundle.notes, dtype));
            assert_eq!(read.entry, bundle.entry);
            assert_eq!((&read.entry.why, &read.entry.flags), (&entry.why, &entry.flags));
            assert_eq!(read.to_bytes(), std::fs::read(&path).unwrap());
            assert!(!read.entry.to_toml().contains("\"normal\""), "a seed is left: {}", read.entry.to_toml());
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left");
}

#[test]
fn a_stored_failure_whose_tensors_were_changed_is_refused() {
    let bundle = Bundle::new(entry("edges/seq_block").clone(), Dtype::F32, None).unwrap();
    let mut bytes = bundle.to_bytes();
    assert!(Bundle::parse(bytes.clone()).is_ok());
    // The last bytes are the mask's, one a value.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let refused = Bundle::parse(bytes).unwrap_err().to_string();
    assert!(refused.contains("tensor `mask` has SHA-256"), "{refused}");
}

#[test]
fn a_stored_failure_says_nothing_that_is_not_read() {
    let bundle = Bundle::new(entry("edges/seq_block").clone(), Dtype::F32, None).unwrap();
    // Each change keeps the header's length: what stands behind it does not move.
    let changed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let text = bundle.to_bytes();
        let at = text.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = text.clone();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        Bundle::parse(bytes).unwrap_err().to_string()
    };
    assert_eq!(changed(r#""dtype":"f32""#, r#""dtype":"f64""#), "tensor `q` is f32, metadata `dtype` is f64");
    assert_eq!(changed(r#""dtype":"f32""#, r#""sinks":"f32""#), MISSING);
    assert_eq!(changed(r#""format":"2""#, r#""format":"3""#), "is in format `3`; the formats 1 to 2 are read");
    assert_eq!(changed(r#""d_out":{"#, r#""sinks":{"#), "tensor `sinks` has no meaning in this file");
    let given = bundle.entry.to_toml().lines().find(|line| line.starts_with("q = ")).unwrap().replace('"', "\\\"");
    let drawn = format!("{:<width$}", "q = { kind = \\\"normal\\\" }", width = given.len());
    assert_eq!(changed(&given, &drawn), "metadata `entry`: q is not one of the file's own tensors");
}

const MISSING: &str = "the header's metadata has no `dtype`: no stored failure";
