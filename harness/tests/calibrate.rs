//! Calibration finds the arithmetic that a simulated unit really has, and refutes a declaration that is better than it.

use ndarray::{Array3, Array4};
use nsa_corpus::{Arithmetic, Dot, Dtype, Field, Inputs, Outputs};
use nsa_harness::calibrate::{Sum, Unmeasured, measure};
use nsa_harness::candidate::{Candidate, CandidateError, Declaration, Unsupported};
use nsa_harness::registry::by_name;

/// Attention to one's own block by a unit that adds `block` products at once to its accumulator: all aligned to the largest,
/// truncated with `extra_bits` bits beyond 24, the sum truncated to 24.
struct Unit {
    block: usize,
    extra_bits: i32,
    declared: Dot,
}

/// `value` truncated toward zero to multiples of `2^exponent`.
fn truncated(value: f64, exponent: i32) -> f64 {
    let unit = 2f64.powi(exponent);
    (value / unit).trunc() * unit
}

fn exponent(value: f64) -> i32 {
    value.abs().log2().floor() as i32
}

impl Unit {
    fn sum(&self, products: &[f64]) -> f64 {
        products.chunks(self.block).fold(0.0, |accumulator, chunk| {
            let terms = || chunk.iter().copied().chain([accumulator]);
            let largest = terms().fold(0.0, |largest: f64, term| largest.max(term.abs()));
            if largest == 0.0 {
                return 0.0;
            }
            let sum: f64 = terms().map(|term| truncated(term, exponent(largest) - 23 - self.extra_bits)).sum();
            if sum == 0.0 { 0.0 } else { truncated(sum, exponent(sum) - 23) }
        })
    }
}

impl Candidate for Unit {
    fn name(&self) -> &str {
        "unit"
    }

    fn declaration(&self, inputs: &Inputs) -> Declaration {
        let dtype = inputs.dtype();
        let dots = Arithmetic { scores: self.declared, products: self.declared, ..Arithmetic::tensor_core(dtype) };
        Declaration::strict(dots)
    }

    fn supports(&self, inputs: &Inputs) -> Result<(), Unsupported> {
        if inputs.dtype() == Dtype::F32 { Err(Unsupported("f32".to_owned())) } else { Ok(()) }
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        let shape = inputs.shape();
        let (heads, tokens, block) = (shape.q_heads(), shape.seq_len(), shape.block_size());
        let (mut out, mut lse) =
            (Array4::zeros((1, heads, tokens, shape.value_dim())), Array3::zeros((1, heads, tokens)));
        for head in 0..heads {
            // The rows that sums are read from; the others stay 0.
            for token in (0..tokens).filter(|token| [0, block - 1].contains(&(token % block))) {
                let keys = token / block * block..=token;
                let score = |key: usize| {
                    let features = 0..shape.dim();
                    let products = features.map(|f| inputs.q()[[0, head, token, f]] * inputs.k()[[0, 0, key, f]]);
                    self.sum(&products.collect::<Vec<f64>>()) * shape.scale()
                };
                let scores: Vec<f64> = keys.clone().map(score).collect();
                let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
                let total: f64 = weights.iter().sum();
                lse[[0, head, token]] = Dtype::F32.round(highest + total.ln());
                for feature in 0..shape.value_dim() {
                    let values = keys.clone().map(|key| inputs.v()[[0, 0, key, feature]]);
                    let products: Vec<f64> = weights.iter().zip(values).map(|(weight, value)| weight * value).collect();
                    out[[0, head, token, feature]] = inputs.dtype().round(self.sum(&products) / total);
                }
            }
        }
        let mut outputs = Outputs::new();
        outputs.set(Field::Out, out);
        outputs.set(Field::Lse, lse);
        Ok(outputs)
    }
}

/// The oracle, which declares f32.
struct Wide;

impl Candidate for Wide {
    fn name(&self) -> &str {
        "wide"
    }

    fn declaration(&self, _inputs: &Inputs) -> Declaration {
        Declaration::strict(Arithmetic::f32())
    }

    fn supports(&self, _inputs: &Inputs) -> Result<(), Unsupported> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs) -> Result<Outputs, CandidateError> {
        Ok(nsa_reference::oracle::attend(inputs))
    }
}

