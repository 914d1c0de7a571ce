//! Probes: problems whose answers follow from counting, held to a tolerance of zero.
//!
//! With q = 0 every live key has score 0, so `exp(lse)` is how many keys a row attends to; where value j is the unit vector
//! j besides, `out exp(lse)` is how often it attends to key j; where the cotangent of row i is the unit vector i, `dv exp(lse)`
//! says the same from the key's side. A count has no rounding to hide in, so it says exactly what is missing or too many.

use ndarray::{Array4, Dimension};
use nsa_corpus::{Arithmetic, Entry, Field, Inputs, Outputs};
use nsa_reference::oracle;

use crate::judge::element::Held;
use crate::judge::verdict::{Class, Failure};

/// Readings told at most.
const TOLD: usize = 4;

/// Why an answer within its budgets is not exact where the entry says that it must be: a field of `exact` with an element
/// other than the right one, rounded once to the format that it is stored in; for a flagged probe, a wrong count.
pub(crate) fn inexact(entry: &Entry, inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> Option<Failure> {
    let fail = |field, message| Some(Failure { class: Class::OverBudget, field: Some(field), message });
    if !entry.exact.is_empty() {
        let right = oracle::attend(inputs);
        for field in &entry.exact {
            let (Some(found), Some(right)) = (found.get(*field), right.get(*field)) else { continue };
            let stored = arithmetic.stored(*field);
            for (index, value) in right.indexed_iter() {
                let (expected, found) = (stored.round(*value), found[&index]);
                if Held::exactly(*field, expected, stored).judge(found).is_wrong() {
                    let at = index.as_array_view().to_vec();
                    return fail(*field, format!("{field} at {at:?}: {found:e} found, exactly {expected:e} expected"));
                }
            }
        }
    }
    let counted = if entry.has_flag("exact_probe") { readings(inputs, found) } else { Vec::new() };
    counted.into_iter().next().and_then(|reading| fail(Field::Lse, reading))
}

/// What `found` counts wrongly, in words; nothing where `inputs` are no probe.
pub(crate) fn readings(inputs: &Inputs, found: &Outputs) -> Vec<String> {
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
    lines.extend(transposed(inputs, found, &right));
    lines
}

/// Whether row `j` is the unit vector `j`, for every batch entry and head.
fn unit_vectors(rows: &Array4<f64>) -> bool {
    let right = |((_, _, row, d), value): ((usize, usize, usize, usize), &f64)| *value == f64::from(u8::from(row == d));
    rows.dim().3 >= rows.dim().2 && rows.indexed_iter().all(right)
}

fn multisets(inputs: &Inputs, found: &Outputs, right: &Outputs) -> Vec<String> {
    let (Some(out), Some(right_out)) = (found.get(Field::Out), right.get(Field::Out)) else { return Vec::new() };
    let (Some(lse), Some(right_lse)) = (found.get(Field::Lse), right.get(Field::Lse)) else { return Vec::new() };
    if !unit_vectors(inputs.v()) || out.shape() != right_out.shape() {
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

/// How often each key is attended to, from its own side; only where a kv head has one query head.
fn transposed(inputs: &Inputs, found: &Outputs, right: &Outputs) -> Vec<String> {
    let one_hot =
        inputs.cotangents().d_out.as_ref().is_some_and(unit_vectors) && inputs.cotangents().d_sliding.is_none();
    let (Some(dv), Some(lse), Some(right_lse)) = (found.get(Field::Dv), found.get(Field::Lse), right.get(Field::Lse))
    else {
        return Vec::new();
    };
    if !one_hot || inputs.shape().groups() != 1 {
        return Vec::new();
    }
    let answer = oracle::backward(inputs, right, None).outputs;
    let Some(right_dv) = answer.get(Field::Dv).filter(|right_dv| right_dv.shape() == dv.shape()) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (index, value) in dv.indexed_iter() {
        let ([b, head, key], token) = ([index[0], index[1], index[2]], index[3]);
        if token >= inputs.shape().seq_len() {
            continue;
        }
        let row = [b, head, token];
        let times = (value * lse[row].exp()).round();
        let expected = (right_dv[&index] * right_lse[row].exp()).round();
        if times != expected && lines.len() < TOLD {
            lines.push(format!(
                "batch {b}, kv_head {head}, key {key}: dv counts token {token} {times} times instead of {expected}"
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use nsa_corpus::{Dtype, entries};

    use super::*;
    use crate::registry::by_name;
    use crate::run::run_entry;

    fn probe(name: &str) -> &'static Entry {
        entries().iter().find(|entry| entry.name == name).unwrap()
    }

    #[test]
    fn an_element_one_step_off_is_within_its_budget_and_still_wrong() {
        let entry = probe("probes/power_of_two_counts");
        let (inputs, tiled) = (entry.case.materialize(Dtype::F32).unwrap(), by_name("tiled").unwrap());
        let (arithmetic, mut outputs) = (tiled.declaration(&inputs).arithmetic, tiled.run(&inputs).unwrap());
        assert_eq!(inexact(entry, &inputs, &arithmetic, &outputs), None);
        let value = outputs.get(Field::Out).unwrap()[[0, 0, 3, 1]];
        assert_ne!(value, 0.0);
        outputs.get_mut(Field::Out).unwrap()[[0, 0, 3, 1]] = f64::from((value as f32).next_up());
        let message = inexact(entry, &inputs, &arithmetic, &outputs).unwrap().message;
        assert!(message.contains("[0, 0, 3, 1]") && message.contains("exactly"), "{message}");
        let failed = crate::judge::judge(&inputs, &arithmetic, &outputs).iter().any(|field| field.failed > 0);
        assert!(!failed, "the budget alone does not see it");
    }

    #[test]
    fn every_cpu_candidate_is_exact_on_every_probe() {
        let mut exact = 0;
        for entry in entries().iter().filter(|entry| entry.has_flag("exact_probe")) {
            exact += entry.exact.len();
            for name in ["tiled", "rowwise", "oracle"] {
                for dtype in &entry.dtypes {
                    let report = run_entry(entry, *dtype, by_name(name).unwrap().as_ref()).unwrap();
                    assert_eq!(report.verdict.failure(), None, "{} {dtype} {name}", entry.name);
                }
            }
        }
        assert!(exact >= 12, "{exact}");
    }

    #[test]
    fn a_transposed_probe_names_key_and_token() {
        let entry = probe("probes/one_hot_cotangent_of_each_head");
        let inputs = entry.case.materialize(Dtype::F32).unwrap();
        let outputs = by_name("rowwise+dv_transposed").unwrap().run(&inputs).unwrap();
        let lines = readings(&inputs, &outputs);
        assert!(lines.iter().any(|line| line.contains("dv counts token")), "{lines:?}");
        assert_eq!(readings(&inputs, &by_name("rowwise").unwrap().run(&inputs).unwrap()), Vec::<String>::new());
    }
}
