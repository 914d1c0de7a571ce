//! The embedded corpus: it can be read, it says why each case is there, and it covers what it claims to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nsa_corpus::{Case, Dtype, Entry, Expect, FEATURES, entries, read_entries};

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str, ending: &str) -> BTreeSet<String> {
    let listed = std::fs::read_dir(folder(name)).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    listed.filter(|file| file.ends_with(ending)).collect()
}

fn all() -> impl Iterator<Item = &'static Entry> {
    entries().iter()
}

#[test]
fn every_file_of_entries_is_embedded_and_named_as_its_group() {
    let groups: BTreeSet<String> =
        entries().iter().map(|entry| format!("{}.toml", entry.name.split('/').next().unwrap())).collect();
    assert_eq!(groups, files("cases", ".toml"));
    for file in files("cases", ".toml") {
        let group = file.trim_end_matches("toml").replace('.', "/");
        let read = read_entries(folder("cases").join(&file)).unwrap();
        let embedded: Vec<&Entry> = all().filter(|entry| entry.name.starts_with(&group)).collect();
        assert_eq!(
            read.iter().map(|entry| &entry.name).collect::<Vec<_>>(),
            embedded.iter().map(|e| &e.name).collect::<Vec<_>>()
        );
        assert!(read.iter().zip(embedded).all(|(read, embedded)| read.case.id() == embedded.case.id()));
    }
}

#[test]
fn every_entry_materialises_in_every_format_it_names() {
    for entry in entries() {
        for &dtype in &entry.dtypes {
            let inputs = entry.case.materialize(dtype).unwrap_or_else(|error| panic!("{}: {error}", entry.name));
            assert_eq!(inputs.shape().sizes(), entry.case.sizes);
        }
    }
}

#[test]
fn names_and_cases_are_unique_and_every_entry_has_a_reason() {
    assert!(entries().len() >= 150, "{}", entries().len());
    let unique = |key: &dyn Fn(&Entry) -> String| entries().iter().map(key).collect::<BTreeSet<_>>().len();
    assert_eq!(unique(&|entry| entry.name.clone()), entries().len());
    assert_eq!(unique(&|entry| entry.case.id()), entries().len());
    assert!(entries().iter().all(|entry| entry.why.len() > 40 && entry.why.ends_with('.')));
}

/// Multiply-adds of one forward: what a case costs on a processor.
fn cost(case: &Case) -> usize {
    let sizes = case.sizes;
    let window = case.sliding_window.map_or(0, |window| (window + 1).min(sizes.seq_len));
    let keys = sizes.block_size * (sizes.num_sel + 1) + window;
    sizes.batch * sizes.q_heads * sizes.seq_len * keys * (sizes.dim + sizes.value_dim)
}

#[test]
fn almost_every_case_is_small() {
    let dear = entries().iter().filter(|entry| cost(&entry.case) > 2_500_000).count();
    assert!(8 * dear <= entries().len(), "{dear} of {}", entries().len());
}

#[test]
fn the_sizes_that_kernels_trip_over_are_covered() {
    let seen = |size: fn(&Case) -> usize| all().map(|entry| size(&entry.case)).collect::<BTreeSet<_>>();
    let has = |found: BTreeSet<usize>, wanted: &[usize]| {
        let missing: Vec<_> = wanted.iter().filter(|size| !found.contains(size)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    };
    has(seen(|case| case.sizes.block_size), &[1, 3, 5, 7, 12, 16, 32, 64, 256]);
    has(seen(|case| case.sizes.q_heads / case.sizes.kv_heads), &[1, 3, 4, 16, 32, 64]);
    has(seen(|case| case.sizes.dim), &[1, 7, 40, 64, 128, 192, 256]);
    has(seen(|case| case.sizes.num_sel), &[0, 1, 2, 3, 4, 5, 6, 16]);
    let pairs: BTreeSet<_> = all().map(|entry| (entry.case.sizes.dim, entry.case.sizes.value_dim)).collect();
    assert!([(192, 128), (16, 1), (8, 40)].iter().all(|pair| pairs.contains(pair)));
    let cotangents = |case: &Case| [case.d_out.is_some(), case.d_lse.is_some(), case.d_sliding.is_some()];
    let combinations: BTreeSet<_> = all().map(|entry| cotangents(&entry.case)).collect();
    assert_eq!(combinations.len(), 8, "{combinations:?}");
}

#[test]
fn every_feature_is_had_by_some_entry() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    all().flat_map(|entry| entry.case.features()).for_each(|tag| *seen.entry(tag).or_default() += 1);
    let wanted = FEATURES.iter().map(|feature| feature.name);
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), wanted.collect::<BTreeSet<_>>());
}

