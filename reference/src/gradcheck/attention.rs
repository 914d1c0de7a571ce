//! The loss of attention as a problem for the checker.

use ndarray::{Array, ArrayD, Dimension, Ix4};
use nsa_corpus::{Cotangents, Dtype, Field, InputParts, Inputs, Outputs};

use super::{Problem, Variable};
use crate::{Error, ErrorKind};

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
/// The gradients of one's own kernel, held to numerical derivatives of a forward in f64:
/// ```
/// use nsa_reference::gradcheck::{self, Settings, Verdict};
/// use nsa_reference::ndarray::{Array4, s};
/// use nsa_reference::{Cotangents, ErrorKind, Field, InputParts, Inputs, Outputs, regular_attend};
///
/// // One head, 5 tokens in blocks of 2; every token selects block 0.
/// let tensor = |phase: f64| Array4::from_shape_fn((1, 1, 5, 2), |(_, _, i, d)| (phase + (3 * i + d) as f64).sin());
/// let mut parts = InputParts::new(2, tensor(0.0), tensor(1.0), tensor(2.0), Array4::zeros((1, 1, 5, 1)));
/// parts.cotangents = Cotangents { d_out: Some(tensor(3.0)), ..Cotangents::default() };
/// let inputs = Inputs::new(parts).unwrap();
///
/// let forward = regular_attend::attend::<f64>;
/// let mut claimed: Outputs = forward(&inputs); // in its place, what the kernel answered
/// let check = |claimed: &Outputs| gradcheck::attention(&inputs, forward, claimed).unwrap().check(&Settings::default());
/// assert_eq!(check(&claimed).verdict, Verdict::Pass);
///
/// // One element of dk off by a millionth part is found, and named.
/// claimed.get_mut(Field::Dk).unwrap().slice_mut(s![0, 0, 3, 1]).mapv_inplace(|d| d * (1.0 + 1e-6));
/// let report = check(&claimed);
/// assert_eq!(report.verdict, Verdict::Fail);
/// assert_eq!((report.failures[0].variable.as_str(), report.failures[0].element()), ("k", Some(vec![0, 0, 3, 1])));
///
/// claimed.take(Field::Dq);
/// let error = gradcheck::attention(&inputs, forward, &claimed).err().unwrap();
/// assert_eq!(error.kind(), ErrorKind::NoClaim);
/// ```
pub fn attention<'a>(
    inputs: &Inputs,
    attend: impl Fn(&Inputs) -> Outputs + Sync + 'a,
    claimed: &Outputs,
) -> Result<Problem<'a>, Error> {
    if !inputs.cotangents().any() {
        let message = "gradients are checked for a cotangent, and none is given";
        return Err(Error::new(ErrorKind::NoCotangent, message));
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
    parts.dtype = Dtype::F64;
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
    let gradient =
        claimed.get(field).ok_or_else(|| Error::new(ErrorKind::NoClaim, format!("{field} is not claimed")))?;
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
