//! Which elements `0 * NaN` can reach: what a correct implementation that multiplies by weights of 0 lets through.
//!
//! The contract reads strictly: what a row does not attend to never reaches it. A tensor core's tile, and the PyTorch function,
//! take a masked key with a weight of 0 instead, and `0 * NaN` is NaN. So the tiles decide (docs/semantics.md, "What a tile
//! touches"): a row touches its own block whole (where there is a diagonal) and the block of each of its slots, masked or not;
//! of the sliding part every key of its head, as a dense program masks a square of scores. In the backward a key takes part in
//! every row that touches its block. "Not finite" is NaN or infinity throughout.

use std::collections::BTreeMap;

use ndarray::{Array3, Array4, ArrayD, ArrayView1, Axis};
use nsa_corpus::{Field, Inputs};

/// For each field, the elements that `0 * NaN` can reach.
#[derive(Debug)]
pub(crate) struct Reach(BTreeMap<Field, ArrayD<bool>>);

impl Reach {
    /// Of these inputs; `None` where they are finite.
    pub(crate) fn of(inputs: &Inputs) -> Option<Self> {
        let bad = Bad::of(inputs);
        if !bad.any() {
            return None;
        }
        let mut reach = Reach(Field::ALL.into_iter().map(|field| (field, empty(inputs, field))).collect());
        let shape = inputs.shape();
        for b in 0..shape.batch() {
            for head in 0..shape.q_heads() {
                (0..shape.seq_len()).for_each(|i| reach.row(inputs, &bad, [b, head, i]));
                if inputs.sliding_window().is_some() {
                    reach.sliding_head(inputs, &bad, [b, head]);
                }
            }
        }
        Some(reach)
    }

    pub(crate) fn of_field(&self, field: Field) -> &ArrayD<bool> {
        &self.0[&field]
    }

    fn row(&mut self, inputs: &Inputs, bad: &Bad, [b, head, i]: [usize; 3]) {
        let shape = inputs.shape();
        let (kv, selection) = (head / shape.groups(), head / shape.sel_groups());
        let slots = 0..shape.num_sel();
        let own = inputs.include_block_causal().then(|| i / shape.block_size());
        let selected = slots.clone().map(|slot| inputs.indices()[[b, selection, i, slot]] as usize);
        let blocks: Vec<usize> = own.into_iter().chain(selected).collect();
        let factor = bad.factors.as_ref().is_some_and(|factors| slots.clone().any(|s| factors[[b, selection, i, s]]));
        let row = Row {
            scores: bad.q[[b, head, i]] || factor || blocks.iter().any(|block| bad.keys[[b, kv, *block]]),
            values: any_of(blocks.iter().map(|block| row_of(&bad.values, [b, kv, *block]))),
            d_out: bad.d_out.as_ref().map(|d_out| row_of(d_out, [b, head, i]).to_vec()),
            d_lse: bad.d_lse.as_ref().is_some_and(|d_lse| d_lse[[b, head, i]]),
        };
        self.forward([Field::Out, Field::Lse], &row, [b, head, i]);
        let size = shape.block_size();
        let keys: Vec<usize> =
            blocks.iter().flat_map(|block| block * size..(block * size + size).min(shape.seq_len())).collect();
        self.backward(&row, [b, head, kv, i], &keys);
        if row.gradients() {
            slots.for_each(|slot| self.set(Field::DselScale, &[b, selection, i, slot]));
        }
    }

    fn sliding_head(&mut self, inputs: &Inputs, bad: &Bad, [b, head]: [usize; 2]) {
        let (kv, tokens) = (head / inputs.shape().groups(), inputs.shape().seq_len());
        let keys = bad.keys.index_axis(Axis(0), b).index_axis(Axis(0), kv).iter().any(|bad| *bad);
        let values = any_of(bad.values.index_axis(Axis(0), b).index_axis(Axis(0), kv).axis_iter(Axis(0)));
        // Every row touches every key, so what reaches one key reaches all of them.
        let mut all =
            Row { scores: false, values: values.clone(), d_out: Some(vec![false; values.len()]), d_lse: false };
        for i in 0..tokens {
            let row = Row {
                scores: keys || bad.q[[b, head, i]],
                values: values.clone(),
                d_out: bad.d_sliding.as_ref().map(|d_out| row_of(d_out, [b, head, i]).to_vec()),
                d_lse: false,
            };
            self.forward([Field::SlidingOut, Field::SlidingLse], &row, [b, head, i]);
            self.backward(&row, [b, head, kv, i], &[]);
            all.add(&row);
        }
        let keys: Vec<usize> = (0..tokens).collect();
        if all.gradients() {
            keys.iter().for_each(|key| self.set_row(Field::Dk, [b, kv, *key]));
        }
        self.value_gradients(&all, [b, kv], &keys);
    }

    fn forward(&mut self, [out, lse]: [Field; 2], row: &Row, [b, head, i]: [usize; 3]) {
        if row.scores {
            self.set(lse, &[b, head, i]);
        }
        for (d, value) in row.values.iter().enumerate() {
            if row.scores || *value {
                self.set(out, &[b, head, i, d]);
            }
        }
    }