#[test]
fn every_reported_class_of_bugs_has_an_entry() {
    let sources: String = all().filter_map(|entry| entry.source.as_deref()).collect::<Vec<_>>().join("\n");
    for report in [
        "cudnn-frontend #384",
        "cudnn-frontend #676",
        "flashinfer PR #5090",
        "flash-attention #2623",
        "flash-attention #2424",
        "flash-attention #1817",
        "FastVideo PR #925",
        "FastVideo #1180",
        "vllm #48364",
        "lattice PR #6",
        "native-sparse-attention #15",
        "native-sparse-attention #20",
        "native-sparse-attention-triton #27",
        "native-sparse-attention-triton #1",
        "commits 236e572",
        "one row's softmax offset",
        "Flash-Sparse-Attention #11",
        "d = 128 fails",
        "groups other than 16",
        "KernelBench #165",
    ] {
        assert!(sources.contains(report), "{report}");
    }
}

#[test]
fn overridden_non_numbers_are_expected_to_be_acceptable_and_nothing_else_is() {
    for entry in entries() {
        let mutated = entry.case.features().contains(&"non_finite");
        assert_eq!(mutated, entry.expect == Expect::Acceptable, "{}", entry.name);
        assert_eq!(mutated, entry.has_flag("strict_reading"), "{}", entry.name);
    }
}

#[test]
fn inputs_that_leave_the_range_of_f16_are_not_run_in_it() {
    for entry in entries().iter().filter(|entry| !entry.case.features().contains(&"non_finite")) {
        for &dtype in &entry.dtypes {
            let inputs = entry.case.materialize(dtype).unwrap();
            let tensors = [inputs.q(), inputs.k(), inputs.v()].into_iter().chain(inputs.cotangents().d_out.as_ref());
            for tensor in tensors {
                assert!(tensor.iter().all(|value| value.is_finite()), "{} in {dtype}", entry.name);
            }
            let zero = |tensor: &ndarray::Array4<f64>| tensor.iter().all(|value| *value == 0.0);
            let meant = entry.case.d_out == Some(nsa_corpus::Values::zeros());
            assert!(meant || !inputs.cotangents().d_out.as_ref().is_some_and(zero), "{} in {dtype}", entry.name);
        }
    }
}

#[test]
fn a_file_of_all_entries_reads_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.toml");
    std::fs::write(&path, nsa_corpus::to_toml(entries())).unwrap();
    let read = read_entries(&path).unwrap();
    assert_eq!(nsa_corpus::to_toml(&read), nsa_corpus::to_toml(entries()));
    let same = |(read, embedded): (&Entry, &Entry)| {
        let labels = |entry: &Entry| (entry.name.clone(), entry.why.clone(), entry.flags.clone(), entry.dtypes.clone());
        labels(read) == labels(embedded) && read.case.id() == embedded.case.id()
    };
    assert!(read.iter().zip(entries()).all(same));
}

#[test]
fn real_activations_have_larger_scores_than_bell_shaped_ones() {
    let entry = all().find(|entry| entry.name == "activations/minilm_layer0").unwrap();
    let inputs = entry.case.materialize(Dtype::F32).unwrap();
    let scale = inputs.shape().scale();
    let row = |tensor: &ndarray::Array4<f64>, token: usize| tensor.slice(ndarray::s![0, 0, token, ..]).to_vec();
    let score = |i: usize, j: usize| {
        row(inputs.q(), i).iter().zip(row(inputs.k(), j)).map(|(q, k)| q * k).sum::<f64>().abs() * scale
    };
    let largest = (0..507).map(|i| (0..507).map(|j| score(i, j)).fold(0.0, f64::max)).fold(0.0, f64::max);
    assert!(largest > 5.0 && largest < 82.0, "{largest}");
    assert!(inputs.mask().iter().any(|live| *live) && inputs.mask().iter().any(|live| !live));
}
