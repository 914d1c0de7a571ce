//! The rung of each pass, and the programs that follow from it.

use nsa_corpus::{Arithmetic, Dot, Dtype, Shape, Sizes};
use serde::{Deserialize, Serialize};

use super::kernels::{DELTA, DKDV_MERGE, VISIT_COUNT, VISIT_FILL, VISIT_SCAN};

use super::ladder::{BY_WORDS, LADDER, Pass, Rung, Step, step};
use super::program::{ELEMENTS, Program};
use super::views::{Layout, Operand, Views};
use crate::error::{Error, Kind};

/// The rung that computes each pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Of [`Pass::Forward`].
    pub forward: Rung,
    /// Of [`Pass::QueryGradients`].
    pub query_gradients: Rung,
    /// Of [`Pass::KeyGradients`].
    pub key_gradients: Rung,
}

impl Variant {
    /// The same rung for every pass.
    pub const fn uniform(rung: Rung) -> Self {
        Variant { forward: rung, query_gradients: rung, key_gradients: rung }
    }

    /// The fastest rung of each pass that supports the problem on devices of `arch` ([`crate::DeviceInfo::arch`]); [`Rung::Plain`]
    /// where none does.
    pub fn choose(shape: &Shape, dtype: Dtype, arch: &str) -> Self {
        Self::choose_for(shape, dtype, arch, &Views::new(shape, Layout::HeadMajor))
    }

    /// The same for tensors that lie as `views` say.
    pub fn choose_for(shape: &Shape, dtype: Dtype, arch: &str, views: &Views) -> Self {
        let fastest = |pass| {
            let supported = |step: &&Step| {
                step.pass == pass && step.supports(shape, dtype, arch).is_ok() && step.takes(shape, views).is_ok()
            };
            LADDER.iter().rev().find(supported).map_or(Rung::Plain, |step| step.rung)
        };
        Variant {
            forward: fastest(Pass::Forward),
            query_gradients: fastest(Pass::QueryGradients),
            key_gradients: fastest(Pass::KeyGradients),
        }
    }

    /// The rung that computes `pass`.
    pub fn rung(&self, pass: Pass) -> Rung {
        match pass {
            Pass::Forward => self.forward,
            Pass::QueryGradients => self.query_gradients,
            Pass::KeyGradients => self.key_gradients,
        }
    }

    /// Whether every pass of this variant computes problems of `shape` and `element` on devices of `arch`.
    ///
    /// # Errors
    /// The first thing that a kernel does not support, with the size at fault.
    pub fn supports(&self, shape: &Shape, dtype: Dtype, arch: &str) -> Result<(), Error> {
        for pass in Pass::ALL {
            let rung = self.rung(pass);
            let Some(step) = step(pass, rung) else {
                return Err(Kind::Unsupported(format!("there is no {rung} kernel for {pass:?}")).into());
            };
            step.supports(shape, dtype, arch).map_err(Kind::Unsupported)?;
        }
        if (shape.seq_len() as u64).checked_mul(shape.num_sel() as u64).is_none_or(|v| v >= u64::from(u32::MAX)) {
            let (n, sel) = (shape.seq_len(), shape.num_sel());
            return Err(
                Kind::Unsupported(format!("{n} tokens x {sel} slots are more visits than 32 bits number")).into()
            );
        }
        Ok(())
    }

    /// Whether every pass reads and writes tensors that lie as `views` say.
    ///
    /// # Errors
    /// The first operand whose rows are not aligned as a kernel needs.
    pub fn takes(&self, shape: &Shape, views: &Views) -> Result<(), Error> {
        Ok(self.steps().into_iter().try_for_each(|step| step.takes(shape, views)).map_err(Kind::Unsupported)?)
    }

    /// The arithmetic of this variant's results on problems of `shape` on devices of `arch`: in each part that of the pass which
    /// is least exact there.
    pub fn arithmetic(&self, shape: &Shape, dtype: Dtype, arch: &str) -> Arithmetic {
        let declared = self.steps().map(|step| (step.arithmetic)(shape, dtype, arch));
        declared.into_iter().reduce(least_exact).expect("there are passes")
    }

