//! What the answers to probes count. With q = 0 every live key has score 0, so `exp(lse)` is how many keys a row attends to;
//! where value j is the unit vector j besides, `out exp(lse)` is how often it attends to key j. A count has no rounding to
//! hide in, so it says exactly what is missing or too many.

use nsa_corpus::{Field, Inputs, Outputs};
use nsa_reference::oracle;

/// Readings told at most.
const TOLD: usize = 4;

/// What `found` counts wrongly, in words; nothing where `inputs` are no probe.
pub(super) fn readings(inputs: &Inputs, found: &Outputs) -> Vec<String> {
    if inputs.q().iter().any(|value| *value != 0.0) {
        return Vec::new();
    }
    let right = oracle::forward(inputs, None).outputs;
    let (Some(lse), Some(right_lse)) = (found.get(Field::Lse), right.get(Field::Lse)) else { return Vec::new() };
    if lse.shape() != right_lse.shape() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    let mut rows = 0;
    for (index, value) in lse.indexed_iter() {
        let (count, expected) = (value.exp().round(), right_lse[&index].exp().round());
        // NaN differs from every count.
        if count != expected {
            rows += 1;
            if lines.len() < TOLD {
                let [b, head, token] = [index[0], index[1], index[2]];
                lines.push(format!(
                    "batch {b}, q_head {head}, token {token}: {count} keys counted instead of {expected}"
                ));
            }
        }
    }
    if rows > TOLD {
        lines.push(format!("{} more rows count wrongly", rows - TOLD));
    }
    lines.extend(multisets(inputs, found, &right));
    lines
}

/// Whether value `j` is the unit vector `j`, for every batch entry and head.
fn values_are_unit_vectors(inputs: &Inputs) -> bool {
    let v = inputs.v();
    v.dim().3 >= v.dim().2 && v.indexed_iter().all(|((_, _, key, d), value)| *value == f64::from(u8::from(key == d)))
}

fn multisets(inputs: &Inputs, found: &Outputs, right: &Outputs) -> Vec<String> {
    let (Some(out), Some(right_out)) = (found.get(Field::Out), right.get(Field::Out)) else { return Vec::new() };
    let (Some(lse), Some(right_lse)) = (found.get(Field::Lse), right.get(Field::Lse)) else { return Vec::new() };
    if !values_are_unit_vectors(inputs) || out.shape() != right_out.shape() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for (index, value) in out.indexed_iter() {
        let row = [index[0], index[1], index[2]];
        let times = (value * lse[row].exp()).round();
        let expected = (right_out[&index] * right_lse[row].exp()).round();
        if times != expected && lines.len() < TOLD {
            let ([b, head, token], key) = (row, index[3]);
            lines.push(format!(
                "batch {b}, q_head {head}, token {token}: key {key} attended to {times} times instead of {expected}"
            ));
        }
    }
    lines
}
