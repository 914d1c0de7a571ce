//! How tight the budgets are over many reports, by field and format: the table and the JSON of it.

use std::collections::BTreeMap;

use nsa_corpus::{Dtype, Field};
use serde_json::{Value, json};

use crate::judge::budget_use::{BudgetUse, Quantiles};
use crate::judge::verdict::Verdict;
use crate::report::Report;

/// How tight the budgets are, by field and format of the inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    rows: BTreeMap<(Field, Dtype), BudgetUse>,
}

impl Summary {
    /// What all of `reports` come to.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut summary = Summary::default();
        reports.into_iter().for_each(|report| summary.add(report));
        summary
    }

    /// Adds every comparison of `report`, unless it says nothing about its candidate.
    pub fn add(&mut self, report: &Report) {
        if matches!(report.verdict, Verdict::Inconclusive(_)) {
            return;
        }
        for comparison in &report.comparisons {
            self.rows.entry((comparison.field, report.dtype)).or_default().merge(&comparison.budget_use);
        }
    }

    /// The counts of one field and format, where any was compared.
    pub fn get(&self, field: Field, dtype: Dtype) -> Option<&BudgetUse> {
        self.rows.get(&(field, dtype))
    }

    /// Elements held to a finite budget, by format.
    pub fn judged(&self) -> BTreeMap<Dtype, u64> {
        let mut judged = BTreeMap::new();
        for ((_, dtype), budget_use) in &self.rows {
            *judged.entry(*dtype).or_default() += budget_use.judged;
        }
        judged
    }

    /// One row for each field and format, with a head: a table for [`crate::cli`].
    pub fn table(&self) -> Vec<Vec<String>> {
        let head = ["field", "dtype", "judged", "exact", "B: p50", "p99.9", "max", "H: p50", "p99.9", "max"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for ((field, dtype), budget_use) in self.rows.iter().filter(|(_, budget_use)| budget_use.judged > 0) {
            let share = 100.0 * budget_use.exact as f64 / budget_use.judged as f64;
            let mut row =
                vec![field.to_string(), dtype.to_string(), budget_use.judged.to_string(), format!("{share:.1}%")];
            for quantiles in [budget_use.rigorous(), budget_use.likely()] {
                row.extend([quantiles.p50, quantiles.p999, quantiles.max].map(digits));
            }
            rows.push(row);
        }
        rows
    }

    /// Adds `judged` (by format) and `budget_use` (by field and format) to a JSON object: docs/reports.md.
    pub fn add_to(&self, content: &mut Value) {
        content["judged"] = json!(self.judged());
        content["budget_use"] =
            self.rows.iter().map(|((field, dtype), budget_use)| json_of(budget_use, *field, *dtype)).collect();
    }
}

fn json_of(budget_use: &BudgetUse, field: Field, dtype: Dtype) -> Value {
    let quantiles = |quantiles: Quantiles| json!({ "p50": number(quantiles.p50), "p999": number(quantiles.p999), "max": number(quantiles.max) });
    json!({
        "field": field,
        "dtype": dtype,
        "judged": budget_use.judged,
        "exact": budget_use.exact,
        "excluded": budget_use.excluded,
        "error_over_b": quantiles(budget_use.rigorous()),
        "error_over_h": quantiles(budget_use.likely()),
    })
}

/// Three decimals, or a power of ten where those would say 0 or run on for a line.
fn digits(ratio: f64) -> String {
    let plain = ratio == 0.0 || (0.001..1e6).contains(&ratio) || !ratio.is_finite();
    if plain { format!("{ratio:.3}") } else { format!("{ratio:.0e}") }
}

fn number(ratio: f64) -> Value {
    if ratio.is_finite() { json!(ratio) } else { json!("inf") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_any_size_is_a_few_characters() {
        assert_eq!([0.0, 0.25, 999_999.5, f64::INFINITY].map(digits), ["0.000", "0.250", "999999.500", "inf"]);
        assert_eq!([4e-4, 1e6, 8.7e26, f64::MAX].map(digits), ["4e-4", "1e6", "9e26", "2e308"]);
    }
}
