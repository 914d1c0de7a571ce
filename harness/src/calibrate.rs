//! What arithmetic a candidate's dot products really have: sums that are planted in ordinary problems and read back from `lse` and
//! `out`, whatever the candidate is.
//!
//! Two products `1` and `-1` cancel, and a third one, `2^-j`, is added beside them. It is lost if it meets the `1` before that has
//! cancelled and is below what the sum keeps there: its position says which products are added at once, the largest `j` that
//! survives how many bits are kept. Many products just below what is kept, beside a single large one, are the worst
//! that truncation can meet: the error that they leave is a lower bound of the constant `c_K` (docs/numerics.md), and one
//! above what the candidate declares refutes the declaration.

use ndarray::{Array2, Array4, Axis};
use nsa_corpus::{Arithmetic, Cotangents, Dot, Dtype, Error, Field, InputParts, Inputs, Outputs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::candidate::{Candidate, CandidateError};

/// Products in each planted sum, and keys in a block.
pub const PRODUCTS: usize = 64;

/// What reading a sum back may add to its error, in units of `2^-24` of it: the scale, the factor, `lse` or the division.
const READING: f64 = 16.0;

/// A declaration may be this many bits short of what sums keep: rungs share theirs, and partly filled tiles need two.
pub const LOOSER: i32 = 4;

/// Where the 1, the small product and the -1 stand: next to each other, and far apart in either half. Partial sums kept by lanes
/// cancel the 1 before they meet the small product in some of these, not in all.
const BETWEEN: [[usize; 3]; 3] = [[0, 1, 2], [0, 1, PRODUCTS - 1], [0, PRODUCTS / 2, PRODUCTS - 1]];

/// `2^-24`, the unit that errors are given in.
const UNIT: f64 = 1.0 / 16_777_216.0;

/// The constant of `dot` for [`PRODUCTS`] products, in units of `2^-24`.
pub fn units(dot: Dot) -> f64 {
    dot.constant(PRODUCTS) / UNIT
}

/// A dot product of the forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sum {
    /// `<q, k>` over features, read from the `lse` of rows with a single key.
    Scores,
    /// `sum P v` over the keys of a block, all of the same weight, read from `out`.
    Products,
}

impl Sum {
    /// Both.
    pub const ALL: [Sum; 2] = [Sum::Scores, Sum::Products];

    /// `"scores"` or `"products"`, as in `nsa_corpus::Arithmetic`.
    pub fn name(self) -> &'static str {
        match self {
            Sum::Scores => "scores",
            Sum::Products => "products",
        }
    }

    /// The exponent of a planted 1: the smallest `2^-j` beside it is no subnormal in f16, and as a score far above what `lse` rounds.
    fn one(self) -> i32 {
        match self {
            Sum::Scores => 28,
            Sum::Products => 15,
        }
    }

    /// The largest `j` that is tried.
    fn deepest(self) -> i32 {
        match self {
            Sum::Scores => 36,
            Sum::Products => 28,
        }
    }

    /// What `arithmetic` says of it.
    pub fn declared(self, arithmetic: &Arithmetic) -> Dot {
        match self {
            Sum::Scores => arithmetic.scores,
            Sum::Products => arithmetic.products,
        }
    }
}

/// What one kind of sum was found to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Which sum.
    pub sum: Sum,
    /// The format of the inputs.
    pub dtype: Dtype,
    /// What the candidate declares of it.
    pub declared: Dot,
    /// Its constant, as [`units`].
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub declared_units: f64,
    /// Products that meet before the first two have cancelled: those that are added at once, or all of them where partial sums are
    /// added up last; 1 where each is added to what was there before.
    pub together: usize,
    /// The largest `j` with `2^-j` kept beside a 1; `None`: every one that was tried.
    pub kept: Option<i32>,
    /// The largest `j` with `2^-j` kept between a 1 and a -1, in whatever order they are added: the bits that every sum keeps. The
    /// largest that was tried where all are kept. Of tiles, what is kept from one to the next counts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<i32>,
    /// The largest error found, relative to the sum of the magnitudes, in units of `2^-24`.
    #[serde(with = "crate::number")]
    #[schemars(with = "crate::number::Number")]
    pub attained_units: f64,
}

impl Measured {
    /// Whether an error was found that is larger than the declaration allows.
    pub fn refuted(&self) -> bool {
        self.attained_units > self.declared_units + READING
    }

    /// The power of two by which sums keep more than is declared, where it is [`LOOSER`] or more: the declaration would let errors
    /// through that the candidate does not have.
    pub fn looser(&self) -> Option<i32> {
        let declared = match self.declared {
            Dot::Fma { unit } => -unit.log2().ceil() as i32 - 1,
            Dot::Blocks { extra_bits, .. } | Dot::Tf32 { extra_bits } => 23 + extra_bits,
        };
        self.between.map(|between| between - declared).filter(|looser| *looser >= LOOSER)
    }

