//! The ladder: which kernel computes each pass, what it supports, and what it is specialised by.
//!
//! Everything about a rung stands in one row of `LADDER`: [`Variant::supports`], the choice for a shape, and the `-D`
//! macros that a kernel is compiled with all read it.

use std::fmt;
use std::str::FromStr;

use nsa_corpus::{Arithmetic, Element, Shape};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// What a call computes, one pass after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// `out`, `lse`, and the sliding ones.
    Forward,
    /// `dq` and `dsel_scale`, query-outer.
    QueryGradients,
    /// `dk` and `dv`, key-outer.
    KeyGradients,
}

impl Pass {
    /// Every pass, in the order that they run.
    pub const ALL: [Pass; 3] = [Pass::Forward, Pass::QueryGradients, Pass::KeyGradients];
}

/// A step of the ladder, from plain to fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// f32 multiply-adds, one row for each warp: everything, slowly.
    Plain,
    /// 16-bit tensor cores with f32 accumulation.
    Tensor,
}

impl Rung {
    /// Every rung, plainest first.
    pub const ALL: [Rung; 2] = [Rung::Plain, Rung::Tensor];

    /// `"plain"` or `"tensor"`.
    pub fn name(self) -> &'static str {
        match self {
            Rung::Plain => "plain",
            Rung::Tensor => "tensor",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rung {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Rung::ALL
            .into_iter()
            .find(|rung| rung.name() == text)
            .ok_or_else(|| Kind::Invalid(format!("rung `{text}` is neither plain nor tensor")).into())
    }
}

/// One row of the ladder: a kernel, and what it is for.
struct Step {
    pass: Pass,
    rung: Rung,
    kernel: &'static str,
    elements: &'static [Element],
    /// dim and value_dim are multiples of this.
    multiple: usize,
    /// dim and value_dim together; each alone is at most [`FEATURES_MAX`].
    features_max: usize,
    /// The macros that the kernel is compiled with, besides `ELEMENT`.
    defines: fn(&Shape) -> Vec<(&'static str, usize)>,
    /// What one warp works on, and how many warps make a CTA.
    geometry: fn(&Shape) -> Geometry,
}

/// How a kernel's work is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Pieces of work, one for each warp: of the whole problem, or in the key-outer backward of one task.
    pub(crate) pieces: u64,
    /// Warps in a CTA.
    pub(crate) warps: u32,
}

/// dim, value_dim and block_size are at most this, on every rung.
pub const FEATURES_MAX: usize = 256;

const ANY: &[Element] = &[Element::F32, Element::F16, Element::Bf16];
const HALF: &[Element] = &[Element::F16, Element::Bf16];

/// Every kernel that computes a pass, plainest first.
const LADDER: &[Step] = &[
    Step {
        pass: Pass::Forward,
        rung: Rung::Plain,
        kernel: "forward_plain",
        elements: ANY,
        multiple: 1,
        features_max: 2 * FEATURES_MAX,
        defines: row_steps,
        geometry: |shape| Geometry { pieces: rows(shape, shape.q_heads()), warps: 4 },
    },
    Step {
        pass: Pass::QueryGradients,
        rung: Rung::Plain,
        kernel: "dq_plain",
        elements: ANY,
        multiple: 1,
        features_max: 2 * FEATURES_MAX,
        defines: row_steps,
        geometry: |shape| Geometry { pieces: rows(shape, shape.sel_heads()), warps: 4 },
    },
    Step {
        pass: Pass::KeyGradients,
        rung: Rung::Plain,
        kernel: "dkdv_plain",
        elements: ANY,
        multiple: 1,
        features_max: 2 * FEATURES_MAX,
        defines: row_steps,
        geometry: |shape| Geometry { pieces: shape.block_size() as u64, warps: 8 },
    },
    Step {
        pass: Pass::Forward,
        rung: Rung::Tensor,
        kernel: "forward_tensor",
        elements: HALF,
        multiple: 8,
        features_max: 2 * FEATURES_MAX,
        defines: |shape| {
            let (dim, value_dim) = (shape.dim(), shape.value_dim());
            vec![
                ("DIM_CHUNKS", dim.div_ceil(32)),
                ("VALUE_GROUPS", value_dim.div_ceil(64)),
                ("KEY_TILES", key_tiles(shape, 8)),
                ("WARPS", 4),
            ]
        },
        geometry: |shape| Geometry {
            pieces: rows(shape, shape.sel_heads()) * shape.sel_groups().div_ceil(16) as u64,
            warps: 4,
        },
    },
    Step {
        pass: Pass::QueryGradients,
        rung: Rung::Tensor,
        kernel: "dq_tensor",
        elements: HALF,
        multiple: 8,
        features_max: 2 * FEATURES_MAX,
        defines: |shape| {
            let (dim, value_dim) = (shape.dim(), shape.value_dim());
            vec![
                ("DIM_CHUNKS", dim.div_ceil(32)),
                ("DIM_GROUPS", dim.div_ceil(64)),
                ("VALUE_CHUNKS", value_dim.div_ceil(32)),
                ("KEY_TILES", key_tiles(shape, 4)),
                ("WARPS", query_warps(shape) as usize),
            ]
        },
        geometry: |shape| Geometry { pieces: rows(shape, shape.sel_heads()), warps: query_warps(shape) },
    },
    Step {
        pass: Pass::KeyGradients,
        rung: Rung::Tensor,
        kernel: "dkdv_tensor",
        elements: HALF,
        multiple: 8,
        // Both gradients of 16 keys are held in registers.
        features_max: 320,
        defines: |shape| {
            let (dim, value_dim) = (shape.dim(), shape.value_dim());
            vec![
                ("DIM_CHUNKS", dim.div_ceil(32)),
                ("DIM_GROUPS", dim.div_ceil(64)),
                ("VALUE_CHUNKS", value_dim.div_ceil(32)),
                ("VALUE_GROUPS", value_dim.div_ceil(64)),
                ("WARPS", key_warps(shape) as usize),
            ]
        },
        geometry: |shape| Geometry { pieces: shape.block_size().div_ceil(16) as u64, warps: key_warps(shape) },
    },
];

/// Tiles of 8 keys that the tensor kernels score at once: an even number, no more than a block fills, at most `most`.
fn key_tiles(shape: &Shape, most: usize) -> usize {
    (2 * shape.block_size().div_ceil(16)).min(most)
}

/// Warps of a `dq_tensor` CTA: its rows of q and d_out lie in 48 KiB of shared memory.
fn query_warps(shape: &Shape) -> u32 {
    if shape.dim().div_ceil(32) + shape.value_dim().div_ceil(32) <= 12 { 4 } else { 2 }
}

/// Warps of a `dkdv_tensor` CTA: 16 keys each, as many as a block fills.
fn key_warps(shape: &Shape) -> u32 {
    shape.block_size().div_ceil(16).min(4) as u32
}

/// Rows of a `[b, heads, n]` tensor.
pub(crate) fn rows(shape: &Shape, heads: usize) -> u64 {
    (shape.batch() * heads * shape.seq_len()) as u64
}

/// Registers that a lane holds of a row: 2, 4 or 8, so that few programs serve all sizes.
fn row_steps(shape: &Shape) -> Vec<(&'static str, usize)> {
    let steps = |width: usize| width.div_ceil(32).next_power_of_two().max(2);
    vec![("DIM_STEPS", steps(shape.dim())), ("VALUE_STEPS", steps(shape.value_dim()))]
}

fn step(pass: Pass, rung: Rung) -> Option<&'static Step> {
    LADDER.iter().find(|step| step.pass == pass && step.rung == rung)
}

