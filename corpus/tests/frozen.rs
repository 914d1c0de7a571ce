//! The bits of every kind of value are frozen: a stored case means the same tensors in every version and on every machine.

use nsa_corpus::{Case, Dtype, Mask, Selection, Sizes, Values, digest};

const SIZES: Sizes = Sizes {
    batch: 2,
    q_heads: 4,
    kv_heads: 2,
    seq_len: 37,
    dim: 9,
    value_dim: 5,
    block_size: 8,
    num_sel: 4,
    sel_heads: 2,
};

/// The digest of all tensors of the case, in f64, so that no rounding stands between.
fn short(case: &Case) -> String {
    digest::inputs(&case.materialize(Dtype::F64).unwrap())[..16].to_owned()
}

fn ordinary() -> Case {
    Case::ordinary(SIZES, 20_26)
}

#[test]
fn every_kind_of_value_has_the_bits_it_always_had() {
    let kinds = [
        (Values::zeros(), "c3e12179b267817f"),
        (Values::Constant { value: 0.5 }, "723267854b341c7d"),
        (Values::Normal { scale: 8.0 }, "a801b4587bf7ab54"),
        (Values::Uniform { scale: 3.0 }, "f440f911c0246280"),
        (Values::Integers { limit: 3 }, "fedf9bafecab60bc"),
        (Values::PowerGrid { eighths: 3, lowest: -4, highest: 5 }, "371c5efe12fdd490"),
        (Values::ConstantRows { scale: 1.0 }, "9274a75a2a897b03"),
        (Values::OutlierChannels { every: 4, factor: 20.0 }, "8c8645d0f64fae1a"),
        (Values::Offset { center: 100.0, spread: 0.05 }, "55e2a93545b8fbf7"),
        (Values::Alternating { size: 50.0 }, "4fcdfaf1531137b0"),
        (Values::WideExponents { lowest: -20, highest: 20 }, "150a1d92c487a532"),
        (Values::OneHot { value: 1.0 }, "97fd584107ee6bcc"),
    ];
    let found: Vec<_> = kinds
        .iter()
        .map(|(values, _)| {
            let (q, d_lse) = (values.clone(), Some(values.clone()));
            short(&Case { q, d_lse, sel_scale: Some(values.clone()), ..ordinary() })
        })
        .collect();
    let expected: Vec<_> = kinds.iter().map(|(_, digest)| *digest).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_kind_of_selection_has_the_bits_it_always_had() {
    let kinds = [
        (Selection::Past {}, "237263098603f719"),
        (Selection::FirstPreviousPast {}, "4563cd965ecbf762"),
        (Selection::Shared {}, "3aae301e5e12edbe"),
        (Selection::ZeroOrOne {}, "a1685bf43bbfbe11"),
        (Selection::Distinct {}, "ab5b13968c6c782d"),
        (Selection::Any {}, "91ba13e7c556cab4"),
        (Selection::Duplicates {}, "6bc89e2c79e62f0b"),
        (Selection::Own {}, "27391f242bd36d09"),
        (Selection::Future {}, "fbf2ad8930adc322"),
        (Selection::Last {}, "c668ccd4e08d58fa"),
        (Selection::Same {}, "e3b63f624b36392c"),
        (Selection::Fixed { block: 1 }, "cf6e28a51022358a"),
    ];
    let found: Vec<_> =
        kinds.iter().map(|(selection, _)| short(&Case { selection: selection.clone(), ..ordinary() })).collect();
    let expected: Vec<_> = kinds.iter().map(|(_, digest)| *digest).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_kind_of_mask_has_the_bits_it_always_had() {
    let kinds = [
        (Mask::All {}, "237263098603f719"),
        (Mask::None {}, "dd17eb2324048501"),
        (Mask::Random {}, "0ae2d955cba4f940"),
        (Mask::One { slot: 2 }, "3456ca1ba843721b"),
    ];
    let found: Vec<_> = kinds.iter().map(|(mask, _)| short(&Case { mask: mask.clone(), ..ordinary() })).collect();
    let expected: Vec<_> = kinds.iter().map(|(_, digest)| *digest).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_case_is_the_same_on_one_thread() {
    let case = Case { sizes: Sizes { seq_len: 400, dim: 40, ..SIZES }, ..ordinary() };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(short(&case), one.install(|| short(&case)));
}

#[test]
fn the_canonical_text_and_its_digest_are_pinned() {
    let mut case = ordinary();
    case.sel_scale = Some(Values::ones());
    case.sliding_window = Some(8);
    case.overrides.push(nsa_corpus::Override::new(nsa_corpus::Tensor::V, &[0, 1, 2, 3], f64::NAN));
    assert_eq!(
        case.to_toml(),
        r#"batch = 2
q_heads = 4
kv_heads = 2
seq_len = 37
dim = 9
value_dim = 5
block_size = 8
num_sel = 4
sliding_window = 8
seed = 2026
q = { kind = "normal", scale = 1.0 }
k = { kind = "normal", scale = 1.0 }
v = { kind = "normal", scale = 1.0 }
selection = { kind = "past" }
mask = { kind = "all" }
sel_scale = { kind = "constant", value = 1.0 }
d_out = { kind = "normal", scale = 1.0 }
overrides = [{ tensor = "v", index = [0, 1, 2, 3], value = nan }]
"#
    );
    assert_eq!(case.id(), "08b2cb4f8fb4");
}