    /// The rows of the ladder that compute the passes.
    pub(super) fn steps(&self) -> [&'static Step; 3] {
        Pass::ALL.map(|pass| step(pass, self.rung(pass)).expect("`supports` found the kernel"))
    }

    /// How many numbers of a row of `operand` a kernel loads or stores at once.
    pub(super) fn words(&self, operand: Operand) -> usize {
        if !BY_WORDS.contains(&operand) {
            return 1;
        }
        self.steps().map(|step| step.multiple).into_iter().max().unwrap_or(1)
    }

    /// Every program that a forward and backward of such a problem launches, in the order that seals of evidence are made of.
    pub fn programs(&self, shape: &Shape, dtype: Dtype) -> Vec<Program> {
        let passes = self.steps().map(|step| step.kernel());
        let shared = [&DELTA, &VISIT_COUNT, &VISIT_SCAN, &VISIT_FILL, &DKDV_MERGE];
        passes.into_iter().chain(shared).map(|kernel| kernel.program(shape, dtype)).collect()
    }
}

/// In each part the less exact of the two.
fn least_exact(a: Arithmetic, b: Arithmetic) -> Arithmetic {
    let coarser = |a: Dtype, b: Dtype| if a.unit_roundoff() >= b.unit_roundoff() { a } else { b };
    Arithmetic {
        unit: a.unit.max(b.unit),
        exponential: a.exponential.max(b.exponential),
        scores: least_exact_dot(a.scores, b.scores),
        products: least_exact_dot(a.products, b.products),
        probability: coarser(a.probability, b.probability),
        rescale_every: a.rescale_every.into_iter().chain(b.rescale_every).min(),
        ..a
    }
}

fn least_exact_dot(a: Dot, b: Dot) -> Dot {
    match (a, b) {
        (Dot::Blocks { block, extra_bits }, Dot::Blocks { block: other, extra_bits: bits }) => {
            Dot::Blocks { block: block.min(other), extra_bits: extra_bits.min(bits) }
        }
        // One product after another: nothing kept beyond 24 bits is what covers that too.
        (Dot::Blocks { block, .. }, Dot::Fma { .. }) | (Dot::Fma { .. }, Dot::Blocks { block, .. }) => {
            Dot::Blocks { block, extra_bits: 0 }
        }
        (Dot::Fma { unit }, Dot::Fma { unit: other }) => Dot::Fma { unit: unit.max(other) },
        (Dot::Tf32 { .. }, _) | (_, Dot::Tf32 { .. }) => unreachable!("no row of the ladder declares tf32"),
    }
}