    /// The tiles that were found, where products are added several at once and truncated. Partial sums that are rounded look
    /// alike at first, but leave far smaller errors than such tiles would.
    pub fn tiles(&self) -> Option<Dot> {
        let kept = self.kept.filter(|_| self.together > 2)?;
        let tiles = Dot::Blocks { block: self.together, extra_bits: kept - 23 };
        (self.attained_units > units(tiles) / 8.0).then_some(tiles)
    }
}

/// Why a sum was not measured.
#[derive(Debug, thiserror::Error)]
pub enum Unmeasured {
    /// The candidate does not compute such a problem.
    #[error("{0}")]
    Unsupported(String),
    /// The candidate gave no answer, or none that is finite.
    #[error("{0}")]
    Candidate(#[from] CandidateError),
    /// The problem is none.
    #[error("{0}")]
    Problem(#[from] Error),
}

/// Measures `sum` of `candidate` on inputs of `dtype` whose groups have `groups` query heads.
///
/// # Errors
/// The candidate does not support the problems or gives no finite answer to one.
pub fn measure(candidate: &dyn Candidate, sum: Sum, dtype: Dtype, groups: usize) -> Result<Measured, Unmeasured> {
    let plant = Plant { candidate, sum, dtype, groups };
    let lost = plant.positions_lost()?;
    let kept = plant.kept(lost.first().copied().unwrap_or(2))?;
    let between = Some(plant.between()?);
    let (declared, attained) = plant.attained()?;
    Ok(Measured {
        sum,
        dtype,
        declared,
        declared_units: units(declared),
        together: if lost.is_empty() { 1 } else { lost.len() + 2 },
        kept,
        between,
        attained_units: attained / UNIT,
    })
}

struct Plant<'a> {
    candidate: &'a dyn Candidate,
    sum: Sum,
    dtype: Dtype,
    groups: usize,
}

impl Plant<'_> {
    /// Positions at which `2^-j` is lost beside `1 - 1` at positions 0 and 1.
    fn positions_lost(&self) -> Result<Vec<usize>, Unmeasured> {
        let small = 2f64.powi(-self.sum.deepest());
        let sums: Vec<_> = (2..PRODUCTS).map(|position| cancelling(position, small)).collect();
        let (_, found) = self.compute(&sums)?;
        Ok((2..PRODUCTS).zip(found).filter(|(_, found)| *found < small / 2.0).map(|(position, _)| position).collect())
    }

    /// The largest `j` so that `2^-j` at `position` is kept beside `1 - 1`; `None`: all of them.
    fn kept(&self, position: usize) -> Result<Option<i32>, Unmeasured> {
        let depths: Vec<i32> = (8..=self.sum.deepest()).collect();
        let sums: Vec<_> = depths.iter().map(|depth| cancelling(position, 2f64.powi(-depth))).collect();
        let (_, found) = self.compute(&sums)?;
        let lost = depths.iter().zip(found).find(|(depth, found)| *found < 2f64.powi(-**depth - 1));
        Ok(lost.map(|(depth, _)| depth - 1))
    }

    /// The largest `j` with `2^-j` kept between a 1 and a -1 wherever they stand.
    fn between(&self) -> Result<i32, Unmeasured> {
        let depths: Vec<i32> = (8..=self.sum.deepest()).collect();
        let mut kept = self.sum.deepest();
        for [one, small, minus] in BETWEEN {
            let mutated = |depth: &i32| {
                let mut products = vec![0.0; PRODUCTS];
                (products[one], products[small], products[minus]) = (1.0, 2f64.powi(-*depth), -1.0);
                products
            };
            let sums: Vec<_> = depths.iter().map(mutated).collect();
            let (_, found) = self.compute(&sums)?;
            let lost = depths.iter().zip(found).find(|(depth, found)| *found < 2f64.powi(-**depth - 1));
            kept = kept.min(lost.map_or(kept, |(depth, _)| depth - 1));
        }
        Ok(kept)
    }

    /// What is declared, and the largest error over the sum of magnitudes among sums that truncation treats worst.
    fn attained(&self) -> Result<(Dot, f64), Unmeasured> {
        let mut sums = Vec::new();
        for depth in 20..=self.sum.deepest() {
            // All bits set that bf16 has: the most that can be cut off.
            let small = (2.0 - 2f64.powi(-7)) * 2f64.powi(-depth);
            for large in [0, PRODUCTS - 1] {
                let mut products = vec![small; PRODUCTS];
                products[large] = 1.0;
                if self.sum == Sum::Products {
                    // `out` may be stored in 16 bits: only what is left after cancelling can be read exactly enough.
                    products[PRODUCTS - 1 - large] = -1.0;
                }
                sums.push(products);
            }
        }
        let (declared, found) = self.compute(&sums)?;
        let relative = sums.iter().zip(found).map(|(products, found)| {
            let exact: f64 = products.iter().sum();
            let magnitude: f64 = products.iter().map(|product| product.abs()).sum();
            (found - exact).abs() / magnitude
        });
        Ok((declared, relative.fold(0.0, f64::max)))
    }

