//! What an implementation declares of its arithmetic. The error budget of every element follows from it.

use serde::{Deserialize, Serialize};

use crate::{Element, Error, Field};

/// How an implementation accumulates a dot product.
///
/// The declared bound is `|fl(sum ab) - sum ab| <= constant(K) * sum |ab|` over `K` products, in any order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Dot {
    /// One rounding of unit `u` for each multiply-add.
    Fma {
        /// Unit roundoff of the accumulator.
        unit: f64,
    },
    /// A tensor core: products are added `block` at a time to an f32 accumulator, aligned to the largest and truncated
    /// with `extra_bits` bits beyond its 24.
    Blocks {
        /// Products added at once.
        block: usize,
        /// Bits kept beyond the accumulator's own.
        extra_bits: i32,
    },
    /// As [`Dot::Blocks`], with f32 operands truncated or rounded to tf32 on the way in.
    Tf32 {
        /// Bits kept beyond the accumulator's own.
        extra_bits: i32,
    },
}

impl Dot {
    /// The constant of the bound for `terms` products.
    ///
    /// `Fma`: `K u / (1 - K u)`. `Blocks`: `ceil(K / b) * ((b + 1) * 2^(1 - X) + 2) * 2^-24` (Fasi, Higham, Mikaitis,
    /// Pranesh, PeerJ CS 7:e330). `Tf32`: the same with `b = 8`, and `2 * 2^-11 + 2^-22` for its rounded operands.
    pub fn constant(self, terms: usize) -> f64 {
        let blocks = |block: usize, extra_bits: i32| {
            let each = (block as f64 + 1.0) * 2f64.powi(1 - extra_bits) + 2.0;
            terms.div_ceil(block) as f64 * each * 2f64.powi(-24)
        };
        match self {
            Dot::Fma { unit } => gamma(terms as f64, unit),
            Dot::Blocks { block, extra_bits } => blocks(block, extra_bits),
            Dot::Tf32 { extra_bits } => blocks(8, extra_bits) + 2.0 * 2f64.powi(-11) + 2f64.powi(-22),
        }
    }
}

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
    of: Element,
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

/// Where a backward takes `delta_i = sum_t P_t dP_t` from. The two agree but for rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delta {
    /// `<out_i, d_out_i>` with the stored `out`, as flash attention computes it.
    Output,
    /// `sum_t P_t dP_t`, as automatic differentiation of a softmax computes it.
    Probabilities,
}

/// How a forward keeps the sum of its weights while it goes over the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunningSum {
    /// As it is, relative to the running maximum.
    #[default]
    Plain,
    /// As its logarithm, a running log-sum-exp: each rescaling rounds it relative to the size of the logarithm.
    Logarithm,
}

/// `K u / (1 - K u)`: the relative error that `K` roundings of unit `u` add up to. Infinite from `K u = 1` on.
pub fn gamma(count: f64, unit: f64) -> f64 {
    let product = count * unit;
    if product < 1.0 { product / (1.0 - product) } else { f64::INFINITY }
}

/// The arithmetic that a backend declares for one element type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arithmetic {
    /// Unit roundoff `u` of scores, exponentials, sums and the running rescaling: `2^-24` for f32, `2^-53` for f64.
    pub unit: f64,
    /// Relative error of the exponential function: `2^-22` for `ex2.approx`.
    pub exponential: f64,
    /// `<q, k>` and `<d_out, v>`.
    pub scores: Dot,
    /// The products with P and dS: `P v`, `dS k`, and within one tile `dS^T q`, `P^T d_out`.
    pub products: Dot,
    /// The format that P and dS are cast to before those products; the format of `unit` means no cast.
    pub probability: Element,
    /// Keys between two rescalings of the running sum at least; `None`: a whole block.
    pub rescale_every: Option<usize>,
    /// How the sum of the weights is kept meanwhile.
    #[serde(default)]
    pub running_sum: RunningSum,
    /// Where the backward takes `delta_i`, the mean of dP under P, from.
    pub delta: Delta,
    /// The format in which `dv` multiplies P by `d_out` and adds the query heads of a group, before sums in `unit` take over;
    /// `None`: as the other products.
    #[serde(default)]
    pub value_gradient_products: Option<Element>,
    /// The format that `out` and `sliding_out` are stored in.
    pub output: Element,
    /// The format that `lse` and `sliding_lse` are stored in.
    pub lse: Element,
    /// The format that `dq`, `dk` and `dv` are stored in.
    pub gradient: Element,
    /// The format that `dsel_scale` is stored in.
    pub sel_scale_gradient: Element,
}

impl Arithmetic {
    /// Everything in f64, as the oracle computes.
    pub fn f64() -> Self {
        Self::plain(Element::F64, 2f64.powi(-51))
    }

    /// Everything in f32 with f32 multiply-adds: no tensor core, no cast.
    pub fn f32() -> Self {
        Self::plain(Element::F32, 2f64.powi(-22))
    }

