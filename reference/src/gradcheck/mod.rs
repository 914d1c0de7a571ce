//! Checks claimed gradients of any function of tensors against numerical derivatives that know their own error.
//!
//! Nothing here knows about attention except the adapter [`attention`]: give [`Problem::new`] a loss and, for each
//! tensor it reads, the value and the gradient that is claimed ([`Variable`]), and [`Problem::check`] it.
//!
//! # The derivative and its error
//! Along a direction `u` let `phi(t) = L(x + t u)` and `D_k = (phi(h_k) - phi(-h_k)) / 2 h_k` with `h_k = h_0 / 2^k`. The
//! error of a central difference is a series in `h^2`, which Richardson's tableau removes term by term:
//! `T[k][0] = D_k`, `T[k][j] = T[k][j-1] + (T[k][j-1] - T[k-1][j-1]) / (4^j - 1)`. Two errors are known of each entry:
//!
//! - *Truncation*: the largest distance to the entries it was made from, `T[k][j-1]` and `T[k-1][j-1]` (Ridders), and to
//!   the entry of its own order one step coarser, `T[k-1][j]`: their errors and so, once the series converges, far
//!   more than its own. Before it converges two neighbours may agree by chance; three seldom do.
//! - *Roundoff*: if each evaluation of `L` errs by at most `nu`, then `R[k][0] = nu / h_k`, and the tableau's weights give
//!   `R[k][j] = (4^j R[k][j-1] + R[k-1][j-1]) / (4^j - 1)`.
//!
//! `h_0` is about a quarter of the tensor's values, at least 1/4, and longer where such a step over the whole tensor changes
//! the loss by less than 2^-12 of itself; steps beyond which the loss is not finite are left out.
//!
//! The entry with the smallest sum of both is the answer, that sum its error `E`. Halving stops when that is small
//! enough to tell the fault looked for, or when roundoff alone exceeds the best sum.
//!
//! `nu` is measured, for a loss that cancels, or has exponentials of large numbers in it, errs by far more than
//! `eps |L|`: `phi` is sampled at nine points so close (`h_0 2^-24`) that its 4th to 6th differences hold no slope or
//! curvature, only rounding. Independent errors of standard deviation `sigma` make the mean square of the `r`-th
//! difference `sigma^2 (2r)! / (r!)^2` (Moré, Wild, SIAM J. Sci. Comput. 33:3). `nu = max(8 sigma, eps |L|)`: nine points
//! may show half of `sigma`, and a bound is wanted rather than a deviation.
//!
//! # The verdict
//! With `r` the relative fault to be told ([`Settings::relative`]) and `S` the derivative's own size (at least 2^-10 of
//! the tensor's largest, or of the gradient's norm for a direction of many elements):
//!
//! - **Fail** where `|claimed - numerical| > E + r S / 4`, or where the claim is not finite. A failure is confirmed by
//!   a second tableau with other steps, halved as far as they help; if the two disagree beyond their errors, a third
//!   decides, and if that agrees with neither, none is believed: Ambiguous.
//! - **Pass** where it is not, and `E <= r S / 4`: a fault of `r S` would have failed, since then
//!   `|claimed - numerical| >= r S - E >= E + r S / 2`. A derivative that may be 0 (`|numerical| <= E`) has no size;
//!   there `E h_0 <= 2^-36 M` is asked instead, `M` the larger of `|L|` and of what `L` changes by at first order in
//!   a step `h_0` of any tensor; and the claim may be off by `2^-44 M / h_0`, the rounding of terms that cancel.
//! - **Ambiguous** otherwise: the numerical derivative is too coarse to tell, or the loss is not finite.
//!
//! # Examples
//! ```
//! use ndarray::arr1;
//! use nsa_reference::gradcheck::{Problem, Settings, Variable, Verdict};
//! // L = sum a sin(b), so dL/da = sin(b) and dL/db = a cos(b).
//! let (a, b) = (arr1(&[1.0, -2.0, 0.5]), arr1(&[0.3, 1.1, 2.0]));
//! let right = vec![
//!     Variable::new("a", a.clone(), b.mapv(f64::sin)).unwrap(),
//!     Variable::new("b", b.clone(), &a * &b.mapv(f64::cos)).unwrap(),
//! ];
//! let problem = Problem::new(|x| (&x[0] * &x[1].mapv(f64::sin)).sum(), right);
//! let settings = Settings::default();
//! assert_eq!(problem.check(&settings).verdict, Verdict::Pass);
//! problem.assert_detects(&settings); // a gradient wrong by 1e-6 of itself would have been refused
//!
//! let wrong = vec![Variable::new("b", b.clone(), &a * &b.mapv(|b| b.cos() * (1.0 + 1e-6))).unwrap()];
//! let report = Problem::new(|x| (&a * &x[0].mapv(f64::sin)).sum(), wrong).check(&settings);
//! assert_eq!(report.verdict, Verdict::Fail);
//! assert_eq!(report.failures[0].variable, "b");
//! ```

