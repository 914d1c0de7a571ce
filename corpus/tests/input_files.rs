//! Files of inputs that lack something, contradict themselves or say what nobody reads: each is refused, by name. What other
//! programs write in good faith is taken.

use ndarray::{Array3, Array4};
use nsa_corpus::{Case, Dtype, Error, GoldenCase, InputParts, Inputs, Selection, TensorFile, TensorFileBuilder};

/// A small file of inputs: batch 1, 2 query heads and 1 kv head, 6 tokens, 3 features, 2 slots.
fn file_of(metadata: &[(&str, &str)], change: impl FnOnce(&mut TensorFileBuilder)) -> Result<GoldenCase, Error> {
    let four = |shape: [usize; 4]| Array4::<f64>::from_elem(shape, 0.5);
    let mut file = TensorFileBuilder::new();
    file.float("q", Dtype::F32, &four([1, 2, 6, 3])).float("k", Dtype::F32, &four([1, 1, 6, 3]));
    file.float("v", Dtype::F32, &four([1, 1, 6, 3])).whole("indices", &Array4::zeros([1, 1, 6, 2]));
    file.truth("mask", &Array4::from_elem([1, 1, 6, 2], true));
    for (key, value) in metadata {
        file.metadata(key, *value);
    }
    change(&mut file);
    GoldenCase::from_file("some", &TensorFile::parse(file.to_bytes()).unwrap())
}

const PLAIN: [(&str, &str); 1] = [("block_size", "4")];

/// The refusal of a plain file with one more line of metadata, or another `block_size`.
fn plain_refused(key: &str, value: &str) -> String {
    file_of(&[PLAIN[0], (key, value)], |_| {}).unwrap_err().to_string()
}

/// What becomes of a file with this `config`.
fn config(text: &str) -> Result<GoldenCase, Error> {
    file_of(&[("config", text)], |_| {})
}

fn config_refused(fields: &str) -> String {
    config(&format!("{{\"block_size\": 4, {fields}}}")).unwrap_err().to_string()
}

#[test]
fn what_the_header_lacks_or_has_wrong_is_named() {
    assert!(file_of(&PLAIN, |_| {}).is_ok());
    assert_eq!(plain_refused("block_size", "many"), "metadata `block_size` is \"many\"");
    assert_eq!(plain_refused("block_size", "-3"), "metadata `block_size` is \"-3\"");
    assert_eq!(plain_refused("block_size", "0"), "block_size is 0; only num_sel may be");
    let neither = "the header's metadata has neither `config` nor `block_size`";
    assert_eq!(file_of(&[], |_| {}).unwrap_err().to_string(), neither);
    assert_eq!(config("{}").unwrap_err().to_string(), neither);
    for broken in ["{", "[4]", &"[".repeat(100_000)] {
        let refused = config(broken).unwrap_err().to_string();
        assert!(refused.starts_with("the header's `config` is no readable JSON"), "{refused}");
    }
    let number = |value: &str| config(&format!("{{\"block_size\": {value}}}")).unwrap_err().to_string();
    assert_eq!(number("1.5"), "config `block_size` is 1.5, expected a whole number");
    assert_eq!(number("18446744073709551615"), "config `block_size` is 18446744073709551615, expected a whole number");
    assert!(
        config("{\"block_size\": 4, \"block_size\": 8}").unwrap_err().to_string().contains("`block_size` stands twice")
    );
}

#[test]
fn metadata_that_nobody_reads_are_refused_by_name() {
    for (key, value) in [("scale", "0.1"), ("softcap", "30"), ("Block_size", "8"), ("sliding_window_size", "3")] {
        let refused = plain_refused(key, value);
        assert!(refused.starts_with(&format!("metadata `{key}` is unknown beside block_size, ")), "{refused}");
        assert_eq!(
            config_refused(&format!("\"{}\": {value}", key.replace("_size", ""))),
            format!("config `{}` is unknown: it would have no effect", key.replace("_size", ""))
        );
    }
    let both = file_of(&[("block_size", "4"), ("config", "{\"block_size\": 4}")], |_| {}).unwrap_err().to_string();
    assert_eq!(both, "metadata `block_size` is unknown beside config: it would have no effect");
    for key in ["source", "note", "format"] {
        assert!(file_of(&[PLAIN[0], (key, "a description")], |_| {}).is_ok());
    }
    assert!(config("{\"block_size\": 4, \"note\": \"a description\", \"value_dim\": null}").is_ok());
}

