//! The forward: `out = sum_t p_t v_t`, `lse = ln sum_t exp(s_t)`, a running softmax over the tiles of each row.

use nsa_corpus::{Field, Outputs};

use super::mutation::{Numbers, Pass};
use super::numbers::Machine;
use super::terms::{Row, Term};
use crate::real::{Real, add_scaled};

/// What the forward leaves for all rows.
pub(super) struct Saved<R> {
    /// `[b, q_heads, n, value_dim]`.
    pub out: Vec<R>,
    /// `[b, q_heads, n]`.
    pub lse: Vec<R>,
    /// The largest score of each row.
    pub max: Vec<R>,
    /// Its sum of `exp(s - max)`.
    sum: Vec<R>,
}

impl<R: Real> Saved<R> {
    /// With `out` and `lse` as `saved` has them, where it has them and they are finite.
    pub(super) fn replaced(mut self, saved: Option<&Outputs>, fields: [Field; 2]) -> Self {
        for (field, values) in fields.into_iter().zip([&mut self.out, &mut self.lse]) {
            let given = saved.and_then(|saved| saved.get(field)).filter(|given| given.len() == values.len());
            for (value, given) in values.iter_mut().zip(given.into_iter().flatten()) {
                if given.is_finite() {
                    *value = R::narrow(*given);
                }
            }
        }
        self
    }
}

/// The running state of one row.
struct Running<R> {
    max: R,
    sum: R,
    out: Vec<R>,
}

/// All rows of the selected part, or of the sliding part.
pub(super) fn run<R: Real>(machine: &Machine<'_, R>, window: Option<usize>) -> Saved<R> {
    let lister = machine.lister(Pass::Forward);
    let mut saved = Saved { out: Vec::new(), lse: Vec::new(), max: Vec::new(), sum: Vec::new() };
    let mut terms = Vec::new();
    for row in machine.rows() {
        match window {
            None => lister.selected(row, &mut terms),
            Some(window) => lister.sliding(row, window, &mut terms),
        };
        attend_row(machine, row, &terms, &mut saved);
    }
    saved
}

fn attend_row<R: Real>(machine: &Machine<'_, R>, row: Row, terms: &[Term], saved: &mut Saved<R>) {
    let change = machine.numbers();
    if terms.is_empty() {
        return empty_row(machine, change, saved);
    }
    let first = if change == Some(Numbers::MaximumFromZero) { R::default() } else { R::NEG_INFINITY };
    let mut running = Running { max: first, sum: R::default(), out: vec![R::default(); machine.shape.value_dim()] };
    let first_of_head = saved.max.len() / machine.shape.seq_len() * machine.shape.seq_len();
    let shared = saved.max.get(first_of_head).copied();
    let mut first_tile = None;
    for tile in terms.chunk_by(|left, right| left.tile == right.tile) {
        let scores: Vec<R> = tile.iter().map(|term| score(machine, row, term)).collect();
        let larger = scores.iter().fold(running.max, |max, score| if *score > max { *score } else { max });
        let larger = match change {
            Some(Numbers::NoMaximum) => R::default(),
            Some(Numbers::MaximumOfFirstTile) if first_tile.is_some() => running.max,
            Some(Numbers::MaximumOfFirstRow) => shared.unwrap_or(larger),
            _ => larger,
        };
        add_tile(machine, &mut running, tile, &scores, larger);
        first_tile.get_or_insert(running.max + running.sum.ln());
    }
    finish(machine, running, first_tile.unwrap_or_default(), saved);
}

/// The scaled score of a term.
pub(super) fn score<R: Real>(machine: &Machine<'_, R>, row: Row, term: &Term) -> R {
    let x = product(machine, row, term);
    let change = machine.numbers();
    let factor = if change == Some(Numbers::SelScaleAfterSoftmax) { R::ONE } else { R::narrow(term.factor) };
    let score = x * factor * machine.scale;
    match change {
        Some(Numbers::ScoresIn(dtype)) => score.cast(dtype),
        Some(Numbers::ScoresClamped(limit)) => R::narrow(score.widen().clamp(-limit, limit)),
        _ => score,
    }
}

