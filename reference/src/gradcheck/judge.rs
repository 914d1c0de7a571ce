//! From numerical derivatives and claims to verdicts.

use ndarray::ArrayD;

use super::derivative::Estimate;
use super::direction::Direction;
use super::{Effort, Finding, Measured, Problem, Report, SMALLEST_SHARE, Scale, Settings, Verdict};

/// Failures that are confirmed and explained; more of them are most often the same fault again.
const EXPLAINED: usize = 3;
/// A derivative of 0 is told where its error, over a first step, is below this share of the loss's size: 2^-36.
const ZERO_SHARE: f64 = 1.0 / 68_719_476_736.0;
/// What a claim of 0 may be off by, over a first step, as a share of the loss's size: 2^-44, some hundreds of roundings.
const LEFT_OVER: f64 = 1.0 / 17_592_186_044_416.0;
/// Ratios of the second and third opinion's steps to the first's; few bits, and no powers of two.
const OTHER_STEPS: [f64; 2] = [91.0 / 128.0, 53.0 / 128.0];

impl Problem<'_> {
    /// Judges the claims. `planted` replaces one tensor's; then one confirmed failure is enough.
    pub(super) fn judge(
        &self,
        measured: &Measured,
        settings: &Settings,
        planted: Option<(usize, &ArrayD<f64>)>,
    ) -> Report {
        let (scales, largest, reach) = (&measured.scales, largest(measured), reach(measured));
        let judge = Judge { problem: self, settings, scales, largest, reach, planted };
        let mut findings: Vec<Finding> =
            measured.estimates.iter().map(|(direction, estimate)| judge.finding(direction, *estimate)).collect();
        let mut evaluations = measured.estimates.iter().flat_map(|(_, estimate)| estimate).map(|e| e.evaluations).sum();

        let mut worst_first: Vec<usize> = (0..findings.len()).collect();
        worst_first.sort_by(|&left, &right| findings[right].excess().total_cmp(&findings[left].excess()));
        let mut explained = 0;
        for index in worst_first {
            if findings[index].verdict != Verdict::Fail {
                continue;
            }
            evaluations += judge.confirm(&measured.estimates[index].0, &mut findings[index]);
            if findings[index].verdict == Verdict::Fail {
                if planted.is_some() {
                    break;
                }
                if explained < EXPLAINED {
                    explained += 1;
                    findings[index].culprit = judge.explain(&measured.estimates[index].0).map(Box::new);
                }
            }
        }
        Report::of(findings, evaluations)
    }
}

/// The largest derivative found in each tensor.
fn largest(measured: &Measured) -> Vec<f64> {
    let mut largest = vec![0.0f64; measured.scales.len()];
    for (direction, estimate) in &measured.estimates {
        if let (Some(estimate), 1) = (estimate, direction.size()) {
            let largest = &mut largest[direction.variable];
            *largest = largest.max(estimate.value.abs());
        }
    }
    largest
}

/// What the loss changes by, at first order, in a first step: the most of all directions.
fn reach(measured: &Measured) -> f64 {
    let change = |(direction, estimate): &(Direction, Option<Estimate>)| {
        estimate.map_or(0.0, |estimate| estimate.value.abs() * measured.scales[direction.variable].step)
    };
    measured.estimates.iter().map(change).fold(0.0, f64::max)
}

fn evaluations(opinions: &[Estimate]) -> usize {
    opinions.iter().map(|opinion| opinion.evaluations).sum()
}

/// What a verdict depends on.
pub(super) struct Judge<'a> {
    pub problem: &'a Problem<'a>,
    pub settings: &'a Settings,
    scales: &'a [Scale],
    largest: Vec<f64>,
    reach: f64,
    planted: Option<(usize, &'a ArrayD<f64>)>,
}

