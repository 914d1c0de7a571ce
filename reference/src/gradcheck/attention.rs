//! The loss of attention as a problem for the checker.

use ndarray::{Array, ArrayD, Dimension, Ix4};
use nsa_corpus::{Cotangents, Element, Error, Field, InputParts, Inputs, Outputs};

use super::{Problem, Variable};

/// `L = <out, d_out> + <lse, d_lse> + <sliding_out, d_sliding>` as a function of q, k, v and, where given, sel_scale,
/// with the gradients that `claimed` holds. `attend` is any forward in f64, such as
/// [`regular_attend::attend::<f64>`](crate::regular_attend::attend): it is called with inputs that have no cotangents.
///
/// A row without any key has `lse = -inf` whatever the tensors are; such rows are left out of the loss.
///
/// # Errors
/// `inputs` has no cotangent; `claimed` lacks a gradient, or one of another shape.
///
/// # Examples
/// ```
/// use ndarray::Array4;
/// use nsa_corpus::{Cotangents, Element, InputParts, Inputs};
/// use nsa_reference::{gradcheck, regular_attend};
/// let tensor = Array4::from_shape_fn((1, 1, 5, 2), |(_, _, i, d)| ((3 * i + d) as f64).sin());
/// let inputs = Inputs::new(InputParts {
///     block_size: 2, include_block_causal: true, sliding_window: None, element: Element::F64,
///     q: tensor.clone(), k: tensor.clone(), v: tensor.clone(), indices: Array4::zeros((1, 1, 5, 1)),
///     mask: Array4::from_elem((1, 1, 5, 1), true), sel_scale: None,
///     cotangents: Cotangents { d_out: Some(tensor), ..Cotangents::default() },
/// }).unwrap();
/// let attend = regular_attend::attend::<f64>;
/// let problem = gradcheck::attention(&inputs, attend, &attend(&inputs)).unwrap();
/// assert_eq!(problem.check(&gradcheck::Settings::default()).verdict, gradcheck::Verdict::Pass);
/// ```
pub fn attention<'a>(
    inputs: &Inputs,
    attend: impl Fn(&Inputs) -> Outputs + Sync + 'a,
    claimed: &Outputs,
) -> Result<Problem<'a>, Error> {
    if !inputs.cotangents().any() {
        return Err(Error::invalid("gradients are checked for a cotangent, and none is given"));
    }
    let mut variables = vec![
        variable("q", inputs.q(), Field::Dq, inputs, claimed)?,
        variable("k", inputs.k(), Field::Dk, inputs, claimed)?,
        variable("v", inputs.v(), Field::Dv, inputs, claimed)?,
    ];
    if let Some(sel_scale) = inputs.sel_scale() {
        variables.push(variable("sel_scale", sel_scale, Field::DselScale, inputs, claimed)?);
    }
    let mut parts = inputs.clone().into_parts();
    // Steps are taken in f64: rounding them to a narrower element would make the loss a staircase.
    parts.element = Element::F64;
    let cotangents = std::mem::take(&mut parts.cotangents);
    let loss = move |point: &[ArrayD<f64>]| loss(&parts, &cotangents, &attend, point);
    Ok(Problem::new(loss, variables))
}

fn variable<D: Dimension>(
    name: &str,
    value: &Array<f64, D>,
    field: Field,
    inputs: &Inputs,
    claimed: &Outputs,
) -> Result<Variable, Error> {
    let gradient = claimed.get(field).ok_or_else(|| Error::invalid(format!("{field} is not claimed")))?;
    let variable = Variable::new(name, value.clone().into_dyn(), gradient.clone())?.with_axes(field.axes())?;
    let tokens = if matches!(field, Field::Dk | Field::Dv) { "key" } else { "token" };
    Ok(variable.with_block(tokens, inputs.shape().block_size()))
}

fn loss(
    parts: &InputParts,
    cotangents: &Cotangents,
    attend: &impl Fn(&Inputs) -> Outputs,
    point: &[ArrayD<f64>],
) -> f64 {
    let tensor = |index: usize| point[index].clone().into_dimensionality::<Ix4>().expect("as many axes as before");
    let parts = InputParts {
        q: tensor(0),
        k: tensor(1),
        v: tensor(2),
        sel_scale: parts.sel_scale.as_ref().map(|_| tensor(3)),
        ..parts.clone()
    };
    let outputs = attend(&Inputs::new(parts).expect("the values of a checked problem may be anything"));
    let mut sum = Sum::default();
    add_product(&mut sum, outputs.get(Field::Out), cotangents.d_out.as_ref());
    add_product(&mut sum, outputs.get(Field::Lse), cotangents.d_lse.as_ref());
    add_product(&mut sum, outputs.get(Field::SlidingOut), cotangents.d_sliding.as_ref());
    sum.total()
}

fn add_product<D: Dimension>(sum: &mut Sum, output: Option<&ArrayD<f64>>, cotangent: Option<&Array<f64, D>>) {
    if let (Some(output), Some(cotangent)) = (output, cotangent) {
        for (value, d) in output.iter().zip(cotangent).filter(|(value, _)| **value != f64::NEG_INFINITY) {
            sum.add(value * d);
        }
    }
}

/// A compensated sum, so that the loss errs by its terms' rounding alone, not by their number.
#[derive(Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, term: f64) {
        let next = self.sum + term;
        self.lost += if self.sum.abs() >= term.abs() { (self.sum - next) + term } else { (term - next) + self.sum };
        self.sum = next;
    }

    fn total(&self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sum_loses_is_kept() {
        let tiny = 2f64.powi(-60);
        // Small terms come after a large one, and before it.
        for terms in [[1.0, tiny, 3.0 * tiny, -1.0], [tiny, 1.0, 3.0 * tiny, -1.0], [tiny, -1.0, 3.0 * tiny, 1.0]] {
            let mut sum = Sum::default();
            terms.iter().for_each(|term| sum.add(*term));
            assert_eq!(sum.total(), 4.0 * tiny, "{terms:?}");
        }
        let mut infinite = Sum::default();
        [1.0, f64::INFINITY, 1.0].iter().for_each(|term| infinite.add(*term));
        assert_eq!(infinite.total(), f64::INFINITY);
    }
}
