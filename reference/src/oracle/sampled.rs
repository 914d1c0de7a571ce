//! The oracle at some rows only, for problems too large to answer whole: the same bits as the whole answer has there, and the
//! same budgets.
//!
//! A query row needs the keys it attends to and nothing else. A key needs every row that attends to it: those rows are found by
//! one look at all selections, and streamed through the backward's two passes in their order, so memory stays small.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use nsa_corpus::{Arithmetic, Delta, Field, Inputs, Outputs};
use pulp::Arch;
use rayon::prelude::*;

use super::backward_rows::{self, RowTask};
use super::columns::{self, Columns};
use super::delta_bounds::alike;
use super::forward::forward_token;
use super::kernels::PANEL;
use super::model::{Model, TIERS};
use super::packed::{Head, padded_keys};
use super::saved::{Counts, Saved, Sums, TokenRows};
use super::{fields_of, finish, parts, saved_fields, saved_parts, unrounded};

/// Tokens whose rows are kept at once.
const CHUNK: usize = 64;

/// Which rows to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// `[batch, kv head, token]`: every query head of the kv head at that token (`out`, `lse`, `dq`, `dsel_scale` and the sliding
    /// fields).
    pub tokens: BTreeSet<[usize; 3]>,
    /// `[batch, kv head, key]`: `dk` and `dv`.
    pub keys: BTreeSet<[usize; 3]>,
}

/// Rows of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledField {
    /// Which field.
    pub field: Field,
    /// Where each row stands in the field: its indices but for the last axis (all three for `lse`).
    pub positions: Vec<[usize; 3]>,
    /// `[row, width]`; the width of `lse` is 1.
    pub values: Array2<f64>,
    /// Tier B of each element; order alone for [`sampled_order_bounds`].
    pub rigorous: Array2<f64>,
    /// Tier H of each element.
    pub likely: Array2<f64>,
}

/// `out` and `lse`, and their sliding counterparts, at the sampled tokens.
///
/// # Panics
/// A position of `sample` is outside the problem.
///
/// # Examples
/// ```
/// use nsa_corpus::{Arithmetic, Case, Dtype, Field, Sizes};
/// use nsa_reference::oracle::{self, Sample};
/// let sizes = Sizes {
///     batch: 1, q_heads: 2, kv_heads: 1, seq_len: 4096, dim: 8, value_dim: 8, block_size: 32, num_sel: 2, sel_heads: 1,
/// };
/// let inputs = Case::ordinary(sizes, 1).materialize(Dtype::F32).unwrap();
/// let sample = Sample { tokens: [[0, 0, 4000]].into(), ..Sample::default() };
/// let fields = oracle::sampled_forward(&inputs, &sample, &Arithmetic::f32());
/// assert_eq!((fields[0].field, fields[0].positions.as_slice()), (Field::Out, &[[0, 0, 4000], [0, 1, 4000]][..]));
/// ```
pub fn sampled_forward(inputs: &Inputs, sample: &Sample, arithmetic: &Arithmetic) -> Vec<SampledField> {
    let mut gathered = Gathered::default();
    add_forward(inputs, sample, &Model::new(arithmetic, inputs.shape()), &mut gathered);
    gathered.fields()
}

/// The gradients that follow from `saved` ([`backward`](super::backward)): `dq` and `dsel_scale` at the sampled tokens, `dk` and `dv`
/// at the sampled keys. Nothing without a cotangent.
///
/// # Panics
/// As [`sampled_forward`] and [`backward`](super::backward).
pub fn sampled_backward(
    inputs: &Inputs,
    saved: &Outputs,
    sample: &Sample,
    arithmetic: &Arithmetic,
) -> Vec<SampledField> {
    let mut gathered = Gathered::default();
    add_backward(inputs, saved, sample, &Model::new(arithmetic, inputs.shape()), &mut gathered);
    gathered.fields()
}

/// What the order of additions alone can make of every sampled row ([`order_bounds`](super::order_bounds)), in
/// [`SampledField::rigorous`]; without `saved`, of the forward fields only.
///
/// # Panics
/// As [`sampled_forward`] and [`backward`](super::backward).
pub fn sampled_order_bounds(
    inputs: &Inputs,
    saved: Option<&Outputs>,
    sample: &Sample,
    arithmetic: &Arithmetic,
) -> Vec<SampledField> {
    let model = Model::order_only(arithmetic, inputs.shape());
    let mut gathered = Gathered::default();
    add_forward(inputs, sample, &model, &mut gathered);
    if let Some(saved) = saved {
        add_backward(inputs, saved, sample, &model, &mut gathered);
    }
    gathered.fields()
}

