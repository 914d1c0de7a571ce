//! The backward: `P = exp(s - lse)`, `dS = P (dP - delta + d_lse)` with `dP = <d_out, v>` and `delta = <out, d_out>`, and from them
//! `dq += c dS k`, `dk += c dS q`, `dv += P d_out`, `dsel_scale += dS x`, all but dv times `dim^(-1/2)`.

use nsa_corpus::Field;

use super::forward::{Saved, product, score};
use super::mutation::{Gradient, PartIs, Pass};
use super::numbers::Machine;
use super::terms::{Row, Term};
use crate::real::{Real, add_scaled};

/// The gradients of all rows and keys.
pub(super) struct Sums<R> {
    dq: Vec<R>,
    dk: Vec<R>,
    dv: Vec<R>,
    dsel_scale: Vec<R>,
    /// Which row wrote each key's gradients last.
    writer: Vec<usize>,
    /// For each slot, live slots before it that select the same block ([`Gradient::SegmentsMissing`] alone asks).
    visits_before: Vec<usize>,
}

impl<R> Sums<R> {
    pub(super) fn fields(&self) -> [(Field, &[R]); 4] {
        [(Field::Dq, &self.dq), (Field::Dk, &self.dk), (Field::Dv, &self.dv), (Field::DselScale, &self.dsel_scale)]
    }
}

/// What one part's backward reads.
struct Part<'a, R> {
    window: Option<usize>,
    saved: &'a Saved<R>,
    lse: &'a [R],
    d_out: Option<&'a [R]>,
    d_lse: Option<&'a [R]>,
    /// Whose product with the cotangent delta is.
    delta_of: &'a [R],
}

/// What a row brings to its terms.
struct RowData<'a, R> {
    row: Row,
    /// The cotangent that dP is taken with.
    cotangent: Vec<R>,
    /// The cotangent that dv is taken with.
    value_cotangent: &'a [R],
    /// The query that dk is taken with.
    key_query: &'a [R],
    lse: R,
    max: R,
    delta: R,
    d_lse: R,
}

pub(super) fn run<R: Real>(machine: &Machine<'_, R>, selected: &Saved<R>, sliding: Option<&Saved<R>>) -> Sums<R> {
    let part = Part {
        window: None,
        saved: selected,
        lse: &selected.lse,
        d_out: machine.d_out.as_deref(),
        d_lse: machine.d_lse.as_deref(),
        delta_of: &selected.out,
    };
    let mut sums = pass(machine, &part);
    if let (Some(saved), Some(d_out), Some(window)) =
        (sliding, machine.d_sliding.as_deref(), machine.inputs.sliding_window())
    {
        let change = machine.gradient();
        let lse = if change == Some(Gradient::SlidingLseOfSelected) { &selected.lse } else { &saved.lse };
        let delta_of = if change == Some(Gradient::SlidingDeltaOfOut) { &selected.out } else { &saved.out };
        let part = Part { window: Some(window), saved, lse, d_out: Some(d_out), d_lse: None, delta_of };
        join(machine, &mut sums, &pass(machine, &part));
    }
    store(machine, &mut sums);
    sums
}

fn join<R: Real>(machine: &Machine<'_, R>, sums: &mut Sums<R>, sliding: &Sums<R>) {
    let change = machine.gradient();
    if change == Some(Gradient::SlidingDqReplaces) {
        sums.dq.fill(R::default());
    }
    let parts = [
        (&mut sums.dq, &sliding.dq, Gradient::SlidingDqMissing),
        (&mut sums.dk, &sliding.dk, Gradient::SlidingDkMissing),
        (&mut sums.dv, &sliding.dv, Gradient::SlidingDvMissing),
    ];
    for (sum, part, missing) in parts {
        if change != Some(missing) {
            add_scaled(sum, R::ONE, part);
        }
    }
}

fn store<R: Real>(machine: &Machine<'_, R>, sums: &mut Sums<R>) {
    let formats = machine.formats;
    for (values, format) in [
        (&mut sums.dq, formats.gradient),
        (&mut sums.dk, formats.gradient),
        (&mut sums.dv, formats.gradient),
        (&mut sums.dsel_scale, formats.sel_scale_gradient),
    ] {
        values.iter_mut().for_each(|value| *value = machine.stored(*value, format));
    }
}