mod attention;
mod derivative;
mod direction;
mod explain;
mod judge;
mod mutated;
mod report;
mod variable;

use ndarray::ArrayD;
use rayon::prelude::*;

pub use attention::attention;
pub use derivative::Estimate;
pub use direction::Direction;
pub use mutated::Mutated;
pub use report::{Finding, Report, Verdict};
pub use variable::Variable;

use derivative::{Steps, noise, richardson};

/// What is checked, and how closely.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The fault, relative to the derivative, that a pass excludes.
    pub relative: f64,
    /// Up to this many elements in all tensors together, every element is checked; beyond, directions are.
    pub elements: usize,
    /// How many directions are drawn for each tensor.
    pub directions: usize,
    /// Halvings of the step at most.
    pub levels: usize,
    /// Where the signs and places of directions come from.
    pub seed: u64,
}

impl Default for Settings {
    /// Faults of 1e-6; every element up to 2,000 of them; else 16 directions for each tensor.
    fn default() -> Self {
        Settings { relative: 1e-6, elements: 2000, directions: 16, levels: 24, seed: 0 }
    }
}

/// A loss of several tensors, with claimed gradients.
pub struct Problem<'a> {
    loss: Box<Loss<'a>>,
    variables: Vec<Variable>,
}

type Loss<'a> = dyn Fn(&[ArrayD<f64>]) -> f64 + Sync + 'a;

impl<'a> Problem<'a> {
    /// `loss` reads the tensors in the order of `variables`. It has to be smooth at their values, and deterministic.
    pub fn new(loss: impl Fn(&[ArrayD<f64>]) -> f64 + Sync + 'a, variables: Vec<Variable>) -> Self {
        Problem { loss: Box::new(loss), variables }
    }

    /// The tensors and their claims.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// Every element where there are at most [`Settings::elements`], else random directions; failures are explained
    /// by the element at fault.
    pub fn check(&self, settings: &Settings) -> Report {
        let size: usize = self.variables.iter().map(|variable| variable.value.len()).sum();
        if size <= settings.elements { self.check_elements(settings) } else { self.check_directions(settings) }
    }

    /// Every element of every tensor.
    pub fn check_elements(&self, settings: &Settings) -> Report {
        let measured = self.measure(self.every_element(), settings);
        self.judge(&measured, settings, None)
    }

    /// [`Settings::directions`] directions of random signs for each tensor: over all of it, within one index of an axis
    /// (one token, one head, one slot), within one block.
    pub fn check_directions(&self, settings: &Settings) -> Report {
        let measured = self.measure(self.drawn_directions(settings), settings);
        self.judge(&measured, settings, None)
    }

    /// The derivative along one direction, by numerical means alone. `None` where the loss is not finite.
    pub fn derivative(&self, direction: &Direction, settings: &Settings) -> Option<Estimate> {
        let scale = self.scale(direction.variable);
        self.estimate(direction, settings, &scale, Effort::Enough)
    }

    fn every_element(&self) -> Vec<Direction> {
        let elements = |(index, variable): (usize, &Variable)| {
            let shape = variable.value.shape().to_vec();
            (0..variable.value.len()).map(move |flat| Direction::element(index, &shape, flat)).collect::<Vec<_>>()
        };
        self.variables.iter().enumerate().flat_map(elements).collect()
    }

    fn drawn_directions(&self, settings: &Settings) -> Vec<Direction> {
        let drawn = |(index, variable): (usize, &Variable)| {
            let count = if variable.value.is_empty() { 0 } else { settings.directions };
            (0..count).map(|count| Direction::draw(index, variable, count, settings.seed)).collect::<Vec<_>>()
        };
        self.variables.iter().enumerate().flat_map(drawn).collect()
    }

    fn measure(&self, directions: Vec<Direction>, settings: &Settings) -> Measured {
        let scales: Vec<Scale> = (0..self.variables.len()).into_par_iter().map(|index| self.scale(index)).collect();
        let estimates = directions
            .into_par_iter()
            .map(|direction| {
                let estimate = self.estimate(&direction, settings, &scales[direction.variable], Effort::Enough);
                (direction, estimate)
            })
            .collect();
        Measured { scales, estimates }
    }

