//! Relations between answers to the same problem in two arrangements. They need no oracle to be true, only to say how large a
//! difference rounding explains, and that at some rows: the sampled ones, and those that differ most.
//!
//! - The order of a row's slots, of batch entries, of kv heads with their groups, and of the query heads of a group changes
//!   nothing but the order of additions.
//! - A masked slot is a slot that is not there, and its `dsel_scale` is exactly 0.
//! - A batch is its entries, each alone.
//!
//! What may differ (docs/numerics.md): forward fields, and gradients of runs that saved the same bits, by the order of additions
//! alone; gradients of other saved outputs by what these change in the exact gradient, and each run's whole budget.

use std::fmt;

use ndarray::{ArrayD, Axis};
use nsa_corpus::{Arithmetic, BackwardReads, Field, Inputs, Outputs, Shape};
use nsa_reference::oracle::{self, Sample, SampledField};
use serde::{Deserialize, Serialize};

use super::arrange::Arrangement;
use crate::candidate::Candidate;
use crate::judge::element::position;
use crate::judge::reruns::{allowed, spread};
use crate::judge::sampled;
use crate::judge::verdict::{Class, Failure, Verdict};
use crate::run::{guarded, unanswered};

/// Rows of each field that are added to the sample because they differ most, absolutely and relatively each.
const RANKED_ROWS: usize = 6;
/// The same for keys, of which each needs every row that attends to it.
const RANKED_KEYS: usize = 2;

/// A relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// All of the next four in one arrangement: one run says that each holds.
    Rearranged,
    /// The slots in reverse order.
    SlotOrder,
    /// One more slot, first, and masked.
    MaskedSlot,
    /// The kv heads, and the query heads of each group, in reverse order.
    HeadOrder,
    /// The batch entries in reverse order.
    BatchOrder,
    /// Each batch entry alone.
    SplitBatch,
}

impl Relation {
    /// The relations that [`Relation::Rearranged`] holds at once.
    pub const REARRANGED: [Relation; 4] =
        [Relation::SlotOrder, Relation::MaskedSlot, Relation::HeadOrder, Relation::BatchOrder];

    /// Every relation.
    pub const ALL: [Relation; 6] = [
        Relation::Rearranged,
        Relation::SlotOrder,
        Relation::MaskedSlot,
        Relation::HeadOrder,
        Relation::BatchOrder,
        Relation::SplitBatch,
    ];

    /// The arrangements whose answers together answer a problem of `shape`; none where the relation says nothing about it.
    pub fn arrangements(self, shape: &Shape) -> Vec<Arrangement> {
        let identity = Arrangement::identity(shape);
        if self == Relation::SplitBatch {
            let alone = |b| Arrangement { batches: vec![b], ..identity.clone() };
            return if shape.batch() > 1 { (0..shape.batch()).map(alone).collect() } else { Vec::new() };
        }
        let mut arrangement = identity.clone();
        let holds = |relation| self == relation || self == Relation::Rearranged;
        if holds(Relation::SlotOrder) {
            arrangement.slots.reverse();
        }
        if holds(Relation::MaskedSlot) {
            arrangement.slots.insert(0, None);
        }
        if holds(Relation::HeadOrder) {
            arrangement.kv_heads.reverse();
            arrangement.groups.reverse();
        }
        if holds(Relation::BatchOrder) {
            arrangement.batches.reverse();
        }
        if arrangement == identity { Vec::new() } else { vec![arrangement] }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relation::Rearranged => "rearranged",
            Relation::SlotOrder => "slot order",
            Relation::MaskedSlot => "masked slot",
            Relation::HeadOrder => "head order",
            Relation::BatchOrder => "batch order",
            Relation::SplitBatch => "split batch",
        })
    }
}

/// How two answers compare in one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The field.
    pub field: Field,
    /// Elements looked at: all of them.
    pub elements: usize,
    /// Elements whose bits differ.
    pub differing: usize,
    /// Elements that were held to what may differ: those of the sampled rows and of the rows that differ most.
    pub held: usize,
    /// The largest spread over what is allowed.
    #[serde(with = "crate::number")]
    pub ratio: f64,
    /// The first reason to fail.
    pub failure: Option<Failure>,
}