fn pass<R: Real>(machine: &Machine<'_, R>, part: &Part<'_, R>) -> Sums<R> {
    let shape = &machine.shape;
    let rows = shape.batch() * shape.q_heads() * shape.seq_len();
    let keys = shape.batch() * shape.kv_heads() * shape.seq_len();
    let slots = shape.batch() * shape.sel_heads() * shape.seq_len() * shape.num_sel();
    let zeros = |len: usize| vec![R::default(); len];
    let mut sums = Sums {
        dq: zeros(rows * shape.dim()),
        dk: zeros(keys * shape.dim()),
        dv: zeros(keys * shape.value_dim()),
        dsel_scale: zeros(slots),
        writer: vec![usize::MAX; keys],
        visits_before: visits_before(machine),
    };
    let lister = machine.lister(Pass::Backward);
    let mut terms = Vec::new();
    for row in machine.rows() {
        match part.window {
            None => lister.selected(row, &mut terms),
            Some(window) => lister.sliding(row, window, &mut terms),
        };
        let data = row_data(machine, part, row);
        for term in &terms {
            for _ in 0..term.count {
                add_term(machine, &data, term, &mut sums);
            }
        }
        if machine.gradient() == Some(Gradient::DselMaskedLeaks) && part.window.is_none() {
            masked_slots(machine, &data, &terms, &mut sums);
        }
    }
    scale(machine, &mut sums);
    sums
}

fn scale<R: Real>(machine: &Machine<'_, R>, sums: &mut Sums<R>) {
    let change = machine.gradient();
    let times = |values: &mut Vec<R>, missing| {
        if change != Some(missing) {
            values.iter_mut().for_each(|value| *value *= machine.scale);
        }
    };
    times(&mut sums.dq, Gradient::DqScaleMissing);
    times(&mut sums.dk, Gradient::DkScaleMissing);
    times(&mut sums.dsel_scale, Gradient::DselScaleMissing);
    if change == Some(Gradient::DkScaleTwice) {
        times(&mut sums.dk, Gradient::DkScaleMissing);
    }
}

/// The row that stands at the same token of the next query head, cyclically.
fn next_head(row: Row, heads: usize) -> Row {
    Row { q_head: (row.q_head + 1) % heads, ..row }
}

fn previous(row: Row) -> Row {
    Row { i: row.i.saturating_sub(1), ..row }
}

fn row_data<'a, R: Real>(machine: &'a Machine<'_, R>, part: &'a Part<'_, R>, row: Row) -> RowData<'a, R> {
    let change = machine.gradient();
    let (width, heads) = (machine.shape.value_dim(), machine.shape.q_heads());
    let of = |tensor: &'a [R], row: Row| &tensor[machine.position(row) * width..][..width];
    let d_out = |row: Row| part.d_out.map_or_else(|| machine.value(None), |d_out| of(d_out, row));
    let cotangent = match change {
        Some(Gradient::CotangentOfNextHead) => d_out(next_head(row, heads)).to_vec(),
        Some(Gradient::CotangentOfPreviousRow) => d_out(previous(row)).to_vec(),
        Some(Gradient::CotangentOnes) => vec![R::ONE; width],
        _ => d_out(row).to_vec(),
    };
    let delta_row = if change == Some(Gradient::DeltaOfPreviousRow) { previous(row) } else { row };
    let delta = machine.dot(&cotangent, of(part.delta_of, delta_row));
    let delta = match change {
        Some(Gradient::DeltaMissing) => R::default(),
        Some(Gradient::DeltaIn(dtype)) => delta.cast(dtype),
        _ => delta,
    };
    let d_lse = part.d_lse.map_or(R::default(), |d_lse| d_lse[machine.position(row)]);
    let lse_row = match change {
        Some(Gradient::LseOfPreviousRow) => previous(row),
        Some(Gradient::LseOfNextHead) => next_head(row, heads),
        _ => row,
    };
    let other = |wrong, other: Row| if change == Some(wrong) { other } else { row };
    RowData {
        row,
        cotangent,
        value_cotangent: d_out(other(Gradient::DvCotangentOfNextHead, next_head(row, heads))),
        key_query: machine.query(other(Gradient::DkQueryOfNextHead, next_head(row, heads))),
        lse: part.lse[machine.position(lse_row)],
        max: part.saved.max[machine.position(row)],
        delta,
        d_lse: match change {
            Some(Gradient::LseIgnored) => R::default(),
            Some(Gradient::LseNegated) => R::default() - d_lse,
            _ => d_lse,
        },
    }
}

/// `P`, `dS` and the unscaled product of a term.
fn derivative<R: Real>(machine: &Machine<'_, R>, data: &RowData<'_, R>, term: &Term) -> [R; 3] {
    let x = product(machine, data.row, term);
    let weight = (score(machine, data.row, term) - data.lse).exp();
    let d_weight = machine.dot(&data.cotangent, machine.value(term.value));
    [weight, weight * (d_weight - data.delta + data.d_lse), x]
}

