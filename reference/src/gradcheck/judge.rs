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
        mutated: Option<(usize, &ArrayD<f64>)>,
    ) -> Report {
        let judge = Judge::new(self, settings, measured, mutated);
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
                if mutated.is_some() {
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
    mutated: Option<(usize, &'a ArrayD<f64>)>,
}

impl<'a> Judge<'a> {
    fn new(
        problem: &'a Problem<'a>,
        settings: &'a Settings,
        measured: &'a Measured,
        mutated: Option<(usize, &'a ArrayD<f64>)>,
    ) -> Self {
        let (scales, largest, reach) = (&measured.scales, largest(measured), reach(measured));
        Judge { problem, settings, scales, largest, reach, mutated }
    }
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
        // NaN is not within anything, nor is an infinity within a limit that it made infinite itself.
        let within = claimed.is_finite() && (claimed - numerical.value).abs() <= finding.allowed;
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
        let gradient = match self.mutated {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ndarray::Array1;

    use super::super::Variable;
    use super::*;

    /// `sum c x`.
    fn linear<'a>(coefficients: &'a [f64], value: &[f64], gradient: &[f64]) -> Problem<'a> {
        let loss = move |point: &[ArrayD<f64>]| point[0].iter().zip(coefficients).map(|(x, c)| x * c).sum();
        Problem::new(loss, vec![Variable::row(value, gradient)])
    }

    #[test]
    fn what_a_claim_may_be_off_by() {
        let settings = Settings::default();
        let coefficients = [1024.0, 0.25, 64.0, 0.0];
        let problem = linear(&coefficients, &[1.0, 1.0, 1.0, 1.0], &coefficients);
        let measured = problem.measure(problem.every_element(), &settings);
        let report = problem.judge(&measured, &settings, None);
        assert_eq!(report.verdict, Verdict::Pass);
        let judge = Judge::new(&problem, &settings, &measured, None);
        assert_eq!((judge.largest[0], judge.reach), (1024.0, 1024.0 * measured.scales[0].step));
        let told = |index: usize| {
            let (direction, estimate) = &measured.estimates[index];
            judge.finding(direction, *estimate).allowed - estimate.unwrap().error
        };
        let near =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found}, not {expected}");
        near(told(0), 1e-6 / 4.0 * 1024.0);
        near(told(1), 1e-6 / 4.0 * 1.0);
        near(told(2), 1e-6 / 4.0 * 64.0);
        // A derivative of 0 also leaves what cancelling terms round.
        let (scale, size) = (&measured.scales[0], 1088.25);
        assert!(judge.reach < size, "of the two sizes the larger counts");
        let left_over = 2f64.powi(-44) * size / scale.shortest_step;
        near(told(3) - 1e-6 / 4.0, left_over);
    }

    #[test]
    fn verdicts_do_not_depend_on_the_unit_of_the_loss() {
        // The loss is 0 where it is differentiated: only what it reaches says how large it is.
        let verdicts = |unit: f64| -> Vec<(Verdict, f64)> {
            let loss = move |point: &[ArrayD<f64>]| {
                let x = point[0].as_slice().unwrap();
                unit * ((x[0] * x[1]).sin() + x[2] - 1.0 + 0.0 * x[3])
            };
            let claims = [0.0, 0.5, 1.0 + 3e-6, 1e-14].map(|claim| unit * claim);
            let problem = Problem::new(loss, vec![Variable::row(&[0.5, 0.0, 1.0, 1.0], &claims)]);
            let settings = Settings::default();
            let measured = problem.measure(problem.every_element(), &settings);
            let judge = Judge::new(&problem, &settings, &measured, None);
            let found = measured.estimates.iter().map(|(direction, estimate)| judge.finding(direction, *estimate));
            found.map(|finding| (finding.verdict, finding.allowed / unit)).collect()
        };
        let expected = verdicts(1.0);
        let words: Vec<Verdict> = expected.iter().map(|(verdict, _)| *verdict).collect();
        assert_eq!(words, [Verdict::Pass, Verdict::Pass, Verdict::Fail, Verdict::Pass]);
        for unit in [2f64.powi(-60), 2f64.powi(60)] {
            assert_eq!(verdicts(unit), expected);
        }
    }

    #[test]
    fn zero_is_told_only_where_the_loss_would_have_shown_it() {
        let verdict = |noise: f64| {
            let loss = |point: &[ArrayD<f64>]| point[0].iter().take(1).fold(4.0, |sum, x| sum + 1e-6 * x);
            let problem = Problem::new(loss, vec![Variable::row(&[0.0, 1.0], &[1e-6, 0.0])]);
            let settings = Settings::default();
            let measured = problem.measure(problem.every_element(), &settings);
            let judge = Judge::new(&problem, &settings, &measured, None);
            let numerical = Some(Estimate { value: 0.0, error: noise / measured.scales[0].step, evaluations: 2 });
            judge.finding(&measured.estimates[1].0, numerical).verdict
        };
        // The loss is 4, and 2^-36 of it the limit.
        assert_eq!(verdict(0.9 * 2f64.powi(-34)), Verdict::Pass);
        assert_eq!(verdict(1.1 * 2f64.powi(-34)), Verdict::Ambiguous);
    }

    #[test]
    fn every_evaluation_is_counted() {
        let calls = AtomicUsize::new(0);
        let loss = |point: &[ArrayD<f64>]| {
            calls.fetch_add(1, Ordering::SeqCst);
            point[0].iter().map(|x| x.sin()).sum()
        };
        // Two of four claims are wrong, and each is confirmed from other steps.
        let (value, gradient) = ([0.1, 0.2, 0.3, 0.4], [0.1f64.cos(), 0.5, 0.3f64.cos(), 0.5]);
        let problem = Problem::new(loss, vec![Variable::row(&value, &gradient)]);
        let settings = Settings::default();
        let measured = problem.measure(problem.every_element(), &settings);
        let before =
            measured.estimates.iter().filter_map(|(_, estimate)| *estimate).map(|e| e.evaluations).sum::<usize>();
        calls.store(0, Ordering::SeqCst);
        let report = problem.judge(&measured, &settings, None);
        let confirming = calls.load(Ordering::SeqCst);
        assert_eq!(report.failures.len(), 2);
        assert!(confirming > 8, "{confirming}");
        assert_eq!(report.evaluations, before + confirming);
    }

    #[test]
    fn three_failures_are_explained_and_the_rest_only_said() {
        let coefficients = vec![1.0; 3000];
        let problem = linear(&coefficients, &coefficients, &vec![-1.0; 3000]);
        let settings = Settings { directions: 12, ..Settings::default() };
        let report = problem.check(&settings);
        assert!(report.failures.len() > 4, "{report}");
        let explained = report.failures.iter().filter(|failure| failure.culprit.is_some()).count();
        assert_eq!(explained, EXPLAINED);
    }

    /// A linear loss whose only direction, with its signs, has these derivatives and claims; where its first failure leads.
    fn culprit(derivatives: &[f64], claims: &[f64]) -> Option<Vec<usize>> {
        let ones = vec![1.0; derivatives.len()];
        let settings = Settings { directions: 1, ..Settings::default() };
        let direction = Direction::draw(0, &Variable::row(&ones, &ones), 0, settings.seed);
        let mut signs = Vec::new();
        direction.for_each(&[ones.len()], |_, sign| signs.push(sign));
        let signed = |values: &[f64]| values.iter().zip(&signs).map(|(value, sign)| value * sign).collect::<Vec<f64>>();
        let coefficients = signed(derivatives);
        let report = linear(&coefficients, &ones, &signed(claims)).check_directions(&settings);
        assert_eq!(report.failures.len(), 1, "{report}");
        report.failures[0].culprit.as_ref().and_then(|culprit| culprit.element())
    }

    #[test]
    fn the_culprit_is_the_part_that_fails_and_is_further_off() {
        // Not what is off by more of itself, nor what a wrong sign makes small.
        assert_eq!(culprit(&[1.0, 1000.0], &[1.5, 1002.0]), Some(vec![1]));
        assert_eq!(culprit(&[5.0, 100.0], &[-5.0, 100.5]), Some(vec![0]));
        assert_eq!(culprit(&[1.0, 1.0], &[1.0, 1.001]), Some(vec![1]));
        // The first is further off, but within what its size allows.
        assert_eq!(culprit(&[1e9, -5e8], &[1e9 + 200.0, -5e8 + 150.0]), Some(vec![1]));
        assert_eq!(culprit(&[1.0, 1.0, 1.0], &[f64::NAN, 1.0, 1.0]), Some(vec![0]));
        assert_eq!(culprit(&[1.0, 1.0, 1.0], &[1.0, 1.0, f64::NEG_INFINITY]), Some(vec![2]));
    }

    #[test]
    fn opinions_that_disagree_are_none_and_are_counted() {
        // The slope depends on the leading bits of the step, which are those of the opinion.
        let calls = AtomicUsize::new(0);
        let loss = |point: &[ArrayD<f64>]| {
            calls.fetch_add(1, Ordering::SeqCst);
            let x = point[0].iter().next().copied().unwrap_or_default();
            let exponent = if x == 0.0 { 0.0 } else { x.abs().log2().floor() };
            let bits = x.abs() / exponent.exp2();
            x * if bits == 91.0 / 64.0 {
                2.0
            } else if bits == 53.0 / 32.0 {
                3.0
            } else {
                1.0
            }
        };
        let problem = Problem::new(loss, vec![Variable::row(&[0.0], &[10.0])]);
        let settings = Settings::default();
        let measured = problem.measure(problem.every_element(), &settings);
        let before = measured.estimates[0].1.unwrap().evaluations;
        calls.store(0, Ordering::SeqCst);
        let report = problem.judge(&measured, &settings, None);
        assert_eq!(report.verdict, Verdict::Ambiguous, "{report}");
        assert!(report.ambiguous[0].reason.as_ref().unwrap().contains("disagree"));
        assert_eq!(report.evaluations, before + calls.load(Ordering::SeqCst));
    }

    #[test]
    fn a_mutated_claim_replaces_that_of_its_own_tensor() {
        let loss = |point: &[ArrayD<f64>]| point.iter().flatten().sum();
        let variables =
            vec![Variable::row(&[1.0, 2.0], &[1.0, 1.0]), Variable::row(&[3.0, 4.0, 5.0], &[1.0, 1.0, 1.0])];
        let problem = Problem::new(loss, variables);
        let settings = Settings::default();
        let measured = problem.measure(problem.every_element(), &settings);
        let mutated = Array1::from(vec![1.0, 1.0, 1.5]).into_dyn();
        let report = problem.judge(&measured, &settings, Some((1, &mutated)));
        assert_eq!((report.failures.len(), report.checks), (1, 5));
        assert_eq!((report.failures[0].claimed, report.failures[0].element()), (1.5, Some(vec![2])));
        // Those faults are found, and are of the size that was asked for.
        let all = problem.mutated(&settings);
        assert_eq!(all.len(), 4);
        for mutated in all {
            assert_eq!(mutated.verdict, Verdict::Fail, "{mutated:?}");
            assert!((mutated.size / settings.relative - 1.0).abs() < 1e-6, "{mutated:?}");
        }
    }

    #[test]
    fn other_steps_are_shorter_of_few_bits_and_no_powers_of_two() {
        for factor in OTHER_STEPS {
            assert!((0.25..1.0).contains(&factor) && (factor * 128.0).fract() == 0.0 && factor.log2().fract() != 0.0);
        }
    }

    #[test]
    fn a_claim_is_summed_without_loss() {
        let tiny = 2f64.powi(-60);
        let whole = Direction::draw(0, &Variable::row(&[1.0; 4], &[1.0; 4]), 0, 0);
        for terms in [[1.0, tiny, 3.0 * tiny, -1.0], [tiny, 1.0, 3.0 * tiny, -1.0]] {
            let mut gradient = Vec::new();
            whole.for_each(&[4], |at, sign| gradient.push(sign * terms[at[0]]));
            let problem = linear(&[1.0; 4], &[1.0; 4], &gradient);
            let settings = Settings::default();
            let measured = problem.measure(Vec::new(), &settings);
            assert_eq!(Judge::new(&problem, &settings, &measured, None).claim(&whole), (4.0 * tiny, 2f64.sqrt()));
        }
    }
}
