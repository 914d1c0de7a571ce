//! The same problem in another arrangement: batch entries, kv heads, the query heads of a group and the slots in another order,
//! some left out, or with a slot more that is masked. An answer is put back into the order of the problem it came from.

use ndarray::{Array, Array3, Array4, Axis, Dimension, RemoveAxis};
use nsa_corpus::{Cotangents, Field, InputParts, Inputs, Outputs, Shape};

use crate::judge::field::has_shape;

/// Which parts of a problem stand where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// The problem's batch entries.
    pub batches: Vec<usize>,
    /// The problem's kv heads, each with its group of query heads.
    pub kv_heads: Vec<usize>,
    /// The query heads within each group.
    pub groups: Vec<usize>,
    /// The problem's slots; `None` is a masked one that the problem does not have.
    pub slots: Vec<Option<usize>>,
}

impl Arrangement {
    /// Everything where it is.
    pub fn identity(shape: &Shape) -> Self {
        Arrangement {
            batches: (0..shape.batch()).collect(),
            kv_heads: (0..shape.kv_heads()).collect(),
            groups: (0..shape.groups()).collect(),
            slots: (0..shape.num_sel()).map(Some).collect(),
        }
    }

    fn q_heads(&self) -> Vec<usize> {
        let groups = self.groups.len();
        self.kv_heads.iter().flat_map(|head| self.groups.iter().map(move |group| head * groups + group)).collect()
    }

    fn sel_heads(&self, shape: &Shape) -> Vec<usize> {
        if shape.sel_groups() == 1 { self.q_heads() } else { self.kv_heads.clone() }
    }

    /// The arranged problem. A masked slot selects the last block, with a factor that would show.
    ///
    /// # Errors
    /// The arranged problem is none: with another slot it has more elements than can be addressed.
    pub fn apply(&self, inputs: &Inputs) -> Result<Inputs, nsa_corpus::Error> {
        let shape = inputs.shape();
        let (q_heads, sel_heads) = (self.q_heads(), self.sel_heads(shape));
        let rows = |tensor: &Array4<f64>| pick(tensor, &self.batches, &q_heads);
        let keys = |tensor: &Array4<f64>| pick(tensor, &self.batches, &self.kv_heads);
        let last = shape.blocks() as i64 - 1;
        let indices = inputs.indices().mapv(i64::from);
        let cotangents = inputs.cotangents();
        Inputs::new(InputParts {
            block_size: shape.block_size(),
            include_block_causal: inputs.include_block_causal(),
            sliding_window: inputs.sliding_window(),
            dtype: inputs.dtype(),
            q: rows(inputs.q()),
            k: keys(inputs.k()),
            v: keys(inputs.v()),
            indices: self.slots(&indices, &sel_heads, last),
            mask: self.slots(inputs.mask(), &sel_heads, false),
            sel_scale: inputs.sel_scale().map(|tensor| self.slots(tensor, &sel_heads, 2.0)),
            cotangents: Cotangents {
                d_out: cotangents.d_out.as_ref().map(rows),
                d_lse: cotangents.d_lse.as_ref().map(|tensor: &Array3<f64>| pick(tensor, &self.batches, &q_heads)),
                d_sliding: cotangents.d_sliding.as_ref().map(rows),
            },
        })
    }

    /// A tensor of slots, `absent` where the problem has none.
    fn slots<A: Copy>(&self, tensor: &Array4<A>, heads: &[usize], absent: A) -> Array4<A> {
        let dim = (self.batches.len(), heads.len(), tensor.dim().2, self.slots.len());
        Array4::from_shape_fn(dim, |(b, h, i, s)| match self.slots[s] {
            Some(slot) => tensor[[self.batches[b], heads[h], i, slot]],
            None => absent,
        })
    }

    /// Puts `answer`, which answers the arranged problem, into `into`, which has the shapes of `inputs`.
    ///
    /// # Errors
    /// In words: a field is missing or has another shape, or a masked slot's gradient is not exactly 0.
    pub fn restore(&self, inputs: &Inputs, answer: &Outputs, into: &mut Outputs) -> Result<(), String> {
        let shape = inputs.shape();
        let (q_heads, sel_heads) = (self.q_heads(), self.sel_heads(shape));
        for field in Field::ALL.into_iter().filter(|field| field.asked_by(inputs)) {
            let Some(target) = into.get_mut(field) else { continue };
            let heads = match field {
                Field::Dk | Field::Dv => &self.kv_heads,
                Field::DselScale => &sel_heads,
                _ => &q_heads,
            };
            let mut expected = target.shape().to_vec();
            (expected[0], expected[1]) = (self.batches.len(), heads.len());
            if field == Field::DselScale {
                expected[3] = self.slots.len();
            }
            let found = has_shape(field, answer.get(field), &expected).map_err(|failure| failure.message)?;
            for (x, b) in self.batches.iter().enumerate() {
                for (y, head) in heads.iter().enumerate() {
                    let from = found.index_axis(Axis(0), x).index_axis_move(Axis(0), y);
                    let mut to = target.index_axis_mut(Axis(0), *b).index_axis_move(Axis(0), *head);
                    if field == Field::DselScale {
                        self.restore_slots(from, to)?;
                    } else {
                        to.assign(&from);
                    }
                }
            }
        }
        Ok(())
    }

    /// `[token, slot]` of one head.
    fn restore_slots(
        &self,
        from: ndarray::ArrayViewD<'_, f64>,
        to: ndarray::ArrayViewMutD<'_, f64>,
    ) -> Result<(), String> {
        let mut to = to;
        for (position, slot) in self.slots.iter().enumerate() {
            let column = from.index_axis(Axis(1), position);
            match slot {
                Some(slot) => to.index_axis_mut(Axis(1), *slot).assign(&column),
                None => {
                    if let Some((token, value)) = column.iter().enumerate().find(|(_, value)| **value != 0.0) {
                        return Err(format!("dsel_scale of a masked slot is {value:e} at token {token}, not 0"));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Entries of axes 0 and 1.
fn pick<D: Dimension + RemoveAxis>(tensor: &Array<f64, D>, batches: &[usize], heads: &[usize]) -> Array<f64, D> {
    tensor.select(Axis(0), batches).select(Axis(1), heads)
}
