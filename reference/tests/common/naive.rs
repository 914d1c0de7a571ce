//! Row by row, term by term: each row's keys are listed, then the textbook formulas are applied to the list. Nothing
//! is gathered, padded or reshaped, so it shares no index arithmetic with what it checks.

use ndarray::{ArrayD, IxDyn};
use nsa_corpus::{Field, Inputs, Outputs, Shape};

/// One key that a row attends to. A padded key has no token.
pub(crate) struct Term {
    pub(crate) token: Option<usize>,
    pub(crate) slot: Option<usize>,
    pub(crate) factor: f64,
}

/// Where a row stands.
pub(crate) struct Row {
    pub(crate) batch: usize,
    pub(crate) head: usize,
    pub(crate) kv_head: usize,
    pub(crate) sel_head: usize,
    pub(crate) token: usize,
}

impl Row {
    pub(crate) fn new(shape: &Shape, batch: usize, head: usize, token: usize) -> Self {
        Row { batch, head, kv_head: head / shape.groups(), sel_head: head / shape.sel_groups(), token }
    }
}

/// Every field that `inputs` ask for.
pub(crate) fn attend(inputs: &Inputs) -> Outputs {
    let shape = inputs.shape();
    let mut outputs = Outputs::filled(inputs, 0.0);
    let mut gradients = Outputs::new();
    for field in [Field::Dq, Field::Dk, Field::Dv, Field::DselScale] {
        gradients.set(field, ArrayD::zeros(IxDyn(&field.shape(shape))));
    }
    for batch in 0..shape.batch() {
        for head in 0..shape.q_heads() {
            for token in 0..shape.seq_len() {
                let row = Row::new(shape, batch, head, token);
                answer(inputs, &row, &mut outputs, &mut gradients);
            }
        }
    }
    for field in [Field::Dq, Field::Dk, Field::Dv, Field::DselScale] {
        if field.asked_by(inputs) {
            outputs.set(field, gradients.take(field).expect("set above"));
        }
    }
    outputs
}

fn answer(inputs: &Inputs, row: &Row, outputs: &mut Outputs, gradients: &mut Outputs) {
    let cotangents = inputs.cotangents();
    let at = [row.batch, row.head, row.token];
    let width = inputs.shape().value_dim();
    let vector = |tensor: &Option<ndarray::Array4<f64>>| match tensor {
        Some(tensor) => (0..width).map(|d| tensor[[at[0], at[1], at[2], d]]).collect(),
        None => vec![0.0; width],
    };
    let d_lse = cotangents.d_lse.as_ref().map_or(0.0, |d_lse| d_lse[at]);
    let selected = (Field::Out, Field::Lse, selected_terms(inputs, row), vector(&cotangents.d_out), d_lse);
    let mut parts = vec![selected];
    if let Some(window) = inputs.sliding_window() {
        parts.push((
            Field::SlidingOut,
            Field::SlidingLse,
            sliding_terms(row, window),
            vector(&cotangents.d_sliding),
            0.0,
        ));
    }
    for (out_field, lse_field, terms, d_out, d_lse) in parts {
        let (out, lse) = part(inputs, row, &terms, &d_out, d_lse, gradients);
        for (d, value) in out.iter().enumerate() {
            outputs.get_mut(out_field).unwrap()[IxDyn(&[at[0], at[1], at[2], d])] = *value;
        }
        outputs.get_mut(lse_field).unwrap()[IxDyn(&at)] = lse;
    }
}

/// The keys of the sliding part.
pub(crate) fn sliding_terms(row: &Row, window: usize) -> Vec<Term> {
    let term = |token| Term { token: Some(token), slot: None, factor: 1.0 };
    (row.token.saturating_sub(window)..=row.token).map(term).collect()
}

/// The keys of the selected part: the diagonal's, then each live slot's.
pub(crate) fn selected_terms(inputs: &Inputs, row: &Row) -> Vec<Term> {
    let shape = inputs.shape();
    let own = row.token - row.token % shape.block_size();
    let mut terms = Vec::new();
    if inputs.include_block_causal() {
        terms.extend((own..=row.token).map(|token| Term { token: Some(token), slot: None, factor: 1.0 }));
    }
    for slot in 0..shape.num_sel() {
        let at = [row.batch, row.sel_head, row.token, slot];
        if inputs.mask()[at] {
            let first = inputs.indices()[at] as usize * shape.block_size();
            let factor = inputs.sel_scale().map_or(1.0, |sel_scale| sel_scale[at]);
            let token = |key: usize| (key < shape.seq_len()).then_some(key);
            let keys = first..first + shape.block_size();
            terms.extend(keys.map(|key| Term { token: token(key), slot: Some(slot), factor }));
        }
    }
    terms
}

/// Softmax attention over `terms`: returns `out` and `lse`, and adds to the gradients.
fn part(
    inputs: &Inputs,
    row: &Row,
    terms: &[Term],
    d_out: &[f64],
    d_lse: f64,
    gradients: &mut Outputs,
) -> (Vec<f64>, f64) {
    let shape = inputs.shape();
    let key = |term: &Term, d| term.token.map_or(0.0, |token| inputs.k()[[row.batch, row.kv_head, token, d]]);
    let value = |term: &Term, d| term.token.map_or(0.0, |token| inputs.v()[[row.batch, row.kv_head, token, d]]);
    let query = |d| inputs.q()[[row.batch, row.head, row.token, d]];
    let product = |term: &Term| (0..shape.dim()).map(|d| query(d) * key(term, d)).sum::<f64>();
    let scores: Vec<f64> = terms.iter().map(|term| product(term) * term.factor * shape.scale()).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    let width = shape.value_dim();
    if terms.is_empty() {
        return (vec![0.0; width], f64::NEG_INFINITY);
    }
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp() / sum).collect();
    let out: Vec<f64> =
        (0..width).map(|d| terms.iter().zip(&weights).map(|(term, weight)| weight * value(term, d)).sum()).collect();

    let delta: f64 = (0..width).map(|d| d_out[d] * out[d]).sum();
    for (term, weight) in terms.iter().zip(&weights) {
        let d_weight: f64 = (0..width).map(|d| d_out[d] * value(term, d)).sum();
        let d_score = weight * (d_weight - delta + d_lse) * shape.scale();
        let mut add = |field, at: [usize; 4], part: f64| gradients.get_mut(field).unwrap()[IxDyn(&at)] += part;
        for d in 0..shape.dim() {
            add(Field::Dq, [row.batch, row.head, row.token, d], d_score * term.factor * key(term, d));
            if let Some(token) = term.token {
                add(Field::Dk, [row.batch, row.kv_head, token, d], d_score * term.factor * query(d));
            }
        }
        for (d, d_out) in d_out.iter().enumerate() {
            if let Some(token) = term.token {
                add(Field::Dv, [row.batch, row.kv_head, token, d], weight * d_out);
            }
        }
        if let Some(slot) = term.slot {
            add(Field::DselScale, [row.batch, row.sel_head, row.token, slot], d_score * product(term));
        }
    }
    (out, max + sum.ln())
}
