//! What a check found, and how it reads.

use std::fmt;
use std::ops::Range;

use super::Estimate;

/// What was decided. The order is that of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The claim agrees, and the fault looked for would have shown.
    Pass,
    /// The numerical derivative cannot tell.
    Ambiguous,
    /// The claim is wrong.
    Fail,
}

/// One direction's claim beside its numerical derivative.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The tensor's name.
    pub variable: String,
    /// The direction in words: `"one token"`.
    pub what: String,
    /// The region it covers, one range for each axis.
    pub region: Vec<Range<usize>>,
    /// The claimed gradient along the direction.
    pub claimed: f64,
    /// The numerical derivative; `None` where the loss is not finite.
    pub numerical: Option<Estimate>,
    /// The difference beyond which the claim fails.
    pub allowed: f64,
    /// What was decided.
    pub verdict: Verdict,
    /// Why, where it is not in the numbers.
    pub reason: Option<String>,
    /// For a failure along many elements: the smallest part that still fails, one element where it can be told.
    pub culprit: Option<Box<Finding>>,
}

impl Finding {
    /// The element's index, where the finding is of one element.
    pub fn element(&self) -> Option<Vec<usize>> {
        let one = self.region.iter().all(|range| range.len() == 1);
        one.then(|| self.region.iter().map(|range| range.start).collect())
    }

    /// `|claimed - numerical| / allowed`; infinite where either is missing or not finite.
    pub fn excess(&self) -> f64 {
        let Some(numerical) = self.numerical else { return f64::INFINITY };
        let difference = (self.claimed - numerical.value).abs();
        match difference / self.allowed {
            excess if excess.is_finite() => excess,
            _ if difference == 0.0 => 0.0,
            _ => f64::INFINITY,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.verdict, self.variable)?;
        match self.element() {
            Some(index) => write!(f, "{index:?}")?,
            None => write!(f, ", {} {:?}", self.what, self.region)?,
        }
        write!(f, ": claimed {:e}, ", self.claimed)?;
        match self.numerical {
            Some(Estimate { value, error, .. }) => write!(f, "numerically {value:e} ± {error:.1e}")?,
            None => write!(f, "no numerical derivative")?,
        }
        write!(f, ", allowed {:.1e}", self.allowed)?;
        if let Some(reason) = &self.reason {
            write!(f, " ({reason})")?;
        }
        match &self.culprit {
            Some(culprit) => write!(f, "\n    by {culprit}"),
            None => Ok(()),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The gravest verdict of all directions.
    pub verdict: Verdict,
    /// Directions checked.
    pub checks: usize,
    /// Evaluations of the loss.
    pub evaluations: usize,
    /// The direction nearest to failing, or furthest beyond.
    pub worst: Option<Finding>,
    /// Every failure, the worst first; only the first few are explained.
    pub failures: Vec<Finding>,
    /// Every direction that could not be told.
    pub ambiguous: Vec<Finding>,
}

impl Report {
    pub(super) fn of(findings: Vec<Finding>, evaluations: usize) -> Self {
        let worst = |findings: &[Finding]| {
            let rank = |left: &&Finding, right: &&Finding| {
                left.verdict.cmp(&right.verdict).then(left.excess().total_cmp(&right.excess()))
            };
            findings.iter().max_by(rank).cloned()
        };
        let of = |verdict| findings.iter().filter(move |finding: &&Finding| finding.verdict == verdict).cloned();
        let mut failures: Vec<Finding> = of(Verdict::Fail).collect();
        failures.sort_by(|left, right| right.excess().total_cmp(&left.excess()));
        Report {
            verdict: findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Pass),
            checks: findings.len(),
            evaluations,
            worst: worst(&findings),
            failures,
            ambiguous: of(Verdict::Ambiguous).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: {} directions, {} failed, {} ambiguous, {} evaluations of the loss",
            self.verdict,
            self.checks,
            self.failures.len(),
            self.ambiguous.len(),
            self.evaluations
        )?;
        match self.failures.first().or(self.worst.as_ref()) {
            Some(finding) => write!(f, "\n  {finding}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(claimed: f64, numerical: Option<f64>, allowed: f64) -> Finding {
        Finding {
            variable: "x".to_owned(),
            what: "one element".to_owned(),
            region: Vec::new(),
            claimed,
            numerical: numerical.map(|value| Estimate { value, error: 0.0, evaluations: 2 }),
            allowed,
            verdict: Verdict::Fail,
            reason: None,
            culprit: None,
        }
    }

    #[test]
    fn excess_is_the_difference_over_what_is_allowed() {
        assert_eq!(finding(5.0, Some(2.0), 0.5).excess(), 6.0);
        assert_eq!(finding(2.0, Some(2.0), 0.0).excess(), 0.0);
        for (claimed, numerical) in [(2.5, Some(2.0)), (f64::NAN, Some(2.0)), (f64::INFINITY, Some(2.0)), (2.0, None)] {
            assert_eq!(finding(claimed, numerical, 0.0).excess(), f64::INFINITY);
        }
        let report = Report::of(vec![finding(3.0, Some(2.0), 1.0), finding(9.0, Some(2.0), 1.0)], 7);
        assert_eq!([report.failures[0].claimed, report.failures[1].claimed], [9.0, 3.0]);
        assert_eq!((report.worst.unwrap().claimed, report.evaluations, report.checks), (9.0, 7, 2));
    }
}
