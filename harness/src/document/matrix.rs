//! The document of `matrix`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Document, Merge, Unmergeable};
use crate::campaign::matrix::{Cell, Missing, Row};
use crate::judge::verdict::VerdictKind;
use crate::tally::{Conclusion, Fields, Tally};

/// Several candidates on the same cases.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Matrix {
    /// The candidates, in the order in which they were named, and what each came to.
    pub candidates: Vec<Total>,
    /// Candidates that were asked for and do not exist here.
    pub missing: Vec<Missing>,
    /// Each case in each dtype.
    pub cases: Vec<Row>,
    /// Cases that were not run after an interruption.
    pub left_out: usize,
}

/// What one candidate came to over all cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Total {
    /// The candidate.
    pub candidate: String,
    /// Which fields of its answers are judged.
    pub fields: Fields,
    /// How many cases have each verdict.
    pub verdicts: BTreeMap<String, usize>,
    /// How many cases it skips for each reason.
    pub skips: BTreeMap<String, usize>,
    /// Elements compared.
    pub elements: usize,
    /// Wall-clock time in seconds.
    pub seconds: f64,
}

impl Total {
    fn of(candidate: String, fields: Fields, cells: &[&Cell]) -> Self {
        let tally = Tally::of(cells.iter().map(|cell| &cell.verdict));
        let counted = VerdictKind::ALL.map(|kind| (kind.to_string(), tally.count(kind)));
        Total {
            candidate,
            fields,
            verdicts: counted.into_iter().collect(),
            skips: tally.skips,
            elements: cells.iter().map(|cell| cell.elements).sum(),
            seconds: cells.iter().map(|cell| cell.seconds).sum(),
        }
    }
}

impl Matrix {
    /// Everything that `rows` come to, for candidates of these names and fields.
    pub fn of(candidates: Vec<(String, Fields)>, missing: Vec<Missing>, cases: Vec<Row>, left_out: usize) -> Self {
        let total = |(at, (candidate, fields)): (usize, (String, Fields))| {
            let cells: Vec<&Cell> = cases.iter().map(|row| &row.cells[at]).collect();
            Total::of(candidate, fields, &cells)
        };
        Matrix { candidates: candidates.into_iter().enumerate().map(total).collect(), missing, cases, left_out }
    }

    /// The names of the candidates.
    pub fn names(&self) -> Vec<&str> {
        self.candidates.iter().map(|total| total.candidate.as_str()).collect()
    }

    /// Whether a candidate fails.
    pub fn fails(&self) -> bool {
        self.cases.iter().any(Row::fails)
    }

    /// The candidates of which nothing was tested, each with the reason: that is no success.
    pub fn untested(&self) -> Vec<String> {
        let conclusion = |at: usize| Tally::of(self.cases.iter().map(|row| &row.cells[at].verdict)).conclusion();
        let untested = self.names().into_iter().enumerate().filter_map(|(at, name)| match conclusion(at) {
            Conclusion::NothingTested(why) => Some(format!("{name}: {why}")),
            _ => None,
        });
        untested.collect()
    }
}

impl Document for Matrix {
    const KIND: &'static str = "matrix";
}

impl Merge for Matrix {
    /// Cases stand in the order of their names, so that sums do not depend on which part came first.
    fn merge(self, other: Self) -> Result<Self, Unmergeable> {
        Unmergeable::unless_same("the list of candidates", &self.names().join(", "), &other.names().join(", "))?;
        for (one, other) in self.candidates.iter().zip(&other.candidates) {
            Unmergeable::unless_same("what a candidate computes", &one.fields, &other.fields)?;
        }
        let candidates = self.candidates.into_iter().map(|total| (total.candidate, total.fields)).collect();
        let mut missing = [self.missing, other.missing].concat();
        missing.sort();
        missing.dedup();
        let mut cases = [self.cases, other.cases].concat();
        cases.sort_by(|left, right| (&left.name, left.dtype).cmp(&(&right.name, right.dtype)));
        if let Some(two) = cases.windows(2).find(|two| (&two[0].name, two[0].dtype) == (&two[1].name, two[1].dtype)) {
            return Err(Unmergeable::twice(format!("the case {} {}", two[0].name, two[0].dtype)));
        }
        Ok(Matrix::of(candidates, missing, cases, self.left_out + other.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::matrix::{present, run};
    use crate::document::merge::laws;
    use crate::watch::Watch;
    use nsa_corpus::{Dtype, entries};

    fn part(entry: &str) -> Matrix {
        let (candidates, missing) = present(&["tiled", "rowwise+dv_gain_of_1_percent", "absent"].map(str::to_owned));
        let entry = entries().iter().find(|one| one.name == entry).unwrap();
        let rows = run(&[(entry, Dtype::F32)], &candidates, Watch::nobody()).unwrap();
        let named = candidates.iter().map(|one| (one.name().to_owned(), Fields::of(one.as_ref()))).collect();
        Matrix::of(named, missing, rows, 1)
    }

    #[test]
    fn parts_merge_in_any_order_into_what_one_run_gives() {
        let parts = ["edges/seq_1", "edges/seq_1_selects_itself", "sliding/window_1"].map(part);
        let whole = laws(parts.clone());
        assert_eq!((whole.cases.len(), whole.left_out, whole.missing.len()), (3, 3, 1));
        assert_eq!((whole.candidates[0].verdicts["fail"], whole.candidates[1].verdicts["fail"]), (0, 3));
        assert!(whole.fails() && whole.untested().is_empty());
        let again = parts[0].clone().merge(whole.clone()).unwrap_err().to_string();
        assert!(again.contains("edges/seq_1 f32"), "{again}");
        let mut fewer = parts[0].clone();
        fewer.candidates.truncate(1);
        assert!(fewer.merge(whole).unwrap_err().to_string().contains("the list of candidates"));
    }
}