fn add_forward(inputs: &Inputs, sample: &Sample, model: &Model, gathered: &mut Gathered) {
    let groups = inputs.shape().groups();
    for region in Region::of(inputs, sample).into_iter().filter(|region| !region.tokens.is_empty()) {
        let [b, h] = region.at;
        let head = Head::new(inputs, b, h);
        for part in parts(inputs) {
            let token = |i: &usize| forward_token(inputs, &head, part, Some(model), [region.number, *i]);
            let answers: Vec<_> = region.tokens.par_iter().map(token).collect();
            let [out, lse] = fields_of(part);
            for (i, answer) in region.tokens.iter().zip(answers) {
                let positions = (0..groups).map(|g| [b, h * groups + g, *i]);
                gathered.add(out, positions.clone(), &answer.out, answer.out_bounds.each_ref().map(Vec::as_slice));
                gathered.add(lse, positions, &answer.lse, answer.lse_bounds.each_ref().map(Vec::as_slice));
            }
        }
    }
}

fn add_backward(inputs: &Inputs, saved: &Outputs, sample: &Sample, model: &Model, gathered: &mut Gathered) {
    if !inputs.cotangents().any() {
        return;
    }
    let parts = parts(inputs);
    let fields = saved_fields(inputs, &parts, saved);
    let zeros = vec![0.0; fields[0][1].len()];
    let off = unrounded(model, saved, None);
    let off = off.as_ref().map(|off| [&off.rigorous, &off.likely].map(|tier| saved_fields(inputs, &parts, tier)));
    let saved = saved_parts(inputs, &parts, &fields, off.as_ref(), &zeros);
    for region in Region::of(inputs, sample) {
        let [b, h] = region.at;
        let head = Head::new(inputs, b, h);
        let counts = Counts::of(inputs, region.number, &saved);
        let alike: Vec<Vec<f64>> = saved.iter().map(|saved| alike(inputs, saved, region.number)).collect();
        let (head, counts, alike) = (&head, &counts, alike.as_slice());
        let backward = Backward { inputs, model, saved: &saved, alike, head, counts, region: &region };
        backward.tokens(gathered);
        backward.keys(gathered);
    }
}

/// What is sampled of one (batch, kv head).
struct Region {
    number: usize,
    at: [usize; 2],
    tokens: Vec<usize>,
    keys: Vec<usize>,
}

impl Region {
    /// Those of which anything is sampled.
    fn of(inputs: &Inputs, sample: &Sample) -> Vec<Region> {
        let shape = inputs.shape();
        let mut regions: BTreeMap<usize, Region> = BTreeMap::new();
        for (positions, key) in [(&sample.tokens, false), (&sample.keys, true)] {
            for &[b, h, i] in positions {
                let inside = b < shape.batch() && h < shape.kv_heads() && i < shape.seq_len();
                assert!(inside, "the sampled position {:?} is outside the problem", [b, h, i]);
                let number = b * shape.kv_heads() + h;
                let new = || Region { number, at: [b, h], tokens: Vec::new(), keys: Vec::new() };
                let region = regions.entry(number).or_insert_with(new);
                if key { region.keys.push(i) } else { region.tokens.push(i) }
            }
        }
        regions.into_values().collect()
    }
}

/// The backward of one (batch, kv head).
struct Backward<'a> {
    inputs: &'a Inputs,
    model: &'a Model,
    saved: &'a [Saved<'a>],
    /// Of each part ([`RowTask`]).
    alike: &'a [Vec<f64>],
    head: &'a Head,
    counts: &'a Counts,
    region: &'a Region,
}

