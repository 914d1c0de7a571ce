//! The rung of each pass, and the programs that follow from it.

use nsa_corpus::{Arithmetic, Dot, Element, Shape, Sizes};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::ladder::{ANY, Geometry, LADDER, Step, key_tiles, row_steps, step};
pub use crate::ladder::{FEATURES_MAX, Pass, Rung};
use crate::source;
use crate::views::{Layout, Views};
use crate::workspace::{STRIDE, Workspace};

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

    /// The fastest rung of each pass that supports the problem; [`Rung::Plain`] where none does.
    pub fn choose(shape: &Shape, element: Element) -> Self {
        Self::choose_for(shape, element, &Views::new(shape, Layout::HeadMajor))
    }

    /// The same for tensors that lie as `views` say.
    pub fn choose_for(shape: &Shape, element: Element, views: &Views) -> Self {
        let fastest = |pass| {
            let supported = |step: &&Step| {
                step.pass == pass && step.supports(shape, element).is_ok() && step.takes(shape, views).is_ok()
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

    /// Whether every pass of this variant computes problems of `shape` and `element`.
    ///
    /// # Errors
    /// The first thing that a kernel does not support, with the size at fault.
    pub fn supports(&self, shape: &Shape, element: Element) -> Result<(), Error> {
        for pass in Pass::ALL {
            let rung = self.rung(pass);
            let Some(step) = step(pass, rung) else {
                return Err(Kind::Unsupported(format!("there is no {rung} kernel for {pass:?}")).into());
            };
            step.supports(shape, element).map_err(Kind::Unsupported)?;
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
        let mut steps = Pass::ALL.into_iter().filter_map(|pass| step(pass, self.rung(pass)));
        Ok(steps.try_for_each(|step| step.takes(shape, views)).map_err(Kind::Unsupported)?)
    }

    /// The arithmetic of this variant's results on problems of `shape` on devices of `arch` ([`crate::DeviceInfo::arch`]): the
    /// least exact of its passes'.
    pub fn arithmetic(&self, shape: &Shape, element: Element, arch: &str) -> Arithmetic {
        if Pass::ALL.into_iter().any(|pass| self.rung(pass) == Rung::Tensor) {
            // The plain forward rescales once for a whole block, the tensor one for as many keys as it scores at once.
            let rescale_every = (self.forward == Rung::Tensor).then(|| 8 * key_tiles(shape, 8));
            // Where a pass adds them one by one, nothing kept beyond 24 bits is what covers that too.
            let extra_bits = if *self == Self::uniform(Rung::Tensor) { extra_bits(arch) } else { 0 };
            let scores = tensor_scores(shape, extra_bits);
            return Arithmetic { rescale_every, scores, ..Arithmetic::tensor_core(element) };
        }
        Arithmetic { output: element, gradient: element, ..Arithmetic::f32() }
    }

    /// The program that computes `pass`.
    pub(crate) fn program(&self, pass: Pass, shape: &Shape, element: Element) -> Program {
        let step = step(pass, self.rung(pass)).expect("`supports` found the kernel");
        Program::new(step.kernel, element, (step.defines)(shape))
    }

    /// How the kernel of `pass` is launched.
    pub(crate) fn geometry(&self, pass: Pass, shape: &Shape) -> Geometry {
        (step(pass, self.rung(pass)).expect("`supports` found the kernel").geometry)(shape)
    }

    /// Every program that a forward and backward of such a problem launches.
    pub fn programs(&self, shape: &Shape, element: Element) -> Vec<Program> {
        let mut programs: Vec<Program> = Pass::ALL.map(|pass| self.program(pass, shape, element)).into();
        programs.extend(shared_programs(shape, element));
        programs
    }
}

/// Bits that the tensor cores of `arch` keep beyond 24: measured by planted sums (`nsa-diff calibrate`, docs/numerics.md), and none
/// where nothing was measured.
fn extra_bits(arch: &str) -> i32 {
    if arch == "sm_90a" { 2 } else { 0 }
}

/// How the tensor rung adds `<q, k>` and `<d_out, v>`: each 32 features, or what is left of them, in two halves (mma.cuh).
fn tensor_scores(shape: &Shape, extra_bits: i32) -> Dot {
    let block = |width: usize| width.div_ceil(2 * width.div_ceil(32));
    Dot::Blocks { block: block(shape.dim()).min(block(shape.value_dim())), extra_bits }
}

/// The programs that every variant uses: delta, the inverted index, and the merge.
fn shared_programs(shape: &Shape, element: Element) -> [Program; 5] {
    [
        delta_program(shape, element),
        Program::new("visit_count", Element::F32, Vec::new()),
        Program::new("visit_scan", Element::F32, Vec::new()),
        Program::new("visit_fill", Element::F32, Vec::new()),
        Program::new("dkdv_merge", element, Vec::new()),
    ]
}

/// `delta` for such a problem.
pub(crate) fn delta_program(shape: &Shape, element: Element) -> Program {
    let steps = row_steps(shape).into_iter().filter(|(name, _)| *name == "VALUE_STEPS").collect();
    Program::new("delta", element, steps)
}

/// A kernel and the macros that it is specialised by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Program {
    /// The kernel's name, and its file's without the ending.
    pub kernel: &'static str,
    /// Macro and value, in order.
    pub defines: Vec<(&'static str, usize)>,
    /// The workspace whose rows are set apart; `None`: each is dense.
    pub apart: Option<Workspace>,
}

impl Program {
    pub(crate) fn new(kernel: &'static str, element: Element, mut defines: Vec<(&'static str, usize)>) -> Self {
        let number = ANY.iter().position(|known| *known == element).expect("`supports` refuses other elements");
        defines.insert(0, ("ELEMENT", number));
        Program { kernel, defines, apart: None }
    }

    /// A kernel that checks the others.
    pub(crate) fn check(kernel: &'static str) -> Self {
        Program { kernel, defines: Vec::new(), apart: None }
    }

    /// The same with rows of `workspace` `stride` elements apart; itself where the kernel does not use it.
    pub(crate) fn with_apart(self, workspace: Workspace, stride: usize) -> Self {
        let mut apart = Program { apart: Some(workspace), ..self.clone() };
        if source::flatten(&apart, None) == source::flatten(&self, None) {
            return self;
        }
        apart.defines.push((STRIDE, stride));
        apart
    }

    /// The compiler's flags, whatever the architecture. No fast-math: division, denormals and exponentials are exact
    /// to the declared arithmetic.
    pub fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> =
            ["--std=c++17", "--fmad=true", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--ptxas-options=-v"]
                .map(str::to_owned)
                .into();
        flags.extend(self.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
        flags
    }

    /// Kernel and macros in one word: `forward_plain ELEMENT=1 DIM_STEPS=2 VALUE_STEPS=2`.
    pub fn label(&self) -> String {
        let defines = self.defines.iter().map(|(name, value)| format!(" {name}={value}"));
        std::iter::once(self.kernel.to_owned()).chain(defines).collect()
    }
}

/// Every program that a test without a GPU compiles: each kernel at each element type, at the sizes that differ in the
/// code they make. Sorted, each once.
pub fn catalogue() -> Vec<Program> {
    let mut programs = Vec::new();
    for (dim, value_dim, block_size) in [(64, 64, 32), (128, 128, 64), (192, 128, 64), (256, 256, 256), (40, 8, 16)] {
        let sizes = catalogue_sizes(dim, value_dim, block_size);
        let shape = Shape::new(sizes).expect("the sizes divide");
        for element in ANY.iter().copied() {
            programs.extend(shared_programs(&shape, element));
            let steps = LADDER.iter().filter(|step| step.supports(&shape, element).is_ok());
            programs.extend(steps.map(|step| Program::new(step.kernel, element, (step.defines)(&shape))));
        }
    }
    programs.sort();
    programs.dedup();
    programs
}

fn catalogue_sizes(dim: usize, value_dim: usize, block_size: usize) -> Sizes {
    Sizes { batch: 1, q_heads: 16, kv_heads: 1, seq_len: 512, dim, value_dim, block_size, num_sel: 4, sel_heads: 1 }
}

/// The kernels that check the others, and those of one problem with each workspace set apart in turn: compiled beside the
/// [`catalogue`], and never what answers.
pub fn checking_programs() -> Vec<Program> {
    let mut programs = vec![Program::check("poison"), Program::check("probe")];
    for element in [Element::F32, Element::Bf16] {
        let sizes = catalogue_sizes(64, 64, 32);
        let shape = Shape::new(sizes).expect("the sizes divide");
        let rungs = Rung::ALL.into_iter().filter(|rung| Variant::uniform(*rung).supports(&shape, element).is_ok());
        let dense: Vec<Program> = rungs.flat_map(|rung| Variant::uniform(rung).programs(&shape, element)).collect();
        let apart = |workspace| dense.iter().map(move |program| program.clone().with_apart(workspace, 1 << 31));
        programs.extend(Workspace::ALL.into_iter().flat_map(apart).filter(|program| program.apart.is_some()));
    }
    programs.sort();
    programs.dedup();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{Operand, Strides};

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
        for element in ANY.iter().copied() {
            for size in 1..=FEATURES_MAX {
                let sizes = Sizes { dim: size, value_dim: FEATURES_MAX + 1 - size, block_size: size, ..SIZES };
                let shape = Shape::new(sizes).unwrap();
                Variant::uniform(Rung::Plain).supports(&shape, element).unwrap();
                Variant::choose(&shape, element).supports(&shape, element).unwrap();
            }
        }
    }

    #[test]
    fn the_tensor_rung_says_what_it_leaves_to_the_plain_one() {
        let shape = |dim, value_dim| Shape::new(Sizes { dim, value_dim, ..SIZES }).unwrap();
        let chosen = |dim, value_dim, element| Variant::choose(&shape(dim, value_dim), element);
        assert_eq!(chosen(64, 64, Element::Bf16), Variant::uniform(Rung::Tensor));
        assert_eq!(chosen(64, 64, Element::F32), Variant::uniform(Rung::Plain));
        assert_eq!(chosen(7, 64, Element::F16), Variant::uniform(Rung::Plain));
        let mixed = chosen(256, 256, Element::F16);
        assert_eq!((mixed.forward, mixed.key_gradients), (Rung::Tensor, Rung::Plain));
        let declared = mixed.arithmetic(&shape(256, 256), Element::F16, "sm_90a");
        assert_eq!(Arithmetic { rescale_every: None, ..declared }, Arithmetic::tensor_core(Element::F16));
        let refused = Variant::uniform(Rung::Tensor).supports(&shape(7, 64), Element::F16).unwrap_err();
        assert_eq!(refused.to_string(), "forward_tensor takes multiples of 8 features, not 7");
    }

    #[test]
    fn what_no_rung_computes_is_refused_by_name() {
        let refused = |sizes, element| {
            Variant::uniform(Rung::Plain).supports(&Shape::new(sizes).unwrap(), element).unwrap_err().to_string()
        };
        assert!(refused(SIZES, Element::F64).contains("does not take f64"));
        assert!(refused(Sizes { dim: 257, ..SIZES }, Element::F32).contains("dim up to 256, not 257"));
        assert!(refused(Sizes { block_size: 300, ..SIZES }, Element::F32).contains("block_size up to 256, not 300"));
    }

    #[test]
    fn the_tensor_rung_declares_how_often_it_rescales() {
        let text = source::text("forward_tensor.cu").unwrap();
        assert!(text.contains("start < count; start += 8 * KEY_TILES)"), "what the declaration is read off");
        for (block_size, keys) in [(1, 16), (16, 16), (40, 48), (64, 64), (65, 64), (256, 64)] {
            let shape = Shape::new(Sizes { dim: 64, value_dim: 64, block_size, ..SIZES }).unwrap();
            let tensor = Variant::uniform(Rung::Tensor);
            let program = tensor.program(Pass::Forward, &shape, Element::Bf16);
            assert!(program.defines.contains(&("KEY_TILES", keys / 8)), "{block_size}: {program:?}");
            let rescale_every = |variant: Variant| variant.arithmetic(&shape, Element::Bf16, "sm_80").rescale_every;
            assert_eq!(rescale_every(tensor), Some(keys));
            assert_eq!(rescale_every(Variant::uniform(Rung::Plain)), None);
        }
    }

    #[test]
    fn what_is_declared_of_scores_covers_every_width() {
        let text = source::text("mma.cuh").unwrap();
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
                    let declared = tensor.arithmetic(&shape, Element::F16, arch).scores.constant(width);
                    assert!(added <= declared, "{arch} {dim} {value_dim}: {added} and {declared}");
                }
            }
            let shape = Shape::new(Sizes { dim: 64, value_dim: 64, ..SIZES }).unwrap();
            let declared = tensor.arithmetic(&shape, Element::Bf16, arch);
            assert_eq!(declared.scores, Dot::Blocks { block: 16, extra_bits });
            assert_eq!(declared.products, Dot::Blocks { block: 16, extra_bits: 0 });
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
        assert_eq!(Variant::choose_for(&shape, Element::F16, &views), Variant::uniform(Rung::Plain));
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
