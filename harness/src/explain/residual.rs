//! Which elements of an answer are wrong, by the rule that judges them ([`crate::judge::element`]).

use ndarray::{ArrayD, Dimension};
use nsa_corpus::{Field, Outputs};

use crate::judge::HeldTo;
use crate::judge::element::Held;
use crate::judge::expected::Expected;

/// One field of an answer beside what it is held to.
pub(super) struct Residual<'a> {
    pub field: Field,
    pub shape: &'a [usize],
    /// Every element in index order: what it is held to, and what was found.
    pub elements: Vec<(Held, f64)>,
    /// Indices of wrong elements, with error / budget.
    pub wrong: Vec<(Vec<usize>, f64)>,
}

impl<'a> Residual<'a> {
    fn new(field: Field, expected: &Expected<'a>, found: &ArrayD<f64>) -> Self {
        let (mut elements, mut wrong) = (Vec::with_capacity(found.len()), Vec::new());
        for (index, found) in found.indexed_iter() {
            let held = expected.held(field, &index);
            if held.judge(*found).is_wrong() {
                wrong.push((index.as_array_view().to_vec(), held.ratio(*found, held.rigorous)));
            }
            elements.push((held, *found));
        }
        Residual { field, shape: expected.values.shape(), elements, wrong }
    }

    /// The index of the worst element.
    pub(super) fn worst(&self) -> &[usize] {
        let worst = self.wrong.iter().max_by(|(_, left), (_, right)| left.total_cmp(right));
        worst.map_or(&[], |(index, _)| index)
    }

    /// The elements in which `answer` would be wrong.
    pub(super) fn against(&self, answer: Option<&ArrayD<f64>>) -> Vec<(Field, Vec<usize>)> {
        let Some(answer) = answer else { return Vec::new() };
        let elements = self.elements.iter().zip(answer.indexed_iter());
        let wrong = elements.filter(|((held, _), (_, answer))| held.judge(**answer).is_wrong());
        wrong.map(|(_, (index, _))| (self.field, index.as_array_view().to_vec())).collect()
    }
}

/// Every field that is present in the right shape; the others are wrong in a way that has no place.
pub(super) fn residuals<'a>(held_to: &'a HeldTo<'_>, outputs: &Outputs) -> Vec<Residual<'a>> {
    let of = |(field, expected): (Field, Expected<'a>)| {
        let found = outputs.get(field).filter(|found| found.shape() == expected.values.shape())?;
        Some(Residual::new(field, &expected, found))
    };
    held_to.fields().filter_map(of).collect()
}
