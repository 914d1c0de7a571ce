//! The rules that kernels are judged by elsewhere, by their exact formulas, so that what they miss can be counted beside ours.

use std::str::FromStr;

use ndarray::ArrayD;
use nsa_corpus::{Dtype, Field, Inputs, Outputs};
use nsa_reference::oracle;
use nsa_reference::rowwise::{self, Mutation, Numbers};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an answer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Error budgets, reruns compared bit by bit.
    Ours,
    /// `torch.allclose` with the tolerances of the test of native-sparse-attention-pytorch.
    Upstream,
    /// At most twice the error of PyTorch in the same format.
    FlashAttention,
    /// No element beyond an absolute and a relative tolerance at once.
    FlashinferBench,
}

impl Rule {
    /// Every rule, ours first.
    pub const ALL: [Rule; 4] = [Rule::Ours, Rule::Upstream, Rule::FlashAttention, Rule::FlashinferBench];

    /// The name that `--rule` takes.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Ours => "ours",
            Rule::Upstream => "upstream",
            Rule::FlashAttention => "flash-attention",
            Rule::FlashinferBench => "flashinfer-bench",
        }
    }

    /// What it computes, and where it is used.
    pub fn formula(self) -> &'static str {
        match self {
            Rule::Ours => {
                "every element of every field within its own derived budget (numerics.md), rerun once and compared bit by bit"
            }
            Rule::Upstream => {
                "`torch.allclose`: `|a - b| <= atol + 1e-5 |b|`, atol 1e-2 for out, lse, sliding_out, dq and dv, 2e-2 for dk and \
                 dsel_scale (native-sparse-attention-pytorch 83fa271, test_triton_nsa.py)"
            }
            Rule::FlashAttention => {
                "`max |a - ref| <= 2 max |pt - ref|` for out, dq, dk and dv, pt being PyTorch in the same 16-bit format \
                 (flash-attention 008951f, tests/test_flash_attn.py); says nothing of f32, lse and dsel_scale"
            }
            Rule::FlashinferBench => {
                "no infinity, no NaN, and no element with `|a - ref| > 1e-2` and `|a - ref| / (|ref| + 1e-8) > 1e-2` \
                 (flashinfer-bench 40e6ca7, bench/utils.py and bench/evaluators/default.py)"
            }
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Rule::ALL
            .into_iter()
            .find(|rule| rule.name() == text)
            .ok_or_else(|| format!("no rule is called `{text}`; there are {}", Rule::ALL.map(Rule::name).join(", ")))
    }
}

/// What the rules of others compare with.
pub struct Reference {
    /// The answer, in f64.
    exact: Outputs,
    /// What PyTorch answers in the same 16-bit format; `None` for f32 and f64.
    half: Option<Outputs>,
}

impl Reference {
    /// For these inputs. PyTorch in 16 bits is played by the rowwise implementation with scores rounded to the format, as a matrix
    /// product of 16-bit tensors returns them; P, dS, outputs and gradients are rounded to it anyway.
    pub fn new(inputs: &Inputs) -> Self {
        let dtype = inputs.dtype();
        let half = matches!(dtype, Dtype::F16 | Dtype::Bf16).then(|| {
            let mutation = Mutation::Numbers { change: Numbers::ScoresIn(dtype) };
            rowwise::attend(inputs, Some(&mutation))
        });
        Reference { exact: oracle::attend(inputs), half }
    }

    /// The first field of `found` that `rule` rejects, of those that `computes` holds for.
    ///
    /// # Panics
    /// With [`Rule::Ours`], which needs no reference.
    pub fn rejected(&self, rule: Rule, found: &Outputs, computes: impl Fn(Field) -> bool) -> Option<Field> {
        let fields = self.exact.iter().filter(|(field, _)| computes(*field));
        let mut rejected = fields.filter(|(field, exact)| match found.get(*field) {
            Some(tensor) if tensor.shape() == exact.shape() => match rule {
                Rule::Ours => panic!("our own rule is `judge`"),
                Rule::Upstream => !upstream(*field, tensor, exact),
                Rule::FlashAttention => !self.flash_attention(*field, tensor, exact),
                Rule::FlashinferBench => !flashinfer_bench(tensor, exact),
            },
            _ => true,
        });
        rejected.next().map(|(field, _)| field)
    }

    fn flash_attention(&self, field: Field, found: &ArrayD<f64>, exact: &ArrayD<f64>) -> bool {
        let compared = matches!(field, Field::Out | Field::SlidingOut | Field::Dq | Field::Dk | Field::Dv);
        match self.half.as_ref().and_then(|half| half.get(field)) {
            Some(half) if compared => largest_error(found, exact) <= 2.0 * largest_error(half, exact),
            _ => true,
        }
    }
}

fn upstream(field: Field, found: &ArrayD<f64>, exact: &ArrayD<f64>) -> bool {
    let atol = match field {
        Field::Dk | Field::DselScale => 2e-2,
        // The test does not look at it.
        Field::SlidingLse => return true,
        _ => 1e-2,
    };
    // The relative part belongs to the second argument: the kernel's for the outputs, the reference's for q, k and v.
    let relative_to_found = !matches!(field, Field::Dq | Field::Dk | Field::Dv);
    found.iter().zip(exact).all(|(&found, &exact)| {
        let scale = if relative_to_found { found } else { exact };
        found == exact || (found.is_finite() && exact.is_finite() && (found - exact).abs() <= atol + 1e-5 * scale.abs())
    })
}

fn flashinfer_bench(found: &ArrayD<f64>, exact: &ArrayD<f64>) -> bool {
    found.iter().zip(exact).all(|(&found, &exact)| {
        let error = (found - exact).abs();
        found.is_finite() && !(error > 1e-2 && error / (exact.abs() + 1e-8) > 1e-2)
    })
}

/// The largest absolute error; NaN where any error is.
fn largest_error(found: &ArrayD<f64>, exact: &ArrayD<f64>) -> f64 {
    let errors = found.iter().zip(exact).map(|(found, exact)| (found - exact).abs());
    errors.fold(0.0, |max: f64, error| if error.is_nan() || max.is_nan() { f64::NAN } else { max.max(error) })
}

#[cfg(test)]
mod tests {
    use ndarray::arr1;

    use super::*;

    fn one(value: f64) -> ArrayD<f64> {
        arr1(&[value]).into_dyn()
    }

    #[test]
    fn upstream_allows_one_hundredth_whatever_the_value() {
        assert!(upstream(Field::Out, &one(0.0), &one(0.0099)));
        assert!(!upstream(Field::Out, &one(0.0), &one(0.0101)));
        assert!(upstream(Field::Dk, &one(0.0), &one(0.0199)));
        assert!(!upstream(Field::Out, &one(f64::NAN), &one(0.0)));
        assert!(upstream(Field::Lse, &one(f64::NEG_INFINITY), &one(f64::NEG_INFINITY)));
    }

    #[test]
    fn flashinfer_bench_needs_both_errors_to_be_large() {
        assert!(flashinfer_bench(&one(0.0), &one(0.0099)));
        assert!(flashinfer_bench(&one(100.0), &one(100.9)));
        assert!(!flashinfer_bench(&one(0.0), &one(0.0101)));
        assert!(!flashinfer_bench(&one(f64::NEG_INFINITY), &one(f64::NEG_INFINITY)));
    }

    #[test]
    fn nan_is_the_largest_error() {
        assert!(largest_error(&one(f64::NAN), &one(0.0)).is_nan());
        assert!(!(largest_error(&one(f64::NAN), &one(0.0)) <= 1e300));
    }
}