/// `<q, k_t>`, or what stands in its place.
pub(super) fn product<R: Real>(machine: &Machine<'_, R>, row: Row, term: &Term) -> R {
    match term.score {
        Some(score) => R::narrow(score),
        None => machine.dot(machine.query(row), machine.key(term.key)),
    }
}

fn add_tile<R: Real>(machine: &Machine<'_, R>, running: &mut Running<R>, tile: &[Term], scores: &[R], larger: R) {
    let change = machine.numbers();
    let shift = if change == Some(Numbers::MinusInfinityUnguarded) { larger } else { finite(larger) };
    let rescale = (running.max - shift).exp();
    running.max = larger;
    if change != Some(Numbers::SumNotRescaled) {
        running.sum *= rescale;
    }
    if change != Some(Numbers::OutputNotRescaled) {
        running.out.iter_mut().for_each(|value| *value *= rescale);
    }
    for (term, score) in tile.iter().zip(scores) {
        let weight = weight(change, *score, shift, term);
        let probability = match change {
            Some(Numbers::ProbabilityIn(dtype)) => weight.cast(dtype),
            Some(Numbers::SelScaleAfterSoftmax) => weight * R::narrow(term.factor),
            _ => weight,
        }
        .cast(machine.formats.probability);
        for _ in 0..term.count {
            running.sum += if change == Some(Numbers::SumOfCastWeights) { probability } else { weight };
            add_scaled(&mut running.out, probability, machine.value(term.value));
        }
        if let Some(Numbers::AccumulatedIn(dtype)) = change {
            running.sum = running.sum.cast(dtype);
            running.out.iter_mut().for_each(|value| *value = value.cast(dtype));
        }
    }
}

fn weight<R: Real>(change: Option<Numbers>, score: R, shift: R, term: &Term) -> R {
    let exponent = score - shift;
    match change {
        // An approximation's error waves about zero.
        Some(Numbers::ExponentialOff(error)) => {
            let sign = if term.token.is_multiple_of(2) { 1.0 } else { -1.0 };
            exponent.exp() * R::narrow(1.0 + sign * error)
        }
        Some(Numbers::ExponentialCut(limit)) if exponent < R::narrow(-limit) => R::default(),
        _ => exponent.exp(),
    }
}

fn finish<R: Real>(machine: &Machine<'_, R>, running: Running<R>, first_tile: R, saved: &mut Saved<R>) {
    let change = machine.numbers();
    let shift = finite(running.max);
    let divisor = match change {
        Some(Numbers::NotNormalized) => R::ONE,
        Some(Numbers::NormalizedByPreviousRow) => saved.sum.last().copied().unwrap_or(running.sum),
        _ => running.sum,
    };
    let lse = match change {
        Some(Numbers::LseBase2) => (shift + running.sum.ln()) * R::narrow(std::f64::consts::LOG2_E),
        Some(Numbers::LseWithoutMaximum) => running.sum.ln(),
        Some(Numbers::LseOfFirstTile) => first_tile,
        Some(Numbers::LseIn(dtype)) => (shift + running.sum.ln()).cast(dtype),
        _ => shift + running.sum.ln(),
    };
    saved.out.extend(running.out.iter().map(|value| machine.stored(*value / divisor, machine.formats.output)));
    saved.lse.push(lse.cast(machine.formats.lse));
    saved.max.push(running.max);
    saved.sum.push(running.sum);
}

fn empty_row<R: Real>(machine: &Machine<'_, R>, change: Option<Numbers>, saved: &mut Saved<R>) {
    let zero = R::default();
    let (out, lse) = match change {
        Some(Numbers::EmptyRowNan) => (R::narrow(f64::NAN), R::narrow(f64::NAN)),
        Some(Numbers::EmptyRowLseZero) => (zero, zero),
        _ => (zero, R::NEG_INFINITY),
    };
    saved.out.extend(std::iter::repeat_n(out, machine.shape.value_dim()));
    saved.lse.push(lse);
    saved.max.push(zero);
    saved.sum.push(zero);
}

/// What is subtracted from the scores: nothing while every score so far is -inf, for -inf - -inf would be NaN.
fn finite<R: Real>(max: R) -> R {
    if max == R::NEG_INFINITY { R::default() } else { max }
}