    fn plain(element: Element, exponential: f64) -> Self {
        let unit = element.unit_roundoff();
        Arithmetic {
            unit,
            exponential,
            scores: Dot::Fma { unit },
            products: Dot::Fma { unit },
            probability: element,
            rescale_every: None,
            running_sum: RunningSum::Plain,
            delta: Delta::Output,
            value_gradient_products: None,
            output: element,
            lse: element,
            gradient: element,
            sel_scale_gradient: element,
        }
    }

    /// 16-bit tensor cores with f32 accumulation: P and dS are cast to `element` (f16 or bf16), outputs and gradients
    /// are stored in it, `lse` and `dsel_scale` in f32.
    pub fn tensor_core(element: Element) -> Self {
        let dot = Dot::Blocks { block: 16, extra_bits: 0 };
        Arithmetic {
            scores: dot,
            products: dot,
            probability: element,
            output: element,
            gradient: element,
            ..Self::f32()
        }
    }

    /// Whether some program that takes inputs of `element` has such an arithmetic: what a file or another program declares is not
    /// believed before. docs/numerics.md ("What may be declared") derives the ranges.
    ///
    /// # Errors
    /// The part that is outside its range, with both.
    pub fn check(&self, element: Element) -> Result<(), Error> {
        let coarser = element.unit_roundoff().max(Element::F32.unit_roundoff());
        let units = Range { of: element, least: LEAST_UNIT, most: UNITS * coarser };
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
                "arithmetic: {name} {format} is coarser than the inputs' {element} and than f32"
            ))),
            _ => Ok(()),
        }
    }

    /// The format that `field` is stored in.
    pub fn stored(&self, field: Field) -> Element {
        match field {
            Field::Out | Field::SlidingOut => self.output,
            Field::Lse | Field::SlidingLse => self.lse,
            Field::Dq | Field::Dk | Field::Dv => self.gradient,
            Field::DselScale => self.sel_scale_gradient,
        }
    }

    /// Unit roundoff of the cast of P and dS, 0 where they are not cast.
    pub fn probability_roundoff(&self) -> f64 {
        let roundoff = self.probability.unit_roundoff();
        if roundoff <= self.unit { 0.0 } else { roundoff }
    }

    /// `K u / (1 - K u)` with this arithmetic's `u`.
    pub fn gamma(&self, count: usize) -> f64 {
        gamma(count as f64, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_of_64_products_is_the_published_one() {
        let u = 2f64.powi(-24);
        assert_eq!(Dot::Blocks { block: 16, extra_bits: 0 }.constant(64), 144.0 * u);
        assert_eq!(Dot::Blocks { block: 16, extra_bits: 2 }.constant(64), 42.0 * u);
        assert!(Dot::Fma { unit: u }.constant(64) > 64.0 * u);
        assert_eq!(Dot::Fma { unit: 2f64.powi(-11) }.constant(4096), f64::INFINITY);
    }

    #[test]
    fn what_is_declared_covers_tiles_that_spans_fill_in_part() {
        let u = 2f64.powi(-24);
        let declared = Dot::Blocks { block: 16, extra_bits: 0 };
        // A step over k products that are not zero, as measured: (k + 1) / 2 + 2 units.
        let step = |products: usize| ((products + 1) as f64 / 2.0 + 2.0) * u;
        for length in 1..=256 {
            for spans in 1..=64 {
                let whole = (length / 16) as f64 * step(16);
                let rest = if length % 16 > 0 { step(length % 16) } else { 0.0 };
                let rescalings = spans as f64 * u;
                let measured = spans as f64 * (whole + rest);
                assert!(measured <= declared.constant(length * spans) + rescalings, "{spans} spans of {length}");
            }
        }
    }

    fn refusal(element: Element, change: impl Fn(&mut Arithmetic)) -> String {
        let mut arithmetic = Arithmetic::f32();
        change(&mut arithmetic);
        arithmetic.check(element).map_or_else(|error| error.to_string(), |()| "none".to_owned())
    }

    #[test]
    fn every_named_arithmetic_may_be_declared_of_every_format() {
        for element in Element::ALL {
            let tf32 = Dot::Tf32 { extra_bits: 0 };
            let tf32 = Arithmetic { scores: tf32, products: tf32, ..Arithmetic::f32() };
            for arithmetic in [Arithmetic::f64(), Arithmetic::f32(), Arithmetic::tensor_core(element), tf32] {
                arithmetic.check(element).unwrap();
            }
        }
    }

    #[test]
    fn a_unit_that_no_program_of_the_format_has_is_refused_with_its_range() {
        let unit = |element, exponent| refusal(element, |a| a.unit = 2f64.powi(exponent));
        // Four times what the format, or f32, rounds by.
        for (element, coarsest) in [(Element::F64, -22), (Element::F32, -22), (Element::F16, -9), (Element::Bf16, -6)] {
            assert_eq!(unit(element, coarsest), "none");
            let refused = unit(element, coarsest + 1);
            let range = format!("unit 2^{} is outside 2^-113 to 2^{coarsest}", coarsest + 1);
            assert!(refused.contains(&range) && refused.contains(element.name()), "{refused}");
        }
        assert!(refusal(Element::F32, |a| a.unit = 0.5).contains("unit 0.5 is outside"));
        for unit in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            assert!(refusal(Element::Bf16, |a| a.unit = unit).contains("is outside"), "{unit}");
            let dot = Dot::Fma { unit };
            assert!(refusal(Element::Bf16, |a| a.products = dot).contains("products: unit"), "{unit}");
        }
        assert!(refusal(Element::F32, |a| a.scores = Dot::Fma { unit: 0.5 }).contains("scores: unit 0.5 is outside"));
    }

    #[test]
    fn an_exponential_may_err_by_what_fast_ones_do() {
        for (element, coarsest) in [(Element::F64, -16), (Element::F32, -16), (Element::F16, -9), (Element::Bf16, -6)] {
            assert_eq!(refusal(element, |a| a.exponential = 2f64.powi(coarsest)), "none");
            let refused = refusal(element, |a| a.exponential = 2f64.powi(coarsest + 1));
            assert!(refused.contains("exponential 2^") && refused.contains("is outside"), "{refused}");
        }
    }

    #[test]
    fn sums_that_no_hardware_has_are_refused() {
        let blocks = |block, extra_bits| refusal(Element::F16, |a| a.scores = Dot::Blocks { block, extra_bits });
        assert_eq!([blocks(1, -1), blocks(16, 0), blocks(64, 40)].map(|text| text == "none"), [true; 3]);
        assert!(blocks(16, -64).contains("scores: extra_bits -64 is outside -1 to 40"));
        assert!(blocks(16, 41).contains("extra_bits 41") && blocks(0, 0).contains("block 0 is outside 1 to 64"));
        assert!(blocks(1 << 20, 0).contains("block 1048576"));
        let tf32 = |extra_bits| refusal(Element::F32, |a| a.products = Dot::Tf32 { extra_bits });
        assert!(tf32(0) == "none" && tf32(i32::MIN).contains("products: extra_bits -2147483648"));
    }

    #[test]
    fn nothing_is_stored_more_coarsely_than_it_came() {
        assert_eq!(refusal(Element::Bf16, |a| a.output = Element::Bf16), "none");
        assert_eq!(refusal(Element::F64, |a| a.output = Element::F32), "none");
        let refused = refusal(Element::F16, |a| a.gradient = Element::Bf16);
        assert!(refused.contains("gradient bf16 is coarser than the inputs' f16"), "{refused}");
        assert!(refusal(Element::F32, |a| a.probability = Element::F16).contains("probability f16"));
        assert!(refusal(Element::F32, |a| a.value_gradient_products = Some(Element::F16)).contains("value_gradient_p"));
        assert!(refusal(Element::F32, |a| a.rescale_every = Some(0)).contains("rescale_every 0"));
    }

    #[test]
    fn the_named_arithmetics_are_these_numbers() {
        let (double, single) = (Arithmetic::f64(), Arithmetic::f32());
        assert_eq!([double.unit, double.exponential], [2f64.powi(-53), 2f64.powi(-51)]);
        assert_eq!([single.unit, single.exponential], [2f64.powi(-24), 2f64.powi(-22)]);
        for (plain, element) in [(double, Element::F64), (single, Element::F32)] {
            let fma = Dot::Fma { unit: plain.unit };
            assert_eq!((plain.scores, plain.products, plain.probability), (fma, fma, element));
            assert!(Field::ALL.into_iter().all(|field| plain.stored(field) == element));
        }
        let core = Arithmetic::tensor_core(Element::F16);
        let dot = Dot::Blocks { block: 16, extra_bits: 0 };
        assert_eq!((core.scores, core.products, core.probability), (dot, dot, Element::F16));
        assert_eq!([core.unit, core.exponential], [2f64.powi(-24), 2f64.powi(-22)]);
        let narrow = |field| !matches!(field, Field::Lse | Field::SlidingLse | Field::DselScale);
        let stored = |field| if narrow(field) { Element::F16 } else { Element::F32 };
        assert!(Field::ALL.into_iter().all(|field| core.stored(field) == stored(field)));
    }

    #[test]
    fn only_a_narrower_format_counts_as_a_cast() {
        assert_eq!(Arithmetic::f32().probability_roundoff(), 0.0);
        assert_eq!(Arithmetic::f64().probability_roundoff(), 0.0);
        assert_eq!(Arithmetic::tensor_core(Element::Bf16).probability_roundoff(), 2f64.powi(-8));
    }
}