/// What holding a relation came to.
pub type Outcome = Result<Vec<Held>, Verdict>;

/// Holds `relation` on `candidate`, which answered `inputs` with `first`. `None` where the relation says nothing about the problem.
///
/// # Errors
/// There was no second answer, or none to compare: the verdict says why.
pub fn hold(
    relation: Relation,
    inputs: &Inputs,
    candidate: &dyn Candidate,
    first: &Outputs,
    sample: &Sample,
) -> Option<Outcome> {
    let arrangements = relation.arrangements(inputs.shape());
    if arrangements.is_empty() {
        return None;
    }
    let mut again = Outputs::filled(inputs, f64::NAN);
    for arrangement in &arrangements {
        if let Err(verdict) = answer(relation, arrangement, inputs, candidate, &mut again) {
            return Some(Err(verdict));
        }
    }
    Some(Ok(compare(relation, inputs, candidate, [first, &again], sample)))
}

fn answer(
    relation: Relation,
    arrangement: &Arrangement,
    inputs: &Inputs,
    candidate: &dyn Candidate,
    into: &mut Outputs,
) -> Result<(), Verdict> {
    let arranged = arrangement.apply(inputs).map_err(|error| Verdict::Skip(error.to_string()))?;
    candidate.supports(&arranged).map_err(|reason| Verdict::Skip(reason.to_string()))?;
    let mut found = guarded(candidate, &arranged).map_err(unanswered)?;
    let declaration = candidate.declaration(&arranged);
    for field in Field::ALL.into_iter().filter(|field| !declaration.computes(*field)) {
        // Not judged: what stands there is as good as what should.
        found.set(field, ArrayD::zeros(field.shape(arranged.shape())));
    }
    arrangement.restore(inputs, &found, into).map_err(|message| {
        let message = format!("{relation}: {message}");
        Verdict::Fail(Failure::new(Class::Relation, None, message))
    })
}

/// Compares two answers to `inputs`, both in its own arrangement.
fn compare(
    relation: Relation,
    inputs: &Inputs,
    candidate: &dyn Candidate,
    runs: [&Outputs; 2],
    sample: &Sample,
) -> Vec<Held> {
    let declaration = candidate.declaration(inputs);
    let arithmetic = &declaration.arithmetic;
    let mut sample = sample.clone();
    let mut held = Vec::new();
    for field in Field::ALL.into_iter().filter(|field| field.asked_by(inputs) && declaration.computes(*field)) {
        let [first, again] = runs.map(|run| run.get(field).expect("both answer every field"));
        let ranked = Ranked::of(inputs, field, first, again, arithmetic.stored(field));
        let (elements, differing) = (first.len(), ranked.differing);
        ranked.add_to(inputs.shape(), field, &mut sample);
        held.push(Held { field, elements, differing, held: 0, ratio: 0.0, failure: None });
    }
    if held.iter().all(|held| held.differing == 0) {
        return held;
    }
    // What a backward reads of its own may differ where what was stored of it does not.
    let own = arithmetic.backward_reads == BackwardReads::Own;
    let saved_differ = own || held.iter().any(|held| !held.field.is_gradient() && held.differing > 0);
    for rows in differences(inputs, arithmetic, runs, &sample, saved_differ) {
        if let Some(held) = held.iter_mut().find(|held| held.field == rows.field) {
            held.hold(
                relation,
                &rows,
                runs.map(|run| run.get(rows.field).expect("both answer every field")),
                arithmetic,
            );
        }
    }
    held
}

/// What may differ, as one-sided order bounds ([`allowed`] doubles them and adds the rounding to the stored format).
fn differences(
    inputs: &Inputs,
    arithmetic: &Arithmetic,
    [first, again]: [&Outputs; 2],
    sample: &Sample,
    saved_differ: bool,
) -> Vec<SampledField> {
    let mut rows = oracle::sampled_order_bounds(inputs, (!saved_differ).then_some(first), sample, arithmetic);
    if saved_differ {
        let [ours, theirs] = [first, again].map(|saved| oracle::sampled_backward(inputs, saved, sample, arithmetic));
        for (mut ours, theirs) in ours.into_iter().zip(theirs) {
            // |x - y| <= |o1 - o2| + B1 + B2.
            let moved = (&ours.values - &theirs.values).mapv(f64::abs);
            ours.rigorous = (moved + &ours.rigorous + &theirs.rigorous) / 2.0;
            rows.push(ours);
        }
    }
    rows
}

