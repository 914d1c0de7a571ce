//! The derivative of a function of one number, with an error of its own: see the module above for the derivation.

/// A numerical derivative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The derivative.
    pub value: f64,
    /// By how much it may err: truncation and roundoff.
    pub error: f64,
    /// How often the loss was evaluated for it.
    pub evaluations: usize,
}

/// Which steps a tableau takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub first: f64,
    pub levels: usize,
}

/// Columns of the tableau beyond which nothing is gained.
const ORDERS: usize = 7;
/// As many steps that leave every bit of the loss as it was say that it does not depend on the direction.
const UNCHANGED: usize = 5;

/// `phi'(0)`, given `phi(0)` and the error `noise` of each evaluation. Stops once the error is at most
/// `wanted(derivative)`. `None` where `phi` is finite at too few points.
pub(super) fn richardson(
    mut phi: impl FnMut(f64) -> f64,
    base: f64,
    noise: f64,
    steps: Steps,
    wanted: impl Fn(f64) -> f64,
) -> Option<Estimate> {
    if !base.is_finite() {
        return None;
    }
    let mut best: Option<Estimate> = None;
    let mut above: Vec<Entry> = Vec::new();
    let mut unchanged = true;
    for level in 0..steps.levels.max(3) {
        let h = steps.first * 2f64.powi(-(level as i32));
        let (ahead, behind) = (phi(h), phi(-h));
        let evaluations = 2 * (level + 1);
        unchanged &= ahead == base && behind == base;
        if unchanged && level + 1 == UNCHANGED {
            // A slope smaller than the loss's last bit would not have shown.
            return Some(Estimate { value: 0.0, error: f64::EPSILON * base.abs() / steps.first, evaluations });
        }
        let difference = Entry { value: (ahead - behind) / (2.0 * h), roundoff: noise / h };
        if !difference.value.is_finite() {
            // Too far out for the function: begin again, closer.
            above.clear();
            continue;
        }
        let row = next_row(difference, &above);
        for order in 1..above.len() {
            let entry = row[order];
            let near = [row[order - 1], above[order - 1], above[order]];
            let truncation = near.iter().fold(0.0f64, |max, near| max.max((entry.value - near.value).abs()));
            let error = truncation + entry.roundoff;
            if best.is_none_or(|best| error < best.error) {
                best = Some(Estimate { value: entry.value, error, evaluations });
            }
        }
        above = row;
        if let Some(best) = best.as_mut() {
            best.evaluations = evaluations;
            if best.error <= wanted(best.value) || (difference.roundoff > best.error && !unchanged) {
                break;
            }
        }
    }
    best
}

#[derive(Clone, Copy)]
struct Entry {
    value: f64,
    roundoff: f64,
}

fn next_row(first: Entry, above: &[Entry]) -> Vec<Entry> {
    let mut row = vec![first];
    let mut power = 1.0;
    for up in above.iter().take(ORDERS) {
        power *= 4.0;
        let left = row[row.len() - 1];
        row.push(Entry {
            value: left.value + (left.value - up.value) / (power - 1.0),
            roundoff: (power * left.roundoff + up.roundoff) / (power - 1.0),
        });
    }
    row
}

/// Points on either side of 0 at which noise is sampled.
const SIDE: i32 = 4;

/// A bound for the error of one evaluation of `phi` near 0, from differences of its values at nine close points.
pub(super) fn noise(phi: impl Fn(f64) -> f64, base: f64, first_step: f64) -> f64 {
    let spacing = first_step * 2f64.powi(-24);
    let mut differences: Vec<f64> =
        (-SIDE..=SIDE).map(|point| if point == 0 { base } else { phi(f64::from(point) * spacing) }).collect();
    let mut variance = 0.0f64;
    // (r!)^2 / (2r)!, by recurrence.
    let mut share = 1.0;
    for order in 1..=6 {
        differences = differences.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let r = f64::from(order);
        share *= r * r / (2.0 * r * (2.0 * r - 1.0));
        if order >= 4 {
            let square = differences.iter().map(|d| d * d).sum::<f64>() / differences.len() as f64;
            variance = variance.max(share * square);
        }
    }
    (8.0 * variance.sqrt()).max(f64::EPSILON * base.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Steps = Steps { first: 0.25, levels: 22 };

    fn derive(phi: impl Fn(f64) -> f64) -> Estimate {
        let noise = noise(&phi, phi(0.0), STEPS.first);
        richardson(&phi, phi(0.0), noise, STEPS, |_| 0.0).unwrap()
    }

    #[test]
    fn derivatives_of_known_functions_lie_within_their_error() {
        let holds = |name: &str, found: Estimate, expected: f64, relative: f64| {
            assert!((found.value - expected).abs() <= found.error, "{name}: {found:?}, not {expected}");
            assert!(found.error <= relative * expected.abs().max(1.0), "{name}: {found:?} is coarse");
        };
        holds("sin", derive(|t| (0.7 + t).sin()), 0.7f64.cos(), 1e-12);
        holds("steep exp", derive(|t| (30.0 * t).exp()), 30.0, 1e-11);
        holds("steep tanh", derive(|t| (200.0 * t + 0.5).tanh()), 200.0 / 0.5f64.cosh().powi(2), 1e-11);
        holds("linear", derive(|t| 3.0 * t + 1.0), 3.0, 1e-13);
        holds("even", derive(|t| (t * t).cos()), 0.0, 1e-12);
        // Six digits are lost to the offset.
        holds("offset", derive(|t| 1e6 + t.sin()), 1.0, 1e-7);
    }

    #[test]
    fn the_error_grows_with_the_noise_of_the_function() {
        let rough = |t: f64| (0.7 + t).sin() + 1e-7 * (t * 1e12).sin();
        let found = derive(rough);
        assert!((found.value - 0.7f64.cos()).abs() <= found.error, "{found:?}");
        assert!(found.error > 1e-8, "{found:?}");
    }

    #[test]
    fn steps_where_the_function_is_not_finite_are_left_out() {
        let found = derive(|t: f64| (t + 1e-3).ln());
        assert!((found.value - 1000.0).abs() <= found.error && found.error < 1e-3, "{found:?}");
    }

    #[test]
    fn a_function_that_is_not_finite_at_all_has_no_derivative() {
        assert_eq!(richardson(|_| f64::NAN, f64::NAN, 0.0, STEPS, |_| 0.0), None);
        assert_eq!(richardson(|_| f64::NAN, 1.0, 0.0, STEPS, |_| 0.0), None);
    }

    #[test]
    fn an_unchanged_loss_is_a_derivative_of_zero_up_to_its_last_bit() {
        let found = derive(|_| 5.0);
        assert_eq!(found.value, 0.0);
        assert!(found.error > 0.0 && found.error < 1e-14);
    }
}