#[test]
fn what_the_header_claims_of_the_tensors_must_be_so() {
    let sizes = [
        ("batch", 1),
        ("q_heads", 2),
        ("kv_heads", 1),
        ("sel_heads", 1),
        ("seq_len", 6),
        ("dim", 3),
        ("value_dim", 3),
        ("num_sel", 2),
    ];
    for (key, size) in sizes {
        assert!(config(&format!("{{\"block_size\": 4, \"{key}\": {size}}}")).is_ok(), "{key}");
        let refused = config_refused(&format!("\"{key}\": {}", size + 1));
        assert_eq!(refused, format!("config `{key}` is {}, the tensors have {size}", size + 1));
    }
    assert_eq!(config_refused("\"dtype\": \"bf16\""), "config `dtype` is bf16, the tensors have f32");
    assert_eq!(config_refused("\"dtype\": \"fp8\""), "config `dtype` is \"fp8\", expected f64, f32, f16 or bf16");
    assert_eq!(config_refused("\"has_d_lse\": true"), "config `has_d_lse` is true, the tensors have no `d_lse`");
    assert!(config("{\"block_size\": 4, \"dtype\": \"f32\", \"has_d_lse\": false}").is_ok());
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let refused =
        |change: &dyn Fn(&mut TensorFileBuilder)| file_of(&PLAIN, |file| change(file)).unwrap_err().to_string();
    let four = |shape: [usize; 4]| Array4::<f64>::zeros(shape);
    type Change<'c> = &'c dyn Fn(&mut TensorFileBuilder);
    let cases: [(&str, Change<'_>); 8] = [
        ("tensor `indices` is F32, expected I64 or I32", &|f| {
            f.float("indices", Dtype::F32, &four([1, 1, 6, 2]));
        }),
        ("tensor `q` has 1 axes, expected 4", &|f| {
            f.float("q", Dtype::F32, &ndarray::Array1::zeros(3));
        }),
        ("v has shape [1, 1, 5, 3], expected [1, 1, 6, 3]", &|f| {
            f.float("v", Dtype::F32, &four([1, 1, 5, 3]));
        }),
        ("out has shape [1, 2, 6, 4], expected [1, 2, 6, 3]", &|f| {
            f.float("out", Dtype::F32, &four([1, 2, 6, 4]));
        }),
        ("k: bf16, q: f32; expected the same", &|f| {
            f.float("k", Dtype::Bf16, &four([1, 1, 6, 3]));
        }),
        ("v: f64, q: f32; expected the same", &|f| {
            f.float("v", Dtype::F64, &four([1, 1, 6, 3]));
        }),
        ("tensor `q` holds no floating-point numbers", &|f| {
            f.whole("q", &Array4::zeros([1, 2, 6, 3]));
        }),
        ("tensor `sinks` has no meaning in this file", &|f| {
            f.float("sinks", Dtype::F32, &ndarray::Array1::zeros(2));
        }),
    ];
    for (message, change) in cases {
        assert_eq!(refused(change), message);
    }
}

#[test]
fn a_block_size_that_no_memory_holds_is_refused_before_a_tensor_is_read() {
    // Found by attack: 10^17 keys in a block asked for 3.2 EB.
    for size in ["100000000000000000", "268435457", "9223372036854775807"] {
        for refused in
            [plain_refused("block_size", size), config(&format!("{{\"block_size\": {size}}}")).unwrap_err().to_string()]
        {
            assert!(
                refused.contains(&format!("block_size {size}")) && refused.contains("numbers, more than"),
                "{refused}"
            );
        }
    }
}

#[test]
fn what_is_not_of_the_format_of_q_is_taken_in_the_widest() {
    let scale = Array4::from_elem([1, 1, 6, 2], 0.1);
    let lse = Array3::from_elem([1, 2, 6], 0.1);
    let dtype = |changed: Dtype| {
        let case = file_of(&PLAIN, |file| {
            file.float("sel_scale", changed, &scale).float("d_lse", Dtype::F16, &lse);
        });
        case.unwrap().inputs.dtype()
    };
    assert_eq!([dtype(Dtype::F64), dtype(Dtype::Bf16)], [Dtype::F64, Dtype::F32]);
}

/// The parts of a file whose first slot is masked and holds `index`, and whose second is live.
fn with_masked(index: i64, live: i64) -> Result<GoldenCase, Error> {
    file_of(&PLAIN, |file| {
        file.whole("indices", &Array4::from_shape_fn([1, 1, 6, 2], |(.., slot)| [index, live][slot]));
        file.truth("mask", &Array4::from_shape_fn([1, 1, 6, 2], |(.., slot)| slot == 1));
    })
}

#[test]
fn a_masked_slot_may_hold_any_index_and_a_live_one_may_not() {
    for index in [-1, 2, i64::MIN, i64::MAX] {
        let inputs = with_masked(index, 1).unwrap().inputs;
        assert_eq!(inputs, with_masked(0, 1).unwrap().inputs);
        let refused = with_masked(0, index).unwrap_err().to_string();
        assert_eq!(refused, format!("indices[0, 0, 0, 1] is {index}, outside the 2 blocks 0..2"));
    }
    // One that names a block stays as it is.
    assert_eq!(with_masked(1, 0).unwrap().inputs.indices()[[0, 0, 0, 0]], 1);
}

#[test]
fn a_masked_slot_of_a_given_selection_may_hold_any_index() {
    let inputs = with_masked(0, 1).unwrap().inputs;
    let given = Case::from_inputs(&inputs);
    let folder = tempfile::tempdir().unwrap();
    let mut file = TensorFileBuilder::new();
    file.whole("indices", &inputs.indices().mapv(i64::from).mapv(|block| if block == 0 { -1 } else { block }));
    file.write(folder.path().join("slots.safetensors")).unwrap();
    let entry = "[[entry]]\nname = \"a\"\nwhy = \"w\"\n[entry.case]\nq_heads = 2\nseq_len = 6\ndim = 3\nblock_size = 4\nnum_sel = 2\n\
                 selection = { kind = \"given\", file = \"slots.safetensors\", tensor = \"indices\" }\n";
    let read = |mask: &str| {
        std::fs::write(folder.path().join("a.toml"), format!("{entry}{mask}")).unwrap();
        nsa_corpus::read_entries(folder.path().join("a.toml")).unwrap().remove(0).case
    };
    let case = Case {
        q: given.q.clone(),
        k: given.k.clone(),
        v: given.v.clone(),
        ..read("mask = { kind = \"one\", slot = 1 }")
    };
    let case = Case { d_out: None, ..case };
    assert_eq!(case.materialize(Dtype::F32).unwrap(), inputs);
    let refused = read("").materialize(Dtype::F32).unwrap_err().to_string();
    assert!(refused.contains("indices[0, 0, 0, 0] is -1, outside the 2 blocks"), "{refused}");
    // What shrinks from it is valid, whatever becomes of the mask.
    let shrunk: Vec<Case> = case.shrinks_of(0).collect();
    assert!(!shrunk.is_empty() && shrunk.iter().all(|case| case.materialize(Dtype::F32).is_ok()));
    assert!(matches!(&case.selection, Selection::Given(_)));
}

#[test]
fn inputs_themselves_hold_valid_indices_alone() {
    let parts = with_masked(0, 1).unwrap().inputs.into_parts();
    let mut indices = parts.indices.clone();
    indices[[0, 0, 0, 0]] = -1;
    let refused = Inputs::new(InputParts { indices, ..parts }).unwrap_err().to_string();
    assert_eq!(refused, "indices[0, 0, 0, 0] is -1, outside the 2 blocks 0..2");
}
