//! The number formats that inputs, casts and outputs are rounded to.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, foreign};

/// A floating-point storage format. Values of every format are handled as `f64`, which holds each of them exactly.
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE binary64: nothing is rounded.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16: binary32 with a significand of 8 bits.
    Bf16,
}

impl Dtype {
    /// Every format, widest first.
    pub const ALL: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// `"f64"`, `"f32"`, `"f16"` or `"bf16"`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "f64",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Bytes that one value takes.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F64 => 8,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
        }
    }

    /// `value` rounded to this format, to nearest, ties to even, with gradual underflow; overflow gives infinity.
    ///
    /// A narrow format is rounded to once, straight from `f64`: going through `f32` would round twice.
    ///
    /// # Examples
    /// ```
    /// use nsa_corpus::Dtype;
    /// assert_eq!(Dtype::Bf16.round(1.0 + 1.0 / 256.0), 1.0); // a tie goes to the even neighbour
    /// assert_eq!(Dtype::F16.round(70000.0), f64::INFINITY);
    /// ```
    pub fn round(self, value: f64) -> f64 {
        match self {
            Dtype::F64 => value,
            Dtype::F32 => f64::from(value as f32),
            Dtype::F16 => f16::from_f32(round_to_odd(value)).to_f64(),
            Dtype::Bf16 => bf16::from_f32(round_to_odd(value)).to_f64(),
        }
    }

    /// Unit roundoff `u`: rounding a normal value moves it by at most `u` times itself.
    pub fn unit_roundoff(self) -> f64 {
        match self {
            Dtype::F64 => 2f64.powi(-53),
            Dtype::F32 => 2f64.powi(-24),
            Dtype::F16 => 2f64.powi(-11),
            Dtype::Bf16 => 2f64.powi(-8),
        }
    }

    /// The largest finite value.
    pub fn max(self) -> f64 {
        match self {
            Dtype::F64 => f64::MAX,
            Dtype::F32 => f64::from(f32::MAX),
            Dtype::F16 => f16::MAX.to_f64(),
            Dtype::Bf16 => bf16::MAX.to_f64(),
        }
    }

    /// The smallest positive normal value: below it, rounding errs absolutely, by up to `u` times this.
    pub fn min_positive(self) -> f64 {
        match self {
            Dtype::F64 => f64::MIN_POSITIVE,
            Dtype::F32 => f64::from(f32::MIN_POSITIVE),
            Dtype::F16 => f16::MIN_POSITIVE.to_f64(),
            Dtype::Bf16 => bf16::MIN_POSITIVE.to_f64(),
        }
    }
}

/// `value` as f32, an inexact one given an odd last bit: rounding that again to a much narrower format lands where one
/// rounding would have (Boldo and Melquiond, IEEE TC 57(4)). `half` rounds from the upper 32 bits of an f64 alone, which
/// takes values just above a tie for the tie.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || value.is_nan() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == text).ok_or_else(|| {
            Error::new(
                ErrorKind::UnknownWord,
                format!("dtype {} is none of f64, f32, f16, bf16", foreign::quoted(text)),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_idempotent_and_within_half_an_ulp() {
        for dtype in Dtype::ALL {
            for step in 1..2000 {
                let value = f64::from(step) * 0.001_234_567 - 1.1;
                let rounded = dtype.round(value);
                assert_eq!(dtype.round(rounded), rounded, "{dtype} {value}");
                let bound = dtype.unit_roundoff() * value.abs().max(dtype.min_positive());
                assert!((rounded - value).abs() <= bound, "{dtype} {value}");
            }
        }
    }

    #[test]
    fn f64_is_rounded_once_to_a_narrow_format() {
        // Just above a bf16 tie: through f32 it would land on the tie and then go to even, downwards.
        let value = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
        assert_eq!(Dtype::Bf16.round(value), 1.0 + 2f64.powi(-7));
        let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        assert_eq!(Dtype::F16.round(value), 1.0 + 2f64.powi(-10));
    }

    #[test]
    fn names_parse_back() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.name().parse::<Dtype>().unwrap(), dtype);
        }
        assert!("fp8".parse::<Dtype>().unwrap_err().to_string().contains("`fp8`"));
    }
}
