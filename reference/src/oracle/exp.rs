//! The exponential function by `+ - *` and bit moves alone, so that it vectorises and gives the same bits everywhere.
//!
//! The platform's `exp` differs from machine to machine, and a scalar library call per term would take longer than the
//! dot products beside it.

const LOG2_E: f64 = std::f64::consts::LOG2_E;
/// `ln 2` to 32 bits, so that its product with any exponent here is exact, and the rest of `ln 2`.
const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// `1.5 * 2^52`: adding it rounds to an integer, which then stands in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// `1 / k!` for `k` from 13 down to 0: on `|r| <= ln(2) / 2` the first omitted term is below `2^-57`.
const TAYLOR: [f64; 14] = [
    1.0 / 6_227_020_800.0,
    1.0 / 479_001_600.0,
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// `e^x` within 1.5 units in the last place; gradual underflow, infinity above the range, NaN for NaN.
///
/// `x = k ln 2 + r`, and `e^x = 2^(k/2) 2^(k - k/2) sum r^j / j!`; the two powers let results underflow gradually.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    let x = if x > 1000.0 { 1000.0 } else { x };
    let x = if x < -1000.0 { -1000.0 } else { x };
    let exponent = (x * LOG2_E + ROUNDER) - ROUNDER;
    let r = (x - exponent * LN_2_HIGH) - exponent * LN_2_LOW;
    let mut sum = TAYLOR[0];
    for coefficient in &TAYLOR[1..] {
        sum = sum * r + coefficient;
    }
    let half = (exponent * 0.5 + ROUNDER) - ROUNDER;
    sum * power_of_two(half) * power_of_two(exponent - half)
}

/// `2^exponent` for an integer `exponent` in `-1022..=1023`.
#[inline(always)]
fn power_of_two(exponent: f64) -> f64 {
    f64::from_bits((exponent + ROUNDER).to_bits().wrapping_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn it_is_within_an_ulp_and_a_half_of_libm() {
        let mut worst = 0.0f64;
        for step in 0..2_000_000 {
            let x = -745.0 + f64::from(step) * 7.27e-4;
            let exact = libm::exp(x);
            let ulp = f64::from_bits(exact.to_bits() + 1) - exact;
            worst = worst.max((exp(x) - exact).abs() / ulp);
        }
        // libm itself errs by up to 1 unit, so the two may differ by 2.
        assert!(worst <= 2.0, "{worst} ulp");
    }

    #[test]
    fn the_ends_of_the_range_are_exact() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e300), 0.0);
        assert_eq!(exp(f64::INFINITY), f64::INFINITY);
        assert_eq!(exp(720.0), f64::INFINITY);
        assert!(exp(f64::NAN).is_nan());
        assert_eq!(exp(-744.0), libm::exp(-744.0));
    }
}