    /// First step, noise and size of one tensor's derivatives.
    fn scale(&self, index: usize) -> Scale {
        let variable = &self.variables[index];
        let everywhere = Direction::signed(index, variable.everywhere(), 0x5eed, "all".to_owned());
        let loss = self.along(&everywhere, 0.0);
        let shortest_step = first_step(&variable.value);
        let step = self.grown(&everywhere, loss, shortest_step);
        let noise = noise(|t| self.along(&everywhere, t), loss, step);
        let largest = variable.gradient.iter().filter(|d| d.is_finite()).fold(0.0f64, |max, d| max.max(d.abs()));
        Scale { step, shortest_step, loss, noise, largest_claim: largest }
    }

    /// Where a step over the whole tensor hardly changes the loss, a longer one drowns less in its rounding.
    fn grown(&self, everywhere: &Direction, loss: f64, mut step: f64) -> f64 {
        let hardly = |t: f64| (self.along(everywhere, t) - loss).abs() < loss.abs() * 2f64.powi(-12);
        for _ in 0..GROWTHS {
            if !(hardly(4.0 * step) && hardly(-4.0 * step)) {
                break;
            }
            step *= 4.0;
        }
        step
    }

    fn estimate(&self, direction: &Direction, settings: &Settings, scale: &Scale, effort: Effort) -> Option<Estimate> {
        let factor = match effort {
            Effort::Enough => 1.0,
            Effort::Best(factor) => factor,
        };
        let steps = Steps { first: scale.step * factor, levels: settings.levels };
        let floor = scale.largest_claim * SMALLEST_SHARE;
        let wanted = |derivative: f64| effort.wanted(settings.relative, derivative, floor);
        richardson(|t| self.along(direction, t), scale.loss, scale.noise, steps, wanted)
    }

    /// `L(x + t u)`.
    fn along(&self, direction: &Direction, t: f64) -> f64 {
        let mut point: Vec<ArrayD<f64>> = self.variables.iter().map(|variable| variable.value.clone()).collect();
        direction.for_each(self.variables[direction.variable].value.shape(), |at, sign| {
            point[direction.variable][at] += t * sign;
        });
        (self.loss)(&point)
    }
}

/// A derivative counts as this share of the tensor's largest where it is smaller.
const SMALLEST_SHARE: f64 = 1.0 / 1024.0;

/// A first step grows by up to 4 to this power.
const GROWTHS: usize = 8;

/// How far a tableau is taken.
#[derive(Clone, Copy)]
enum Effort {
    /// Until the fault looked for could be told.
    Enough,
    /// As far as it helps, from steps of another size: an opinion of its own.
    Best(f64),
}

impl Effort {
    /// The error at which a derivative that counts as `floor` at least is known well enough.
    fn wanted(self, relative: f64, derivative: f64, floor: f64) -> f64 {
        match self {
            Effort::Enough => relative / 8.0 * derivative.abs().max(floor),
            Effort::Best(_) => 0.0,
        }
    }
}

/// What is known of one tensor before any of its derivatives.
struct Scale {
    step: f64,
    /// Before it was grown.
    shortest_step: f64,
    loss: f64,
    noise: f64,
    largest_claim: f64,
}

/// Numerical derivatives, before any claim is looked at.
struct Measured {
    scales: Vec<Scale>,
    estimates: Vec<(Direction, Option<Estimate>)>,
}