impl Held {
    fn hold(&mut self, relation: Relation, rows: &SampledField, runs: [&ArrayD<f64>; 2], arithmetic: &Arithmetic) {
        let [first, again] = runs.map(|run| sampled(run, &rows.positions));
        let stored = arithmetic.stored(self.field);
        for ((row, column), &bound) in rows.rigorous.indexed_iter() {
            let (x, y) = (first[[row, column]], again[[row, column]]);
            let (spread, allowed) = (spread(x, y, stored), allowed(bound, x, y, stored));
            self.held += 1;
            let ratio = if spread == 0.0 { 0.0 } else { spread / allowed };
            let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
            if !(ratio <= self.ratio) {
                self.ratio = ratio;
                if !(spread <= allowed) {
                    let index: Vec<usize> = rows.positions[row].into_iter().chain([column]).collect();
                    let position = position(self.field, &index);
                    let message = format!(
                        "{relation}: {} at {position}: {x:e} and, rearranged, {y:e}: spread {spread:.3e}, allowed {allowed:.3e}",
                        self.field
                    );
                    self.failure = Some(Failure::new(Class::Relation, Some(self.field), message));
                }
            }
        }
    }
}

/// The rows of a field that differ most.
struct Ranked {
    differing: usize,
    /// `(score, position)`, by absolute and by relative difference.
    best: [Vec<(f64, [usize; 3])>; 2],
}

impl Ranked {
    fn of(inputs: &Inputs, field: Field, first: &ArrayD<f64>, again: &ArrayD<f64>, stored: nsa_corpus::Dtype) -> Self {
        let keep = if matches!(field, Field::Dk | Field::Dv) { RANKED_KEYS } else { RANKED_ROWS };
        let mut ranked = Ranked { differing: 0, best: Default::default() };
        let tokens = inputs.shape().seq_len();
        for (head, (first, again)) in heads(first).zip(heads(again)).enumerate() {
            for (i, (first, again)) in first.axis_iter(Axis(0)).zip(again.axis_iter(Axis(0))).enumerate() {
                let (mut most, mut size) = (0.0f64, 0.0f64);
                for (x, y) in first.iter().zip(again) {
                    ranked.differing += usize::from(x.to_bits() != y.to_bits());
                    most = most.max(spread(*x, *y, stored));
                    size = size.max(x.abs()).max(y.abs());
                }
                if most > 0.0 {
                    debug_assert!(i < tokens);
                    ranked.add(keep, [most, most / size], [head, i]);
                }
            }
        }
        let heads = field.shape(inputs.shape())[1];
        ranked.best.iter_mut().flatten().for_each(|(_, position)| {
            *position = [position[0] / heads, position[0] % heads, position[2]];
        });
        ranked
    }

    fn add(&mut self, keep: usize, scores: [f64; 2], [head, i]: [usize; 2]) {
        for (best, score) in self.best.iter_mut().zip(scores) {
            if best.len() < keep || best.last().is_some_and(|(least, _)| score > *least) {
                best.push((score, [head, 0, i]));
                best.sort_by(|left, right| right.0.total_cmp(&left.0));
                best.truncate(keep);
            }
        }
    }

    fn add_to(&self, shape: &Shape, field: Field, sample: &mut Sample) {
        for &(_, [b, head, i]) in self.best.iter().flatten() {
            match field {
                Field::Dk | Field::Dv => sample.keys.insert([b, head, i]),
                Field::DselScale => sample.tokens.insert([b, head / (shape.sel_heads() / shape.kv_heads()), i]),
                _ => sample.tokens.insert([b, head / shape.groups(), i]),
            };
        }
    }
}

/// `[token, width]` or `[token]` of every batch entry and head, in order.
fn heads(tensor: &ArrayD<f64>) -> impl Iterator<Item = ndarray::ArrayViewD<'_, f64>> {
    tensor.axis_iter(Axis(0)).flat_map(|batch| {
        let heads: Vec<_> = (0..batch.shape()[0]).map(|head| batch.clone().index_axis_move(Axis(0), head)).collect();
        heads
    })
}
