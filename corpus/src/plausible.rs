//! What may be declared of an arithmetic: the ranges that docs/numerics.md ("What may be declared") derives. A declaration that
//! no program has would let any answer pass.

use crate::{Arithmetic, Dot, Dtype, Error};

/// Twice a division's error of two units in the last place, the coarsest operation of a fast f32 program: a unit roundoff may be
/// declared this many times that of f32, or of the inputs' format where that is coarser.
const UNITS: f64 = 4.0;
/// The finest unit roundoff: binary128's.
const LEAST_UNIT: f64 = 1.0 / (1u128 << 113) as f64;
/// The error of an exponential that f32 programs use, `__expf` of -88: 105 units in the last place.
const EXPONENTIAL: f64 = 1.0 / 65_536.0;
/// Products that hardware adds at once, at most.
const BLOCK: usize = 64;
/// Bits that hardware keeps beyond the 24 of its f32 accumulator: one fewer than the worst known keeps, and as many as an exact sum of
/// 16-bit products would take.
const EXTRA_BITS: [i32; 2] = [-1, 40];

/// The range that a declared error has to be in.
#[derive(Clone, Copy)]
struct Range {
    of: Dtype,
    least: f64,
    most: f64,
}

impl Range {
    fn holds(self, name: &str, declared: f64) -> Result<(), Error> {
        let Range { of, least, most } = self;
        if (least..=most).contains(&declared) {
            return Ok(());
        }
        let [declared, least, most] = [declared, least, most].map(power);
        Err(Error::invalid(format!(
            "arithmetic: {name} {declared} is outside {least} to {most}, what a program with {of} inputs may declare"
        )))
    }
}

/// A number, as a power of two where it is one.
fn power(value: f64) -> String {
    let exponent = value.log2();
    if exponent.fract() == 0.0 && exponent.abs() > 3.0 { format!("2^{exponent}") } else { value.to_string() }
}

impl Arithmetic {
    /// Whether some program that takes inputs of `dtype` has such an arithmetic: what a file or another program declares is not
    /// believed before. docs/numerics.md ("What may be declared") derives the ranges.
    ///
    /// # Errors
    /// The part that is outside its range, with both.
    pub fn check(&self, dtype: Dtype) -> Result<(), Error> {
        let coarser = dtype.unit_roundoff().max(Dtype::F32.unit_roundoff());
        let units = Range { of: dtype, least: LEAST_UNIT, most: UNITS * coarser };
        let exponentials = Range { most: EXPONENTIAL.max(units.most), ..units };
        units.holds("unit", self.unit)?;
        exponentials.holds("exponential", self.exponential)?;
        for (name, dot) in [("scores", self.scores), ("products", self.products)] {
            dot.check(name, units)?;
        }
        if self.rescale_every == Some(0) {
            return Err(Error::invalid("arithmetic: rescale_every 0 is no number of keys"));
        }
        let formats = [
            ("probability", Some(self.probability)),
            ("value_gradient_products", self.value_gradient_products),
            ("output", Some(self.output)),
            ("lse", Some(self.lse)),
            ("gradient", Some(self.gradient)),
            ("sel_scale_gradient", Some(self.sel_scale_gradient)),
        ];
        let coarse = formats.into_iter().find(|(_, format)| format.is_some_and(|it| it.unit_roundoff() > coarser));
        match coarse {
            Some((name, Some(format))) => Err(Error::invalid(format!(
                "arithmetic: {name} {format} is coarser than the inputs' {dtype} and than f32"
            ))),
            _ => Ok(()),
        }
    }
}