fn add_term<R: Real>(machine: &Machine<'_, R>, data: &RowData<'_, R>, term: &Term, sums: &mut Sums<R>) {
    let change = machine.gradient();
    let [weight, d_score, x] = derivative(machine, data, term);
    let cast = |value: R| value.cast(machine.formats.probability);
    let factor = R::narrow(term.factor);
    let with_factor = |missing| if change == Some(missing) { cast(d_score) } else { cast(d_score * factor) };
    let dim = machine.shape.dim();
    let position = machine.position(data.row);
    add_scaled(&mut sums.dq[position * dim..][..dim], with_factor(Gradient::DqFactorMissing), machine.key(term.key));
    add_to_keys(machine, data, term, with_factor(Gradient::DkFactorMissing), sums);
    add_to_values(machine, data, term, cast(d_score), weight, sums);
    if let Some(slot) = term.slot {
        add_to_slot(machine, data, term, slot, [weight, d_score, x], sums);
    }
}

/// The row of k and v that a term's gradient is added to; padding takes none.
fn destination<R: Real>(machine: &Machine<'_, R>, read: Option<usize>, row: Row) -> Option<usize> {
    let shape = &machine.shape;
    let head = row.b * shape.kv_heads() + row.q_head / shape.groups();
    let n = shape.seq_len();
    match (read, machine.gradient()) {
        (Some(read), _) => Some(read),
        (None, Some(Gradient::PaddingOntoLastToken)) => Some(head * n + n - 1),
        (None, Some(Gradient::PaddingOntoNextHead)) => {
            Some((head + 1) * n).filter(|read| *read < shape.batch() * shape.kv_heads() * n)
        }
        (None, _) => None,
    }
}

fn group_of<R: Real>(machine: &Machine<'_, R>, row: Row) -> usize {
    row.q_head % machine.shape.groups()
}

fn add_to_keys<R: Real>(machine: &Machine<'_, R>, data: &RowData<'_, R>, term: &Term, amount: R, sums: &mut Sums<R>) {
    let (change, dim) = (machine.gradient(), machine.shape.dim());
    let Some(mut key) = destination(machine, term.key, data.row) else { return };
    if change == Some(Gradient::DkFirstHeadOnly) && group_of(machine, data.row) > 0 {
        return;
    }
    if unsorted(machine, data.row, term, sums) {
        return;
    }
    let mut query = data.key_query;
    if change == Some(Gradient::DkTransposed) && term.part == PartIs::Diagonal {
        query = machine.query(Row { i: term.token, ..data.row });
        key = key - term.token + data.row.i;
    }
    let row = machine.position(data.row);
    let target = &mut sums.dk[key * dim..][..dim];
    if change == Some(Gradient::DkOverwritten) && sums.writer[key] != row {
        sums.writer[key] = row;
        target.fill(R::default());
    }
    add_scaled(target, amount, query);
    round(change, target);
}

fn add_to_values<R: Real>(
    machine: &Machine<'_, R>,
    data: &RowData<'_, R>,
    term: &Term,
    d_score: R,
    weight: R,
    sums: &mut Sums<R>,
) {
    let (change, width) = (machine.gradient(), machine.shape.value_dim());
    let Some(mut key) = destination(machine, term.value, data.row) else { return };
    if change == Some(Gradient::DvFirstHeadOnly) && group_of(machine, data.row) > 0 {
        return;
    }
    if change == Some(Gradient::DvLostUpdates) && lost(machine, data.row, term)
        || unsorted(machine, data.row, term, sums)
    {
        return;
    }
    let amount = match change {
        Some(Gradient::DvUnnormalized) => (score(machine, data.row, term) - data.max).exp(),
        Some(Gradient::DvFromScoreGradient) => d_score,
        _ => weight,
    };
    let mut cotangent = data.value_cotangent;
    if change == Some(Gradient::DvTransposed) && term.part == PartIs::Diagonal && machine.d_out.is_some() {
        let other = machine.position(Row { i: term.token, ..data.row });
        cotangent = machine.d_out.as_ref().map_or(cotangent, |d_out| &d_out[other * width..][..width]);
        key = key - term.token + data.row.i;
    }
    let row = machine.position(data.row);
    let target = &mut sums.dv[key * width..][..width];
    if change == Some(Gradient::DvOverwritten) && sums.writer[key] != row {
        sums.writer[key] = row;
        target.fill(R::default());
    }
    add_scaled(target, amount.cast(machine.formats.probability), cotangent);
    round(change, target);
}

