//! From a failing direction to the element at fault.

use super::direction::Direction;
use super::judge::Judge;
use super::{Finding, Verdict};

impl Judge<'_> {
    /// Halves a failing direction again and again, keeping the half whose claim is further off: the halves' errors add
    /// up to the whole's, so one of them has at least half of it. Ends at one element, or where neither half fails on
    /// its own. `None` for a direction that is one element already.
    pub(super) fn explain(&self, failing: &Direction) -> Option<Finding> {
        let mut reached = None;
        let mut direction = failing.clone();
        while let Some(halves) = direction.halves() {
            let [left, right] = halves.map(|half| (self.finding(&half, self.estimate(&half)), half));
            let off = |finding: &Finding| match finding.numerical {
                _ if finding.verdict != Verdict::Fail => -1.0,
                Some(numerical) if finding.claimed.is_finite() => (finding.claimed - numerical.value).abs(),
                _ => f64::INFINITY,
            };
            let (finding, half) = if off(&left.0) >= off(&right.0) { left } else { right };
            if finding.verdict != Verdict::Fail {
                break;
            }
            direction = half;
            reached = Some(finding);
        }
        reached
    }
}