    /// What the candidate makes of these sums, and what it declares of them.
    fn compute(&self, sums: &[Vec<f64>]) -> Result<(Dot, Vec<f64>), Unmeasured> {
        let inputs = self.inputs(sums)?;
        self.candidate.supports(&inputs).map_err(|reason| Unmeasured::Unsupported(reason.to_string()))?;
        let outputs = self.candidate.run(&inputs).map_err(|error| match error {
            CandidateError::Unsupported(reason) => Unmeasured::Unsupported(reason),
            other => Unmeasured::Candidate(other),
        })?;
        let found = self.read(&inputs, &outputs, sums.len())?;
        Ok((self.sum.declared(&self.candidate.declaration(&inputs).arithmetic), found))
    }

    /// Blocks of keys without any selection. Scores: the first query and key of each block multiply to the products of a sum.
    /// Products: q and k are 0, and each feature of a block's values holds the products of a sum.
    fn inputs(&self, sums: &[Vec<f64>]) -> Result<Inputs, Error> {
        let blocks = match self.sum {
            Sum::Scores => sums.len(),
            Sum::Products => sums.len().div_ceil(PRODUCTS),
        };
        let tokens = blocks * PRODUCTS;
        let (mut q, mut k, mut v) = (zeros(tokens), zeros(tokens), zeros(tokens));
        for (index, products) in sums.iter().enumerate() {
            for (position, product) in products.iter().enumerate() {
                match self.sum {
                    Sum::Scores => {
                        let (left, right) = factors(*product, self.sum.one());
                        q[[index * PRODUCTS, position]] = left;
                        k[[index * PRODUCTS, position]] = right;
                    }
                    Sum::Products => {
                        let row = index / PRODUCTS * PRODUCTS + position;
                        v[[row, index % PRODUCTS]] = product * 2f64.powi(self.sum.one());
                    }
                }
            }
        }
        let heads = |tensor: Array2<f64>, count: usize| -> Array4<f64> {
            let wide = tensor.insert_axis(Axis(0)).insert_axis(Axis(0));
            wide.broadcast((1, count, tokens, PRODUCTS)).expect("axes of length 1").to_owned()
        };
        Inputs::new(InputParts {
            block_size: PRODUCTS,
            include_block_causal: true,
            sliding_window: None,
            dtype: self.dtype,
            q: heads(q, self.groups),
            k: heads(k, 1),
            v: heads(v, 1),
            indices: Array4::zeros((1, 1, tokens, 1)),
            mask: Array4::from_elem((1, 1, tokens, 1), false),
            sel_scale: None,
            cotangents: Cotangents::default(),
        })
    }

    fn read(&self, inputs: &Inputs, outputs: &Outputs, count: usize) -> Result<Vec<f64>, CandidateError> {
        let (field, unit) = match self.sum {
            Sum::Scores => (Field::Lse, inputs.shape().scale()),
            Sum::Products => (Field::Out, 1.0 / PRODUCTS as f64),
        };
        let tensor = outputs.get(field).filter(|tensor| tensor.shape() == field.shape(inputs.shape()));
        let tensor = tensor.ok_or_else(|| CandidateError::Broken(format!("no {field} of its shape")))?;
        let head = tensor.index_axis(Axis(0), 0).index_axis_move(Axis(0), 0);
        let found: Vec<f64> = (0..count)
            .map(|index| match self.sum {
                Sum::Scores => head[[index * PRODUCTS].as_slice()],
                Sum::Products => head[[index / PRODUCTS * PRODUCTS + PRODUCTS - 1, index % PRODUCTS].as_slice()],
            })
            .map(|value| value / (unit * 2f64.powi(self.sum.one())))
            .collect();
        match found.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(CandidateError::Broken(format!("{field} of a planted sum is {value}"))),
            None => Ok(found),
        }
    }
}

/// `1 - 1`, and `small` at `position`.
fn cancelling(position: usize, small: f64) -> Vec<f64> {
    let mut products = vec![0.0; PRODUCTS];
    (products[0], products[1], products[position]) = (1.0, -1.0, small);
    products
}

/// Two numbers, exact in every format, whose product is `product` times `2^one`.
fn factors(product: f64, one: i32) -> (f64, f64) {
    if product == 0.0 {
        return (0.0, 0.0);
    }
    let exponent = product.abs().log2().floor() as i32 + one;
    let left = 2f64.powi(exponent.div_euclid(2));
    (left, product * 2f64.powi(one) / left)
}

fn zeros(tokens: usize) -> Array2<f64> {
    Array2::zeros((tokens, PRODUCTS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_exact_in_every_format_and_no_subnormals() {
        let small = (2.0 - 2f64.powi(-7)) * 2f64.powi(-Sum::Scores.deepest());
        for product in [1.0, -1.0, small, 2f64.powi(-Sum::Scores.deepest()), 2f64.powi(-9)] {
            let (left, right) = factors(product, Sum::Scores.one());
            assert_eq!(left * right, product * 2f64.powi(Sum::Scores.one()));
            for dtype in [Dtype::F16, Dtype::Bf16] {
                for factor in [left, right] {
                    assert_eq!(dtype.round(factor), factor, "{dtype}");
                    assert!(factor.abs() >= 2f64.powi(-14), "{factor}");
                }
            }
        }
        assert_eq!(factors(0.0, 28), (0.0, 0.0));
    }
}