fn round<R: Real>(change: Option<Gradient>, target: &mut [R]) {
    if let Some(Gradient::AccumulatedIn(dtype)) = change {
        target.iter_mut().for_each(|value| *value = value.cast(dtype));
    }
}

/// Whether the row before updates the same key through a slot too: of two updates at once, one is lost.
fn lost<R: Real>(machine: &Machine<'_, R>, row: Row, term: &Term) -> bool {
    let (shape, inputs) = (&machine.shape, machine.inputs);
    let block = term.token / shape.block_size();
    let head = row.q_head / shape.sel_groups();
    let selects = |s: usize| {
        let at = [row.b, head, row.i - 1, s];
        inputs.mask()[at] && inputs.indices()[at] as usize == block
    };
    term.slot.is_some() && row.i > 0 && (0..shape.num_sel()).any(selects)
}

/// For each slot of each row, the live slots of earlier rows and slots of its selection that select the same block.
fn visits_before<R: Real>(machine: &Machine<'_, R>) -> Vec<usize> {
    if machine.gradient() != Some(Gradient::SegmentsMissing) {
        return Vec::new();
    }
    let shape = &machine.shape;
    let slots = machine.inputs.indices().indexed_iter().zip(machine.inputs.mask());
    let mut visits = vec![0usize; shape.batch() * shape.sel_heads() * shape.blocks()];
    slots
        .map(|(((b, head, ..), block), live)| {
            let count = &mut visits[(b * shape.sel_heads() + head) * shape.blocks() + *block as usize];
            *count += usize::from(*live);
            *count - usize::from(*live)
        })
        .collect()
}

/// Whether a term belongs to what a counting sort of visits, or what walks its lists, leaves out.
fn unsorted<R: Real>(machine: &Machine<'_, R>, row: Row, term: &Term, sums: &Sums<R>) -> bool {
    let (Some(slot), shape) = (term.slot, &machine.shape) else { return false };
    let (head, group) = (row.q_head / shape.sel_groups(), row.q_head % shape.sel_groups());
    let visit = row.i * shape.num_sel() + slot;
    match machine.gradient() {
        Some(Gradient::SegmentsMissing) => {
            let list = (row.b * shape.sel_heads() + head) * shape.seq_len() * shape.num_sel();
            sums.visits_before[list + visit] * shape.sel_groups() + group >= 8192
        }
        Some(Gradient::LaterChunksMissing) => head > 0 && visit >= 4096,
        _ => false,
    }
}

fn add_to_slot<R: Real>(
    machine: &Machine<'_, R>,
    data: &RowData<'_, R>,
    term: &Term,
    slot: usize,
    [weight, d_score, x]: [R; 3],
    sums: &mut Sums<R>,
) {
    let (change, shape) = (machine.gradient(), &machine.shape);
    let group = data.row.q_head % shape.sel_groups();
    let last = term.token % shape.block_size() == shape.block_size() - 1;
    if change == Some(Gradient::DselFirstHeadOnly) && group > 0 || change == Some(Gradient::DselLastKeyMissing) && last
    {
        return;
    }
    let amount = match change {
        Some(Gradient::DselFromWeights) => weight * x,
        Some(Gradient::DselFactorTwice) => d_score * R::narrow(term.factor) * x,
        _ => d_score * x,
    };
    let head = data.row.b * shape.sel_heads() + data.row.q_head / shape.sel_groups();
    sums.dsel_scale[(head * shape.seq_len() + data.row.i) * shape.num_sel() + slot] += amount;
}

/// What masked slots would receive if they were live.
fn masked_slots<R: Real>(machine: &Machine<'_, R>, data: &RowData<'_, R>, terms: &[Term], sums: &mut Sums<R>) {
    let (shape, inputs) = (&machine.shape, machine.inputs);
    let sel_head = data.row.q_head / shape.sel_groups();
    let head = data.row.b * shape.kv_heads() + data.row.q_head / shape.groups();
    for slot in 0..shape.num_sel() {
        let at = [data.row.b, sel_head, data.row.i, slot];
        if inputs.mask()[at] || terms.is_empty() {
            continue;
        }
        let start = inputs.indices()[at] as usize * shape.block_size();
        for token in start..(start + shape.block_size()).min(shape.seq_len()) {
            let read = Some(head * shape.seq_len() + token);
            let factor = inputs.sel_scale().map_or(1.0, |scales| scales[at]);
            let (part, slot) = (PartIs::Slot, Some(slot));
            let term = Term { tile: 0, part, slot, token, key: read, value: read, factor, score: None, count: 1 };
            let derivative = derivative(machine, data, &term);
            add_to_slot(machine, data, &term, slot.unwrap_or(0), derivative, sums);
        }
    }
}
