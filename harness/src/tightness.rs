//! How tight the budgets are: error / budget over all judged elements, as counts in fixed buckets.
//!
//! A histogram takes constant memory however many elements it counts, and two of them merge without loss, in any order: a
//! quantile over 10^9 elements of many cases is as good as one over a single case.

use std::collections::BTreeMap;

use nsa_corpus::{Element, Field};
use serde_json::{Value, json};

use crate::report::Report;
use crate::verdict::Verdict;

/// Mantissa bits that choose a bucket: eight buckets for each power of two.
const BITS: u32 = 3;
const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - BITS;
/// Everything below `2^LOWEST` shares the first bucket, everything from `2^HIGHEST` on the last.
const LOWEST: i32 = -40;
const HIGHEST: i32 = 2;
const BUCKETS: usize = ((HIGHEST - LOWEST) as usize) << BITS;

/// Counts of ratios above 0, and the largest.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ratios {
    /// Empty until the first ratio; then [`BUCKETS`] counts.
    counts: Vec<u64>,
    max: f64,
}

impl Ratios {
    fn add(&mut self, ratio: f64) {
        self.counts.resize(BUCKETS, 0);
        self.counts[bucket(ratio)] += 1;
        self.max = self.max.max(ratio);
    }

    fn merge(&mut self, other: &Ratios) {
        if !other.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
            self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
            self.max = self.max.max(other.max);
        }
    }

    /// The upper end of the bucket that holds the element of this rank, counted from 1; never more than the largest.
    fn at(&self, rank: u64) -> f64 {
        let mut below = 0;
        let index = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        index.map_or(self.max, |index| upper_end(index).min(self.max))
    }
}

/// The first bits of the number itself, exponent and [`BITS`] of its mantissa, number its bucket.
fn bucket(ratio: f64) -> usize {
    let first = 2f64.powi(LOWEST).to_bits() >> SHIFT;
    ((ratio.to_bits() >> SHIFT).saturating_sub(first) as usize).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> f64 {
    if bucket == BUCKETS - 1 {
        return f64::INFINITY;
    }
    let first = 2f64.powi(LOWEST).to_bits() >> SHIFT;
    f64::from_bits((first + bucket as u64 + 1) << SHIFT)
}

/// How tight the budgets of one field are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tightness {
    /// Elements held to a finite budget.
    pub judged: u64,
    /// Of these, the ones without any error.
    pub exact: u64,
    /// Elements that are not finite in the oracle, or that nothing is promised for.
    pub apart: u64,
    rigorous: Ratios,
    likely: Ratios,
}

/// Half of all judged elements, all but one in a thousand, and all of them have at most this error / budget.
///
/// The first two are upper ends of buckets: at most an eighth above the exact quantile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The largest, exactly.
    pub max: f64,
}

impl Tightness {
    /// Counts an element with its error over tier B and over tier H, both 0 where it is exact.
    pub(crate) fn add(&mut self, rigorous: f64, likely: f64) {
        self.judged += 1;
        if rigorous == 0.0 {
            self.exact += 1;
        } else {
            self.rigorous.add(rigorous);
            self.likely.add(likely);
        }
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Tightness) {
        self.judged += other.judged;
        self.exact += other.exact;
        self.apart += other.apart;
        self.rigorous.merge(&other.rigorous);
        self.likely.merge(&other.likely);
    }

    /// Error / B.
    pub fn rigorous(&self) -> Quantiles {
        self.quantiles(&self.rigorous)
    }

    /// Error / H.
    pub fn likely(&self) -> Quantiles {
        self.quantiles(&self.likely)
    }

    fn json(&self, field: Field, element: Element) -> Value {
        let quantiles = |quantiles: Quantiles| json!({ "p50": number(quantiles.p50), "p999": number(quantiles.p999), "max": number(quantiles.max) });
        json!({
            "field": field,
            "element": element,
            "judged": self.judged,
            "exact": self.exact,
            "apart": self.apart,
            "error_over_b": quantiles(self.rigorous()),
            "error_over_h": quantiles(self.likely()),
        })
    }

    fn quantiles(&self, ratios: &Ratios) -> Quantiles {
        let at = |part: f64| {
            let rank = (self.judged as f64 * part).ceil() as u64;
            if rank <= self.exact { 0.0 } else { ratios.at(rank - self.exact) }
        };
        Quantiles { p50: at(0.5), p999: at(0.999), max: ratios.max }
    }
}

/// How tight the budgets are, by field and format of the inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    rows: BTreeMap<(Field, Element), Tightness>,
}