impl Step {
    fn supports(&self, shape: &Shape, element: Element) -> Result<(), String> {
        let kernel = self.kernel;
        let (dim, value_dim) = (shape.dim(), shape.value_dim());
        if !self.elements.contains(&element) {
            return Err(format!("{kernel} does not take {element}"));
        }
        for (name, size) in [("dim", dim), ("value_dim", value_dim), ("block_size", shape.block_size())] {
            if size > FEATURES_MAX {
                return Err(format!("{kernel} takes {name} up to {FEATURES_MAX}, not {size}"));
            }
        }
        if dim + value_dim > self.features_max {
            return Err(format!("{kernel} takes dim + value_dim up to {}, not {dim} + {value_dim}", self.features_max));
        }
        if let Some(size) = [dim, value_dim].into_iter().find(|size| size % self.multiple != 0) {
            return Err(format!("{kernel} takes multiples of {} features, not {size}", self.multiple));
        }
        let rows = shape.seq_len().checked_mul(shape.groups());
        if self.rung == Rung::Tensor && rows.is_none_or(|rows| rows >= 1 << 31) {
            let (n, groups) = (shape.seq_len(), shape.groups());
            return Err(format!(
                "{kernel} numbers rows by 32 bits: {n} tokens x {groups} heads of a group are too many"
            ));
        }
        Ok(())
    }
}

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
        let fastest = |pass| {
            let supported = |step: &&Step| step.pass == pass && step.supports(shape, element).is_ok();
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

    /// The arithmetic of this variant's results: the least exact of its passes'.
    pub fn arithmetic(&self, element: Element) -> Arithmetic {
        if Pass::ALL.into_iter().any(|pass| self.rung(pass) == Rung::Tensor) {
            return Arithmetic::tensor_core(element);
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
}

impl Program {
    pub(crate) fn new(kernel: &'static str, element: Element, mut defines: Vec<(&'static str, usize)>) -> Self {
        let number = ANY.iter().position(|known| *known == element).expect("`supports` refuses other elements");
        defines.insert(0, ("ELEMENT", number));
        Program { kernel, defines }
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
        let sizes = nsa_corpus::Sizes {
            batch: 1,
            q_heads: 16,
            kv_heads: 1,
            seq_len: 512,
            dim,
            value_dim,
            block_size,
            num_sel: 4,
            sel_heads: 1,
        };
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

#[cfg(test)]
mod tests {
    use nsa_corpus::Sizes;

    use super::*;

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
        assert_eq!(mixed.arithmetic(Element::F16), Arithmetic::tensor_core(Element::F16));
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
    fn rungs_parse_back() {
        for rung in Rung::ALL {
            assert_eq!(rung.name().parse::<Rung>().unwrap(), rung);
        }
        assert!("fast".parse::<Rung>().is_err());
    }
}
