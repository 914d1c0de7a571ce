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
            // The entry to its left is nearer than the one it was made from with it.
            let near = [above[order - 1], above[order]];
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
    fn a_tableau_worked_out_by_hand() {
        // D(h) = 1 + h^2: rows 2; 1.25, 1; 1.0625, 1, 1. The last entry of order 1 came from 1.25.
        let steps = Steps { first: 1.0, levels: 3 };
        let found = richardson(|t| t + t * t * t, 0.0, 0.0, steps, |_| 0.0).unwrap();
        assert_eq!(found, Estimate { value: 1.0, error: 0.25, evaluations: 6 });
        let entry = |value, roundoff| Entry { value, roundoff };
        // D(h) = 5 + 3 h^2 + 2 h^4 at h = 2, 1, 1/2: every order removes a power.
        let second = next_row(entry(10.0, 2.0), &[entry(49.0, 1.0)]);
        let third = next_row(entry(5.875, 4.0), &second);
        let pairs = |row: &[Entry]| row.iter().map(|e| (e.value, e.roundoff)).collect::<Vec<_>>();
        assert_eq!(pairs(&second), [(10.0, 2.0), (-3.0, 3.0)]);
        assert_eq!(pairs(&third), [(5.875, 4.0), (4.5, 6.0), (5.0, 6.6)]);
    }

    #[test]
    fn it_stops_where_enough_is_known_or_noise_takes_over() {
        let all = 2 * STEPS.levels;
        let linear = richardson(|t| 3.0 * t, 0.0, 0.0, STEPS, |_| 0.0).unwrap();
        assert_eq!((linear.value, linear.error, linear.evaluations), (3.0, 0.0, 6));
        let noisy = richardson(f64::sin, 0.0, 1e-6, STEPS, |_| 0.0).unwrap();
        assert!(noisy.evaluations > 6 && noisy.evaluations < all, "{noisy:?}");
        let wanted = richardson(f64::sin, 0.0, 1e-13, STEPS, |derivative| 1e-3 * derivative).unwrap();
        let best = richardson(f64::sin, 0.0, 1e-13, STEPS, |_| 0.0).unwrap();
        assert!(wanted.evaluations < best.evaluations && best.error < wanted.error && wanted.error <= 1e-3);
        // Nothing to be known at all is found out after five steps, and only if it is true of both sides.
        let unchanged = richardson(|_| 5.0, 5.0, 1e-9, STEPS, |_| 0.0).unwrap();
        assert_eq!(unchanged, Estimate { value: 0.0, error: f64::EPSILON * 5.0 / 0.25, evaluations: 10 });
        let one_side = richardson(|t| 5.0 + t.max(0.0), 5.0, 1e-9, STEPS, |_| 0.0).unwrap();
        assert!((one_side.value - 0.5).abs() <= one_side.error && one_side.value != 0.0, "{one_side:?}");
    }

    #[test]
    fn noise_is_that_of_the_highest_differences() {
        // Values -e, e, -e, ...: differences of order 6 are 64 e, and (6!)^2 / 12! of their square is the variance.
        let (e, spacing) = (1e-5, 0.5 * 2f64.powi(-24));
        let alternating = |t: f64| if (t / spacing).round() as i64 % 2 == 0 { -e } else { e };
        let expected = 8.0 * e * 64.0 * (720.0 * 720.0 / 479_001_600.0f64).sqrt();
        let found = noise(alternating, -e, 0.5);
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} and {expected}");
        // A cubic has no differences of order 4: what is left is one rounding of the value.
        let cubic = |t: f64| 1.0 + (t / spacing).powi(3);
        assert_eq!(noise(cubic, 1.0, 0.5), f64::EPSILON);
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