impl Summary {
    /// What all of `reports` come to.
    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut summary = Summary::default();
        reports.into_iter().for_each(|report| summary.add(report));
        summary
    }

    /// Adds every comparison of `report`, unless it says nothing about its backend.
    pub fn add(&mut self, report: &Report) {
        if matches!(report.verdict, Verdict::Inconclusive(_)) {
            return;
        }
        for comparison in &report.comparisons {
            self.rows.entry((comparison.field, report.element)).or_default().merge(&comparison.tightness);
        }
    }

    /// The counts of one field and format, where any was compared.
    pub fn get(&self, field: Field, element: Element) -> Option<&Tightness> {
        self.rows.get(&(field, element))
    }

    /// Elements held to a finite budget, by format.
    pub fn judged(&self) -> BTreeMap<Element, u64> {
        let mut judged = BTreeMap::new();
        for ((_, element), tightness) in &self.rows {
            *judged.entry(*element).or_default() += tightness.judged;
        }
        judged
    }

    /// One row for each field and format, with a head: a table for [`crate::cli`].
    pub(crate) fn table(&self) -> Vec<Vec<String>> {
        let head = ["field", "element", "judged", "exact", "B: p50", "p99.9", "max", "H: p50", "p99.9", "max"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for ((field, element), tightness) in self.rows.iter().filter(|(_, tightness)| tightness.judged > 0) {
            let share = 100.0 * tightness.exact as f64 / tightness.judged as f64;
            let mut row =
                vec![field.to_string(), element.to_string(), tightness.judged.to_string(), format!("{share:.1}%")];
            for quantiles in [tightness.rigorous(), tightness.likely()] {
                row.extend([quantiles.p50, quantiles.p999, quantiles.max].map(digits));
            }
            rows.push(row);
        }
        rows
    }

    /// Adds `judged` (by format) and `tightness` (by field and format) to a JSON object: docs/reports.md.
    pub(crate) fn add_to(&self, content: &mut Value) {
        content["judged"] = json!(self.judged());
        content["tightness"] =
            self.rows.iter().map(|((field, element), tightness)| tightness.json(*field, *element)).collect();
    }
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

    fn counted(ratios: impl IntoIterator<Item = f64>) -> Tightness {
        let mut tightness = Tightness::default();
        ratios.into_iter().for_each(|ratio| tightness.add(ratio, 2.0 * ratio));
        tightness
    }

    #[test]
    fn a_quantile_is_at_most_an_eighth_above_the_exact_one_and_the_maximum_is_exact() {
        for count in [1u32, 2, 3, 10, 999, 1000, 1001, 50_000] {
            let ratios: Vec<f64> = (1..=count).map(|k| f64::from(k) / f64::from(count)).collect();
            let quantiles = counted(ratios.iter().copied()).rigorous();
            for (part, found) in [(0.5, quantiles.p50), (0.999, quantiles.p999)] {
                let exact = ratios[(f64::from(count) * part).ceil() as usize - 1];
                assert!(found >= exact && found <= exact * 1.125, "{part} of {count}: {exact} and {found}");
            }
            assert_eq!(quantiles.max, 1.0);
        }
    }

    #[test]
    fn a_ratio_of_any_size_is_a_few_characters() {
        assert_eq!([0.0, 0.25, 999_999.5, f64::INFINITY].map(digits), ["0.000", "0.250", "999999.500", "inf"]);
        assert_eq!([4e-4, 1e6, 8.7e26, f64::MAX].map(digits), ["4e-4", "1e6", "9e26", "2e308"]);
    }

    #[test]
    fn errors_of_zero_count_in_the_quantiles() {
        let half = counted([0.0, 0.0, 0.0, 0.25]);
        assert_eq!((half.judged, half.exact, half.rigorous().p50, half.rigorous().max), (4, 3, 0.0, 0.25));
        assert_eq!(half.rigorous().p999, 0.25);
        assert_eq!(half.likely().max, 0.5);
        assert_eq!(counted([0.0, 0.25, 0.5]).rigorous().p50, 0.25 * 1.125);
    }

    #[test]
    fn merging_is_counting_together_in_any_order() {
        let (left, right): (Vec<f64>, Vec<f64>) =
            ((0..700).map(|k| f64::from(k) * 1e-4).collect(), (0..900).map(|k| 1.0 / f64::from(k + 1)).collect());
        let together = counted(left.iter().chain(&right).copied());
        for [first, second] in [[&left, &right], [&right, &left]] {
            let mut merged = counted(first.iter().copied());
            merged.merge(&counted(second.iter().copied()));
            merged.merge(&Tightness::default());
            assert_eq!(merged, together);
        }
    }

    #[test]
    fn ratios_beyond_the_buckets_are_kept_in_the_last_ones() {
        let tightness = counted([1e-300, f64::MIN_POSITIVE, 1e300, f64::INFINITY]);
        assert_eq!(tightness.rigorous().max, f64::INFINITY);
        assert!(tightness.rigorous().p50 < 1e-11);
        assert_eq!((bucket(2f64.powi(LOWEST)), bucket(1e-300), bucket(f64::INFINITY)), (0, 0, BUCKETS - 1));
        assert_eq!(upper_end(bucket(1.0)), 1.125);
    }
}