/// A power of two of about a quarter of the tensor's root mean square, at least 1/4: the tableau halves it as far as the
/// function needs. Adding a power of two to numbers of few bits is exact.
fn first_step(value: &ArrayD<f64>) -> f64 {
    let finite = || value.iter().filter(|value| value.is_finite());
    let square: f64 = finite().map(|value| value * value).sum::<f64>() / finite().count().max(1) as f64;
    let size = square.sqrt().clamp(1.0, 2f64.powi(500));
    2f64.powi(size.log2().floor() as i32 - 2)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ndarray::Array1;

    use super::*;

    fn problem<'a>(loss: impl Fn(&[f64]) -> f64 + Sync + 'a, value: &[f64], gradient: &[f64]) -> Problem<'a> {
        let variable = Variable::row(value, gradient);
        Problem::new(move |point: &[ArrayD<f64>]| loss(point[0].as_slice().unwrap()), vec![variable])
    }

    fn element(flat: usize, len: usize) -> Direction {
        Direction::element(0, &[len], flat)
    }

    #[test]
    fn first_steps_follow_the_size_of_the_finite_values() {
        let step = |values: &[f64]| first_step(&Array1::from(values.to_vec()).into_dyn());
        assert_eq!(step(&[]), 0.25);
        assert_eq!(step(&[0.1, 0.0]), 0.25);
        assert_eq!(step(&[8.0, -8.0]), 2.0);
        assert_eq!(step(&[40.0, 0.0, f64::NAN, f64::INFINITY]), 4.0, "28 is between 16 and 32");
        assert_eq!(step(&[7.9]), 1.0);
    }

    #[test]
    fn steps_grow_until_the_loss_moves_on_both_sides() {
        let step = |loss: fn(f64) -> f64| problem(|x| loss(x[0]), &[0.0], &[1.0]).scale(0).step;
        // 2^-12 of 2^20 is 256: 4 * 64 is no longer below it.
        assert_eq!(step(|x| 1_048_576.0 + x), 64.0);
        assert_eq!(step(|x| 1_048_576.0 + if x < 0.0 { 1e5 * x } else { x }), 0.25);
        assert_eq!(step(|x| 1_048_576.0 + if x > 0.0 { 1e5 * x } else { x }), 0.25);
        assert_eq!(step(|x| 1_048_576.0 + x.max(0.0)), 64.0);
        assert_eq!(step(|x| 1_048_576.0 + x.min(0.0)), 64.0);
        assert_eq!(step(|x| x), 0.25);
        assert_eq!(step(|x| 1.0 + 1e-300 * x), 0.25 * 65_536.0, "as far as it grows");
        let scale = problem(|x| 1_048_576.0 + x[0], &[0.0], &[-3.0]).scale(0);
        assert_eq!((scale.shortest_step, scale.largest_claim, scale.loss), (0.25, 3.0, 1_048_576.0));
    }

    #[test]
    fn a_derivative_needs_no_claim() {
        let sine = problem(|x| (x[0] + 2.0 * x[1]).sin(), &[0.3, 0.1], &[0.0, 0.0]);
        assert_eq!((sine.variables().len(), sine.variables()[0].name()), (1, "x"));
        let found = sine.derivative(&element(1, 2), &Settings::default()).unwrap();
        assert!((found.value - 2.0 * 0.5f64.cos()).abs() <= found.error && found.error < 1e-6, "{found:?}");
        assert!(problem(|_| f64::NAN, &[0.0], &[0.0]).derivative(&element(0, 1), &Settings::default()).is_none());
    }

    #[test]
    fn another_opinion_takes_steps_of_its_own() {
        let farthest = Mutex::new(0.0f64);
        let loss = |x: &[f64]| {
            let mut farthest = farthest.lock().unwrap();
            *farthest = farthest.max(x[0].abs());
            x[0].sin()
        };
        let sine = problem(loss, &[0.0], &[1.0]);
        let scale = sine.scale(0);
        for (effort, factor) in [(Effort::Enough, 1.0), (Effort::Best(0.375), 0.375)] {
            *farthest.lock().unwrap() = 0.0;
            let found = sine.estimate(&element(0, 1), &Settings::default(), &scale, effort).unwrap();
            assert_eq!(*farthest.lock().unwrap(), factor * scale.step);
            assert!((found.value - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn enough_is_known_at_an_eighth_of_the_mutation_of_this_or_a_1024th_of_the_largest_claim() {
        let wanted = |derivative, floor| Effort::Enough.wanted(1e-6, derivative, floor);
        assert_eq!([wanted(-16.0, 1.0), wanted(0.5, 4.0)], [2e-6, 5e-7]);
        assert_eq!(Effort::Best(0.5).wanted(1e-6, 16.0, 1.0), 0.0);
        // The second derivative is small beside the largest claim: no more steps than that needs, and no fewer.
        let loss = |x: &[f64]| x[0] + (3.0 * x[1]).sin() * 10.0;
        let estimate = |claim: f64| {
            let problem = problem(loss, &[0.0, 0.2], &[claim, 0.0]);
            let scale = Scale { noise: 1e-15, ..problem.scale(0) };
            problem.estimate(&element(1, 2), &Settings::default(), &scale, Effort::Enough).unwrap()
        };
        let (rough, close) = (estimate(1e9), estimate(0.0));
        assert!(rough.evaluations < close.evaluations, "{rough:?} {close:?}");
        assert!(
            rough.error <= 1e-6 / 8.0 * 1e9 / 1024.0 && close.error <= 1e-6 / 8.0 * close.value,
            "{rough:?} {close:?}"
        );
    }
}