impl Backward<'_> {
    /// The first pass at tokens `at`, for the terms of `panels` alone where given.
    fn pass(&self, part: usize, at: &[usize], panels: Option<&BTreeSet<usize>>, tokens: &mut [TokenRows]) {
        let Backward { inputs, model, head, counts, .. } = *self;
        let (saved, alike) = (&self.saved[part], &self.alike[part]);
        let [b, h] = self.region.at;
        let task = RowTask { inputs, head, saved, model: Some(model), counts, alike, panels, b, h };
        let arch = Arch::new();
        tokens.par_iter_mut().zip(at).for_each_init(backward_rows::Rows::default, |rows, (token, i)| {
            arch.dispatch(|| task.token(rows, *i, token));
        });
    }

    /// `dq` and `dsel_scale` at the sampled tokens.
    fn tokens(&self, gathered: &mut Gathered) {
        let shape = self.inputs.shape();
        let [b, h] = self.region.at;
        let per_head = shape.groups() / shape.sel_groups();
        for at in self.region.tokens.chunks(CHUNK) {
            let new = |width: usize| at.iter().map(|_| Sums::zeros(width, true)).collect::<Vec<_>>();
            let (mut dq, mut dsel_scale) = (new(shape.groups() * shape.dim()), new(per_head * shape.num_sel()));
            let mut tokens: Vec<TokenRows> = at.iter().map(|_| TokenRows::default()).collect();
            for part in 0..self.saved.len() {
                self.pass(part, at, None, &mut tokens);
                for (token, (dq, dsel_scale)) in tokens.iter().zip(dq.iter_mut().zip(&mut dsel_scale)) {
                    add(dq, &token.dq);
                    add(dsel_scale, &token.dsel_scale);
                }
            }
            for (i, (dq, dsel_scale)) in at.iter().zip(dq.iter().zip(&dsel_scale)) {
                let rows = |heads: usize| (0..heads).map(move |head| [b, h * heads + head, *i]);
                gathered.finish(self.model, Field::Dq, rows(shape.groups()), dq);
                if Field::DselScale.asked_by(self.inputs) && shape.num_sel() > 0 {
                    gathered.finish(self.model, Field::DselScale, rows(per_head), dsel_scale);
                }
            }
        }
    }

    /// `dk` and `dv` at the sampled keys: the rows that visit their panels, in order.
    fn keys(&self, gathered: &mut Gathered) {
        if self.region.keys.is_empty() {
            return;
        }
        let shape = self.inputs.shape();
        let [b, h] = self.region.at;
        let panels: BTreeSet<usize> = self.region.keys.iter().map(|key| key / PANEL).collect();
        // A term's P and dS follow from what was saved. Where delta is summed over P and dP it takes the whole row, and so it does to
        // tell whether a row without d_out is finite, and what its delta errs by where what was saved is not known.
        let known = self.saved.iter().all(|saved| saved.off.is_none());
        let alone = known && self.model.arithmetic.delta == Delta::Output;
        let padded = padded_keys(self.inputs);
        // Pages of these that no sampled panel touches are never written, and take no memory.
        let mut dk = Sums::zeros(padded * shape.dim(), true);
        let mut dv = Sums::zeros(padded * shape.value_dim(), true);
        for (part, saved) in self.saved.iter().enumerate() {
            let mut tokens: Vec<TokenRows> = (0..CHUNK).map(|_| TokenRows::default()).collect();
            for at in self.visitors(saved, &panels).chunks(CHUNK) {
                let tokens = &mut tokens[..at.len()];
                self.pass(part, at, Some(&panels).filter(|_| alone && saved.d_out.is_some()), tokens);
                let mut visits = columns::visits(tokens, shape.groups());
                visits.retain(|(panel, _)| panels.contains(panel));
                Columns { inputs: self.inputs, saved, tokens, b, h }.add(&visits, &mut dk, &mut dv);
            }
        }
        for (field, sums, width) in [(Field::Dk, &dk, shape.dim()), (Field::Dv, &dv, shape.value_dim())] {
            for &key in &self.region.keys {
                let row = key * width..(key + 1) * width;
                let cut = |values: &Vec<f64>| values[row.clone()].to_vec();
                let errors = sums.errors.each_ref().map(cut);
                let row = Sums { values: cut(&sums.values), errors, squares: cut(&sums.squares) };
                gathered.finish(self.model, field, std::iter::once([b, h, key]), &row);
            }
        }
    }

    /// The tokens of which a row attends to a key of `panels`, ascending.
    fn visitors(&self, saved: &Saved<'_>, panels: &BTreeSet<usize>) -> Vec<usize> {
        let shape = self.inputs.shape();
        let [b, h] = self.region.at;
        let together = saved.part.heads_together(shape);
        let mut spans = Vec::new();
        let mut visits = |i: usize| {
            (0..shape.groups()).step_by(together).any(|g| {
                saved.part.spans(self.inputs, [b, h * shape.groups() + g, i], &mut spans);
                spans.iter().any(|span| span.touches(panels))
            })
        };
        (0..shape.seq_len()).filter(|i| visits(*i)).collect()
    }
}

/// Adds one token's rows, all arrays.
fn add(sums: &mut Sums, rows: &[Vec<f64>]) {
    for (sums, rows) in sums.arrays_mut().zip(rows) {
        sums.iter_mut().zip(rows).for_each(|(sum, value)| *sum += value);
    }
}

/// Rows as they come, by field.
#[derive(Default)]
struct Gathered {
    fields: BTreeMap<Field, Rows>,
}

/// Rows of one field.
#[derive(Default)]
struct Rows {
    positions: Vec<[usize; 3]>,
    values: Vec<f64>,
    bounds: [Vec<f64>; TIERS],
}

impl Gathered {
    fn add(
        &mut self,
        field: Field,
        positions: impl Iterator<Item = [usize; 3]>,
        values: &[f64],
        bounds: [&[f64]; TIERS],
    ) {
        let rows = self.fields.entry(field).or_default();
        rows.positions.extend(positions);
        rows.values.extend_from_slice(values);
        rows.bounds.iter_mut().zip(bounds).for_each(|(all, bounds)| all.extend_from_slice(bounds));
    }

    fn finish(&mut self, model: &Model, field: Field, positions: impl Iterator<Item = [usize; 3]>, sums: &Sums) {
        let mut bounds: [Vec<f64>; TIERS] = Default::default();
        finish(model, field, sums, sums.values.len(), &mut bounds);
        self.add(field, positions, &sums.values, bounds.each_ref().map(Vec::as_slice));
    }

    fn fields(self) -> Vec<SampledField> {
        self.fields.into_iter().map(|(field, rows)| rows.field(field)).collect()
    }
}

impl Rows {
    fn field(self, field: Field) -> SampledField {
        let Rows { positions, values, bounds } = self;
        let dim = (positions.len(), values.len() / positions.len());
        let rows = |values| Array2::from_shape_vec(dim, values).expect("rows are added whole");
        let [rigorous, likely] = bounds.map(rows);
        SampledField { field, positions, values: rows(values), rigorous, likely }
    }
}