impl Dot {
    /// Whether some program sums so, under the name that its arithmetic has it by.
    fn check(self, name: &str, units: Range) -> Result<(), Error> {
        let outside = |part: &str, declared: String, [least, most]: [String; 2]| {
            Err(Error::invalid(format!(
                "arithmetic: {name}: {part} {declared} is outside {least} to {most}, what hardware does"
            )))
        };
        let (block, extra_bits) = match self {
            Dot::Fma { unit } => return units.holds(&format!("{name}: unit"), unit),
            Dot::Blocks { block, extra_bits } => (block, extra_bits),
            Dot::Tf32 { extra_bits } => (1, extra_bits),
        };
        if !(1..=BLOCK).contains(&block) {
            return outside("block", block.to_string(), [1, BLOCK].map(|limit| limit.to_string()));
        }
        if !(EXTRA_BITS[0]..=EXTRA_BITS[1]).contains(&extra_bits) {
            return outside("extra_bits", extra_bits.to_string(), EXTRA_BITS.map(|limit| limit.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(dtype: Dtype, change: impl Fn(&mut Arithmetic)) -> String {
        let mut arithmetic = Arithmetic::f32();
        change(&mut arithmetic);
        arithmetic.check(dtype).map_or_else(|error| error.to_string(), |()| "none".to_owned())
    }

    #[test]
    fn every_named_arithmetic_may_be_declared_of_every_format() {
        for dtype in Dtype::ALL {
            let tf32 = Dot::Tf32 { extra_bits: 0 };
            let tf32 = Arithmetic { scores: tf32, products: tf32, ..Arithmetic::f32() };
            for arithmetic in [Arithmetic::f64(), Arithmetic::f32(), Arithmetic::tensor_core(dtype), tf32] {
                arithmetic.check(dtype).unwrap();
            }
        }
    }

    #[test]
    fn a_unit_that_no_program_of_the_format_has_is_refused_with_its_range() {
        let unit = |dtype, exponent| refusal(dtype, |a| a.unit = 2f64.powi(exponent));
        // Four times what the format, or f32, rounds by.
        for (dtype, coarsest) in [(Dtype::F64, -22), (Dtype::F32, -22), (Dtype::F16, -9), (Dtype::Bf16, -6)] {
            assert_eq!(unit(dtype, coarsest), "none");
            let refused = unit(dtype, coarsest + 1);
            let range = format!("unit 2^{} is outside 2^-113 to 2^{coarsest}", coarsest + 1);
            assert!(refused.contains(&range) && refused.contains(dtype.name()), "{refused}");
        }
        assert!(refusal(Dtype::F32, |a| a.unit = 0.5).contains("unit 0.5 is outside"));
        for unit in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            assert!(refusal(Dtype::Bf16, |a| a.unit = unit).contains("is outside"), "{unit}");
            let dot = Dot::Fma { unit };
            assert!(refusal(Dtype::Bf16, |a| a.products = dot).contains("products: unit"), "{unit}");
        }
        assert!(refusal(Dtype::F32, |a| a.scores = Dot::Fma { unit: 0.5 }).contains("scores: unit 0.5 is outside"));
    }

    #[test]
    fn an_exponential_may_err_by_what_fast_ones_do() {
        for (dtype, coarsest) in [(Dtype::F64, -16), (Dtype::F32, -16), (Dtype::F16, -9), (Dtype::Bf16, -6)] {
            assert_eq!(refusal(dtype, |a| a.exponential = 2f64.powi(coarsest)), "none");
            let refused = refusal(dtype, |a| a.exponential = 2f64.powi(coarsest + 1));
            assert!(refused.contains("exponential 2^") && refused.contains("is outside"), "{refused}");
        }
    }

    #[test]
    fn sums_that_no_hardware_has_are_refused() {
        let blocks = |block, extra_bits| refusal(Dtype::F16, |a| a.scores = Dot::Blocks { block, extra_bits });
        assert_eq!([blocks(1, -1), blocks(16, 0), blocks(64, 40)].map(|text| text == "none"), [true; 3]);
        assert!(blocks(16, -64).contains("scores: extra_bits -64 is outside -1 to 40"));
        assert!(blocks(16, 41).contains("extra_bits 41") && blocks(0, 0).contains("block 0 is outside 1 to 64"));
        assert!(blocks(1 << 20, 0).contains("block 1048576"));
        let tf32 = |extra_bits| refusal(Dtype::F32, |a| a.products = Dot::Tf32 { extra_bits });
        assert!(tf32(0) == "none" && tf32(i32::MIN).contains("products: extra_bits -2147483648"));
    }

    #[test]
    fn nothing_is_stored_more_coarsely_than_it_came() {
        assert_eq!(refusal(Dtype::Bf16, |a| a.output = Dtype::Bf16), "none");
        assert_eq!(refusal(Dtype::F64, |a| a.output = Dtype::F32), "none");
        let refused = refusal(Dtype::F16, |a| a.gradient = Dtype::Bf16);
        assert!(refused.contains("gradient bf16 is coarser than the inputs' f16"), "{refused}");
        assert!(refusal(Dtype::F32, |a| a.probability = Dtype::F16).contains("probability f16"));
        assert!(refusal(Dtype::F32, |a| a.value_gradient_products = Some(Dtype::F16)).contains("value_gradient_p"));
        assert!(refusal(Dtype::F32, |a| a.rescale_every = Some(0)).contains("rescale_every 0"));
    }
}