/// Every program that a test without a GPU compiles: each kernel at each element type, at the sizes that differ in the
/// code they make. Sorted, each once.
pub fn catalogue() -> Vec<Program> {
    let mut programs = Vec::new();
    for (dim, value_dim, block_size) in [(64, 64, 32), (128, 128, 64), (192, 128, 64), (256, 256, 256), (40, 8, 16)] {
        let (batch, q_heads, kv_heads, seq_len, num_sel, sel_heads) = (1, 16, 1, 512, 4, 1);
        let sizes = Sizes { batch, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads };
        let shape = Shape::new(sizes).expect("the sizes divide");
        for dtype in ELEMENTS.iter().copied() {
            programs.extend(Variant::uniform(Rung::Plain).programs(&shape, dtype));
            let steps = LADDER.iter().filter(|step| step.supports(&shape, dtype, "sm_80").is_ok());
            programs.extend(steps.map(|step| step.kernel().program(&shape, dtype)));
        }
    }
    programs.sort();
    programs.dedup();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ladder::FEATURES_MAX;
    use crate::plan::views::Strides;

    const SIZES: Sizes = Sizes {
        batch: 1,
        q_heads: 2,
        kv_heads: 2,
        seq_len: 40,
        dim: 7,
        value_dim: 5,
        block_size: 16,
        num_sel: 2,
        sel_heads: 2,
    };

    #[test]
    fn the_plain_rung_leaves_no_hole_up_to_256() {
        for dtype in ELEMENTS.iter().copied() {
            for size in 1..=FEATURES_MAX {
                let sizes = Sizes { dim: size, value_dim: FEATURES_MAX + 1 - size, block_size: size, ..SIZES };
                let shape = Shape::new(sizes).unwrap();
                Variant::uniform(Rung::Plain).supports(&shape, dtype, "sm_80").unwrap();
                Variant::choose(&shape, dtype, "sm_80").supports(&shape, dtype, "sm_80").unwrap();
            }
        }
    }

    #[test]
    fn the_tensor_rung_says_what_it_leaves_to_the_plain_one() {
        let shape = |dim, value_dim| Shape::new(Sizes { dim, value_dim, ..SIZES }).unwrap();
        let chosen = |dim, value_dim, dtype| Variant::choose(&shape(dim, value_dim), dtype, "sm_80");
        assert_eq!(chosen(64, 64, Dtype::Bf16), Variant::uniform(Rung::Tensor));
        assert_eq!(chosen(64, 64, Dtype::F32), Variant::uniform(Rung::Plain));
        assert_eq!(chosen(7, 64, Dtype::F16), Variant::uniform(Rung::Plain));
        let mixed = chosen(256, 256, Dtype::F16);
        assert_eq!((mixed.forward, mixed.key_gradients), (Rung::Tensor, Rung::Plain));
        let declared = mixed.arithmetic(&shape(256, 256), Dtype::F16, "sm_90a");
        assert_eq!(Arithmetic { rescale_every: None, ..declared }, Arithmetic::tensor_core(Dtype::F16));
        let refused = Variant::uniform(Rung::Tensor).supports(&shape(7, 64), Dtype::F16, "sm_80").unwrap_err();
        assert_eq!(refused.to_string(), "forward_tensor takes multiples of 8 features, not 7");
    }

    #[test]
    fn what_no_rung_computes_is_refused_by_name() {
        let refused = |sizes, dtype| {
            Variant::uniform(Rung::Plain).supports(&Shape::new(sizes).unwrap(), dtype, "sm_80").unwrap_err().to_string()
        };
        assert!(refused(SIZES, Dtype::F64).contains("does not take f64"));
        assert!(refused(Sizes { dim: 257, ..SIZES }, Dtype::F32).contains("dim up to 256, not 257"));
        assert!(refused(Sizes { block_size: 300, ..SIZES }, Dtype::F32).contains("block_size up to 256, not 300"));
    }

    #[test]
    fn the_tensor_rung_declares_how_often_it_rescales() {
        let text = include_str!("../../kernels/tensor/forward_tensor.cu");
        assert!(text.contains("start < count; start += 8 * KEY_TILES)"), "what the declaration is read off");
        for (block_size, keys) in [(1, 16), (16, 16), (40, 48), (64, 64), (65, 64), (256, 64)] {
            let shape = Shape::new(Sizes { dim: 64, value_dim: 64, block_size, ..SIZES }).unwrap();
            let tensor = Variant::uniform(Rung::Tensor);
            let program = tensor.programs(&shape, Dtype::Bf16).remove(0);
            assert!(program.defines.contains(&("KEY_TILES", keys / 8)), "{block_size}: {program:?}");
            let rescale_every = |variant: Variant| variant.arithmetic(&shape, Dtype::Bf16, "sm_80").rescale_every;
            assert_eq!(rescale_every(tensor), Some(keys));
            assert_eq!(rescale_every(Variant::uniform(Rung::Plain)), None);
        }
    }

    #[test]
    fn what_is_declared_of_scores_covers_every_width() {
        let text = include_str!("../../kernels/tensor/mma.cuh");
        assert!(text.contains("features 32 c + 8 (l % 4) .. + 8 of its row"), "what the steps below are read off");
        let tensor = Variant::uniform(Rung::Tensor);
        for (arch, extra_bits) in [("sm_90a", 2), ("sm_80", 0), ("sm_100", 0)] {
            for width in (8..=FEATURES_MAX).step_by(8) {
                // Each 32 features are two products, each of half of what is left of them.
                let halves = (0..width).step_by(32).map(|first| (width - first).min(32) / 2);
                let steps = halves.map(|half| 2.0 * ((half as f64 + 1.0) * 2f64.powi(1 - extra_bits) + 2.0));
                let added = steps.sum::<f64>() * 2f64.powi(-24);
                for (dim, value_dim) in [(width, width), (width, 8), (width, 256)] {
                    let shape = Shape::new(Sizes { dim, value_dim, ..SIZES }).unwrap();
                    let declared = tensor.arithmetic(&shape, Dtype::F16, arch).scores.constant(width);
                    assert!(added <= declared, "{arch} {dim} {value_dim}: {added} and {declared}");
                }
            }
            let shape = Shape::new(Sizes { dim: 64, value_dim: 64, ..SIZES }).unwrap();
            let declared = tensor.arithmetic(&shape, Dtype::Bf16, arch);
            assert_eq!(declared.scores, Dot::Blocks { block: 16, extra_bits });
            assert_eq!(declared.products, Dot::Blocks { block: 16, extra_bits: 0 });
        }
    }

    #[test]
    fn a_mixed_variant_declares_no_more_than_any_of_its_passes() {
        let shape = Shape::new(Sizes { dim: 64, value_dim: 64, ..SIZES }).unwrap();
        for number in 0..8 {
            let rung = |bit: usize| Rung::ALL[number >> bit & 1];
            let variant = Variant { forward: rung(0), query_gradients: rung(1), key_gradients: rung(2) };
            let declared = variant.arithmetic(&shape, Dtype::Bf16, "sm_90a");
            for step in variant.steps() {
                let own = (step.arithmetic)(&shape, Dtype::Bf16, "sm_90a");
                for terms in [1, 16, 64, 4096] {
                    assert!(declared.scores.constant(terms) >= own.scores.constant(terms), "{variant:?}");
                    assert!(declared.products.constant(terms) >= own.products.constant(terms), "{variant:?}");
                }
                assert!(declared.probability.unit_roundoff() >= own.probability.unit_roundoff(), "{variant:?}");
                assert_eq!((declared.output, declared.gradient), (own.output, own.gradient), "{variant:?}");
            }
            assert_eq!(declared.rescale_every.is_some(), variant.forward == Rung::Tensor, "{variant:?}");
        }
    }

    #[test]
    fn views_that_are_not_aligned_fall_to_the_plain_rung() {
        let shape = Shape::new(Sizes { dim: 64, value_dim: 64, ..SIZES }).unwrap();
        let mut views = Views::new(&shape, Layout::TokenMajor);
        let tensor = Variant::uniform(Rung::Tensor);
        tensor.takes(&shape, &views).unwrap();
        views.set(Operand::K, Strides { token: 129, ..views.get(Operand::K) });
        let refused = tensor.takes(&shape, &views).unwrap_err().to_string();
        assert!(
            refused.starts_with("forward_tensor takes rows that begin at multiples of 8 elements, not K by"),
            "{refused}"
        );
        assert_eq!(Variant::choose_for(&shape, Dtype::F16, "sm_80", &views), Variant::uniform(Rung::Plain));
        Variant::uniform(Rung::Plain).takes(&shape, &views).unwrap();
    }

    #[test]
    fn rungs_parse_back() {
        for rung in Rung::ALL {
            assert_eq!(rung.name().parse::<Rung>().unwrap(), rung);
        }
        assert!("fast".parse::<Rung>().is_err());
    }
}
