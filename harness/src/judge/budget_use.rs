//! How tight the budgets are: error / budget over all judged elements, as counts in fixed buckets.
//!
//! A histogram takes constant memory however many elements it counts, and two of them merge without loss, in any order: a
//! quantile over 10^9 elements of many cases is as good as one over a single case.

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
pub struct BudgetUse {
    /// Elements held to a finite budget.
    pub judged: u64,
    /// Of these, the ones without any error.
    pub exact: u64,
    /// Elements that are not finite in the oracle, or that nothing is promised for.
    pub excluded: u64,
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

impl BudgetUse {
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
    pub fn merge(&mut self, other: &BudgetUse) {
        self.judged += other.judged;
        self.exact += other.exact;
        self.excluded += other.excluded;
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

    fn quantiles(&self, ratios: &Ratios) -> Quantiles {
        let at = |part: f64| {
            let rank = (self.judged as f64 * part).ceil() as u64;
            if rank <= self.exact { 0.0 } else { ratios.at(rank - self.exact) }
        };
        Quantiles { p50: at(0.5), p999: at(0.999), max: ratios.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(ratios: impl IntoIterator<Item = f64>) -> BudgetUse {
        let mut budget_use = BudgetUse::default();
        ratios.into_iter().for_each(|ratio| budget_use.add(ratio, 2.0 * ratio));
        budget_use
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
            merged.merge(&BudgetUse::default());
            assert_eq!(merged, together);
        }
    }

    #[test]
    fn ratios_beyond_the_buckets_are_kept_in_the_last_ones() {
        let budget_use = counted([1e-300, f64::MIN_POSITIVE, 1e300, f64::INFINITY]);
        assert_eq!(budget_use.rigorous().max, f64::INFINITY);
        assert!(budget_use.rigorous().p50 < 1e-11);
        assert_eq!((bucket(2f64.powi(LOWEST)), bucket(1e-300), bucket(f64::INFINITY)), (0, 0, BUCKETS - 1));
        assert_eq!(upper_end(bucket(1.0)), 1.125);
    }
}