#[test]
fn a_unit_is_found_to_be_what_it_is() {
    for (block, extra_bits) in [(4, 0), (8, 1), (16, 2), (16, 0), (32, 3)] {
        let tiles = Dot::Blocks { block, extra_bits };
        let unit = Unit { block, extra_bits, declared: tiles };
        for (sum, dtype) in [(Sum::Scores, Dtype::F16), (Sum::Scores, Dtype::Bf16), (Sum::Products, Dtype::F16)] {
            let found = measure(&unit, sum, dtype, 1).unwrap();
            assert_eq!((found.tiles(), found.together, found.refuted()), (Some(tiles), block, false), "{found:?}");
            // What is declared can nearly be attained: the constant is not idle.
            let share = found.attained_units / found.declared_units;
            let least = if sum == Sum::Scores { 0.5 } else { 0.2 };
            assert!((least..=1.0).contains(&share), "{share}: {found:?}");
        }
    }
}

#[test]
fn a_declaration_better_than_the_unit_is_refuted() {
    let declared = Dot::Blocks { block: 16, extra_bits: 2 };
    for extra_bits in [0, 1] {
        let found = measure(&Unit { block: 16, extra_bits, declared }, Sum::Scores, Dtype::Bf16, 2).unwrap();
        assert!(found.refuted(), "{found:?}");
    }
    let single = Dot::Fma { unit: 2f64.powi(-24) };
    assert!(
        measure(&Unit { block: 16, extra_bits: 0, declared: single }, Sum::Scores, Dtype::F16, 1).unwrap().refuted()
    );
}

#[test]
fn a_declaration_far_looser_than_the_unit_is_told() {
    let looser = |block, extra_bits, declared| {
        let found = measure(&Unit { block, extra_bits, declared }, Sum::Scores, Dtype::F16, 1).unwrap();
        // From tile to tile every one of these units keeps the 24 bits of f32, whatever it keeps within a tile.
        assert_eq!(found.between, Some(23), "{found:?}");
        found.looser()
    };
    let tiles = |extra_bits| Dot::Blocks { block: 16, extra_bits };
    let unit = |exponent| Dot::Fma { unit: 2f64.powi(exponent) };
    assert_eq!([looser(16, 2, tiles(2)), looser(16, 2, tiles(0)), looser(16, 3, tiles(0))], [None; 3]);
    assert_eq!([looser(16, 2, tiles(-1)), looser(1, 0, unit(-24)), looser(1, 0, unit(-21))], [None; 3]);
    assert_eq!([looser(16, 2, unit(-20)), looser(16, 2, unit(-10))], [Some(4), Some(14)]);
    assert_eq!([looser(1, 0, unit(-20)), looser(1, 0, unit(-11))], [Some(4), Some(13)]);
    // What computes in f64 declares f32.
    let found = measure(&Wide, Sum::Scores, Dtype::F32, 1).unwrap();
    assert_eq!((found.refuted(), found.looser()), (false, Some(13)), "{found:?}");
}

#[test]
fn what_the_cpu_candidates_declare_is_neither_too_tight_nor_far_too_loose() {
    for name in ["tiled", "rowwise", "oracle"] {
        for (sum, dtype) in [(Sum::Scores, Dtype::F32), (Sum::Products, Dtype::F32), (Sum::Scores, Dtype::Bf16)] {
            let found = measure(by_name(name).unwrap().as_ref(), sum, dtype, 1).unwrap();
            assert!(!found.refuted() && found.looser().is_none(), "{name} {dtype}: {found:?}");
        }
    }
}

#[test]
fn sums_one_by_one_lose_nothing_after_cancelling() {
    for name in ["tiled", "rowwise"] {
        let candidate = by_name(name).unwrap();
        let found = measure(candidate.as_ref(), Sum::Scores, Dtype::F32, 1).unwrap();
        assert!(!found.refuted(), "{name}: {found:?}");
        assert_eq!(found.tiles(), None, "{name}: {found:?}");
    }
}

#[test]
fn what_is_not_supported_is_said() {
    let declared = Dot::Blocks { block: 16, extra_bits: 2 };
    let refused = measure(&Unit { block: 16, extra_bits: 2, declared }, Sum::Scores, Dtype::F32, 1).unwrap_err();
    assert!(matches!(&refused, Unmeasured::Unsupported(reason) if reason == "f32"), "{refused}");
}