impl Judge<'_> {
    /// A claim and a derivative, judged, not yet confirmed.
    pub(super) fn finding(&self, direction: &Direction, numerical: Option<Estimate>) -> Finding {
        let (claimed, norm) = self.claim(direction);
        let mut finding = Finding {
            variable: self.problem.variables[direction.variable].name.clone(),
            what: direction.what.clone(),
            region: direction.region.clone(),
            claimed,
            numerical,
            allowed: 0.0,
            verdict: Verdict::Ambiguous,
            reason: None,
            culprit: None,
        };
        let Some(numerical) = numerical else {
            finding.reason = Some("the loss is not finite".to_owned());
            return finding;
        };
        let largest = if direction.size() == 1 { self.largest[direction.variable] } else { norm };
        let told = self.settings.relative / 4.0 * numerical.value.abs().max(SMALLEST_SHARE * largest);
        let scale = &self.scales[direction.variable];
        let size = scale.loss.abs().max(self.reach);
        let may_be_zero = numerical.value.abs() <= numerical.error;
        let zero = may_be_zero && numerical.error * scale.step <= ZERO_SHARE * size;
        // Terms of a claim that cancel to 0 leave their rounding behind.
        let left_over = if may_be_zero { LEFT_OVER * size / scale.shortest_step } else { 0.0 };
        finding.allowed = numerical.error + told + left_over;
        // NaN is not within anything.
        let within = (claimed - numerical.value).abs() <= finding.allowed;
        finding.verdict = if !within {
            Verdict::Fail
        } else if numerical.error <= told || zero {
            Verdict::Pass
        } else {
            finding.reason = Some(format!("the numerical derivative errs by more than {told:.1e}"));
            Verdict::Ambiguous
        };
        finding
    }

    /// The derivative along a direction, from the tensor's usual steps.
    pub(super) fn estimate(&self, direction: &Direction) -> Option<Estimate> {
        self.opinion(direction, Effort::Enough)
    }

    fn opinion(&self, direction: &Direction, effort: Effort) -> Option<Estimate> {
        self.problem.estimate(direction, self.settings, &self.scales[direction.variable], effort)
    }

    /// Asks for a second derivative, and where that differs a third, before a failure is believed. The verdict is then
    /// the one by the derivative that two of them agree on. Returns the evaluations it took.
    fn confirm(&self, direction: &Direction, finding: &mut Finding) -> usize {
        let Some(first) = finding.numerical.filter(|_| finding.claimed.is_finite()) else { return 0 };
        let mut opinions = vec![first];
        for factor in OTHER_STEPS {
            let Some(next) = self.opinion(direction, Effort::Best(factor)) else { break };
            let agrees = |other: &Estimate| (other.value - next.value).abs() <= other.error + next.error;
            let agreed = opinions.iter().any(agrees);
            opinions.push(next);
            if agreed {
                *finding = self.finding(direction, Some(next));
                return evaluations(&opinions) - first.evaluations;
            }
        }
        finding.verdict = Verdict::Ambiguous;
        finding.reason = Some("numerical derivatives from different steps disagree".to_owned());
        evaluations(&opinions) - first.evaluations
    }

    /// The claimed gradient along the direction, and its norm there. Summed with compensation: the claim's own
    /// rounding is to be judged, not this sum's.
    fn claim(&self, direction: &Direction) -> (f64, f64) {
        let variable = &self.problem.variables[direction.variable];
        let gradient = match self.planted {
            Some((index, gradient)) if index == direction.variable => gradient,
            _ => &variable.gradient,
        };
        let (mut sum, mut lost, mut squares) = (0.0f64, 0.0f64, 0.0f64);
        direction.for_each(variable.value.shape(), |at, sign| {
            let term = sign * gradient[at];
            let next = sum + term;
            lost += if sum.abs() >= term.abs() { (sum - next) + term } else { (term - next) + sum };
            sum = next;
            squares += term * term;
        });
        (if sum.is_finite() { sum + lost } else { sum }, squares.sqrt())
    }
}