    fn backward(&mut self, row: &Row, [b, head, kv, i]: [usize; 4], keys: &[usize]) {
        if row.gradients() {
            self.set_row(Field::Dq, [b, head, i]);
            keys.iter().for_each(|key| self.set_row(Field::Dk, [b, kv, *key]));
        }
        self.value_gradients(row, [b, kv], keys);
    }

    fn value_gradients(&mut self, row: &Row, [b, kv]: [usize; 2], keys: &[usize]) {
        for d in 0..row.values.len() {
            if row.scores || row.d_out.as_ref().is_some_and(|d_out| d_out[d]) {
                keys.iter().for_each(|key| self.set(Field::Dv, &[b, kv, *key, d]));
            }
        }
    }

    fn set(&mut self, field: Field, at: &[usize]) {
        self.0.get_mut(&field).expect("every field is there")[at] = true;
    }

    fn set_row(&mut self, field: Field, [b, head, i]: [usize; 3]) {
        let tensor = self.0.get_mut(&field).expect("every field is there");
        (0..tensor.shape()[3]).for_each(|d| tensor[[b, head, i, d]] = true);
    }
}

/// What is not finite in the tiles of a row.
struct Row {
    /// A score: then every weight of the row, its `lse`, and all that follows.
    scores: bool,
    /// A value, by feature: then that feature of `out`, and `delta`.
    values: Vec<bool>,
    /// Its cotangent, by feature.
    d_out: Option<Vec<bool>>,
    d_lse: bool,
}

impl Row {
    /// Adds what is not finite in another row.
    fn add(&mut self, other: &Row) {
        self.scores |= other.scores;
        let both = self.d_out.iter_mut().flatten().zip(other.d_out.iter().flatten());
        both.for_each(|(bad, other)| *bad |= other);
    }

    /// Whether its dS are not finite.
    fn gradients(&self) -> bool {
        self.scores || self.d_lse || self.values.iter().chain(self.d_out.iter().flatten()).any(|bad| *bad)
    }
}

/// What is not finite in the inputs.
struct Bad {
    /// `[b, q_head, token]`.
    q: Array3<bool>,
    /// `[b, kv_head, block]`.
    keys: Array3<bool>,
    /// `[b, kv_head, block, feature]`.
    values: Array4<bool>,
    factors: Option<Array4<bool>>,
    d_out: Option<Array4<bool>>,
    d_lse: Option<Array3<bool>>,
    d_sliding: Option<Array4<bool>>,
}

impl Bad {
    fn of(inputs: &Inputs) -> Self {
        let flags = |tensor: &Array4<f64>| tensor.mapv(|value| !value.is_finite());
        let cotangents = inputs.cotangents();
        let features = |tensor: &Array4<bool>| tensor.map_axis(Axis(3), |row| row.iter().any(|bad| *bad));
        let size = inputs.shape().block_size();
        let values = by_block(&flags(inputs.v()), size);
        Bad {
            q: features(&flags(inputs.q())),
            keys: features(&by_block(&flags(inputs.k()), size)),
            values,
            factors: inputs.sel_scale().map(flags),
            d_out: cotangents.d_out.as_ref().map(flags),
            d_lse: cotangents.d_lse.as_ref().map(|tensor| tensor.mapv(|value| !value.is_finite())),
            d_sliding: cotangents.d_sliding.as_ref().map(flags),
        }
    }

    fn any(&self) -> bool {
        let wide = [&self.factors, &self.d_out, &self.d_sliding].into_iter().flatten();
        self.q.iter().chain(&self.keys).chain(&self.values).chain(self.d_lse.iter().flatten()).any(|bad| *bad)
            || wide.flatten().any(|bad| *bad)
    }
}

/// `[b, head, block, feature]` of `[b, head, token, feature]`: whether any token of the block is.
fn by_block(flags: &Array4<bool>, size: usize) -> Array4<bool> {
    let (b, heads, tokens, features) = flags.dim();
    Array4::from_shape_fn((b, heads, tokens.div_ceil(size), features), |(b, head, block, d)| {
        (block * size..(block * size + size).min(tokens)).any(|token| flags[[b, head, token, d]])
    })
}

/// By feature, whether any of these rows is.
fn any_of<'a>(rows: impl Iterator<Item = ArrayView1<'a, bool>>) -> Vec<bool> {
    let mut any = Vec::new();
    for row in rows {
        any.resize(row.len(), false);
        any.iter_mut().zip(row).for_each(|(any, bad)| *any |= bad);
    }
    any
}

/// The features of one row.
fn row_of(tensor: &Array4<bool>, [b, head, i]: [usize; 3]) -> ArrayView1<'_, bool> {
    tensor.index_axis(Axis(0), b).index_axis_move(Axis(0), head).index_axis_move(Axis(0), i)
}

fn empty(inputs: &Inputs, field: Field) -> ArrayD<bool> {
    ArrayD::from_elem(field.shape(inputs.shape()), false)
}
