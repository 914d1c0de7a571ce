//! Which elements `0 * NaN` can reach: what a correct implementation that multiplies by weights of 0 lets through.
//!
//! The contract reads strictly: what a row does not attend to never reaches it. A tensor core's tile, and the PyTorch function,
//! give a masked key a weight of 0 instead, and `0 * NaN` is NaN. So the tiles decide (docs/semantics.md, "What a tile
//! touches"): a row touches its own block whole (where there is a diagonal) and the block of each of its slots, masked or not;
//! of the sliding part every key of its head, as a dense program masks a square of scores. In the backward a key takes part in
//! every row that touches its block. "Bad" is NaN or infinite throughout.

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
        let empty = |field: Field| ArrayD::from_elem(field.shape(inputs.shape()), false);
        let mut reach = Reach(Field::ALL.into_iter().map(|field| (field, empty(field))).collect());
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
        let (kv, size) = (head / shape.groups(), shape.block_size());
        let tiles = tiles(inputs, bad, [b, head, i]);
        let row = Row {
            live: tiles.iter().any(|tile| tile.live && (bad.q[[b, head, i]] || tile.keys || tile.factor)),
            q: bad.q[[b, head, i]],
            keys: tiles.iter().any(|tile| tile.keys || tile.later_keys || tile.factor),
            values: any_of(tiles.iter().map(|tile| row_of(&bad.block_values, [b, kv, tile.block]))),
            d_out: bad.d_out.as_ref().map(|d_out| row_of(d_out, [b, head, i]).to_vec()),
            d_lse: bad.d_lse.as_ref().is_some_and(|d_lse| d_lse[[b, head, i]]),
        };
        self.out(Field::Out, &row, [b, head, i]);
        self.query_gradients(&row, [b, head, i]);
        for tile in &tiles {
            let keys: Vec<usize> = (tile.block * size..(tile.block * size + size).min(shape.seq_len())).collect();
            self.key_gradients(row.scores() || tile.factor, [b, kv], &keys);
            self.value_gradients(&row, [b, kv], &keys);
            if let Some(slot) = tile.slot.filter(|_| row.scores() || tile.keys) {
                self.set(Field::DselScale, &[b, head / shape.sel_groups(), i, slot]);
            }
        }
    }

    fn sliding_head(&mut self, inputs: &Inputs, bad: &Bad, [b, head]: [usize; 2]) {
        let (kv, tokens) = (head / inputs.shape().groups(), inputs.shape().seq_len());
        let window = inputs.sliding_window().expect("the caller has looked");
        let bad_keys: Vec<usize> = (0..tokens).filter(|key| bad.keys[[b, kv, *key]]).collect();
        let values = any_of(bad.block_values.index_axis(Axis(0), b).index_axis(Axis(0), kv).axis_iter(Axis(0)));
        // Every row touches every key, so what reaches one key reaches all of them.
        let mut all = Row { d_out: Some(vec![false; values.len()]), ..Row::default() };
        all.values = vec![false; values.len()];
        for i in 0..tokens {
            let q = bad.q[[b, head, i]];
            let row = Row {
                live: q || bad_keys.iter().any(|key| *key <= i && i - key <= window),
                q,
                keys: !bad_keys.is_empty(),
                values: values.clone(),
                d_out: bad.d_sliding.as_ref().map(|d_out| row_of(d_out, [b, head, i]).to_vec()),
                d_lse: false,
            };
            self.out(Field::SlidingOut, &row, [b, head, i]);
            self.query_gradients(&row, [b, head, i]);
            all.add(&row);
        }
        let keys: Vec<usize> = (0..tokens).collect();
        self.key_gradients(all.scores(), [b, kv], &keys);
        self.value_gradients(&all, [b, kv], &keys);
    }

    /// `out = sum P v`: a weight of 0 on a bad value. A masked score is replaced, so no bad key is multiplied by one, and `lse` is
    /// out of reach.
    fn out(&mut self, out: Field, row: &Row, [b, head, i]: [usize; 3]) {
        let bad = row.values.iter().enumerate().filter(|(_, bad)| **bad);
        bad.for_each(|(d, _)| self.set(out, &[b, head, i, d]));
    }

    /// `dq = sum c dS k`.
    fn query_gradients(&mut self, row: &Row, at: [usize; 3]) {
        if row.scores() || row.keys {
            self.set_row(Field::Dq, at);
        }
    }

    /// `dk = sum c dS q`, over the rows that touch these keys.
    fn key_gradients(&mut self, bad: bool, [b, kv]: [usize; 2], keys: &[usize]) {
        if bad {
            keys.iter().for_each(|key| self.set_row(Field::Dk, [b, kv, *key]));
        }
    }

    /// `dv = sum P d_out`, over the rows that touch these keys.
    fn value_gradients(&mut self, row: &Row, [b, kv]: [usize; 2], keys: &[usize]) {
        for d in 0..row.values.len() {
            if row.live || row.d_out.as_ref().is_some_and(|d_out| d_out[d]) {
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

/// A block that a row touches.
struct Tile {
    block: usize,
    /// `None`: the row's own block.
    slot: Option<usize>,
    /// Whether the row attends to any of it.
    live: bool,
    /// A key that the row attends to, or would if the slot were live, is bad.
    keys: bool,
    /// A key of its own block that is later is.
    later_keys: bool,
    /// The slot's `sel_scale` is.
    factor: bool,
}

fn tiles(inputs: &Inputs, bad: &Bad, [b, head, i]: [usize; 3]) -> Vec<Tile> {
    let shape = inputs.shape();
    let (kv, selection, size) = (head / shape.groups(), head / shape.sel_groups(), shape.block_size());
    let any =
        |keys: std::ops::Range<usize>| (keys.start..keys.end.min(shape.seq_len())).any(|key| bad.keys[[b, kv, key]]);
    let start = i / size * size;
    let own = inputs.include_block_causal().then(|| Tile {
        block: i / size,
        slot: None,
        live: true,
        keys: any(start..i + 1),
        later_keys: any(i + 1..start + size),
        factor: false,
    });
    let selected = (0..shape.num_sel()).map(|slot| {
        let at = [b, selection, i, slot];
        let block = inputs.indices()[at] as usize;
        Tile {
            block,
            slot: Some(slot),
            live: inputs.mask()[at],
            keys: any(block * size..block * size + size),
            later_keys: false,
            factor: bad.factors.as_ref().is_some_and(|factors| factors[at]),
        }
    });
    own.into_iter().chain(selected).collect()
}

/// What is bad in the tiles of a row.
#[derive(Default)]
struct Row {
    /// A score that it attends to: then its `lse`, and every weight that is computed anew from it, masked ones too.
    live: bool,
    /// Its query.
    q: bool,
    /// A key, or a factor of a slot.
    keys: bool,
    /// A value, by feature.
    values: Vec<bool>,
    /// Its cotangent, by feature.
    d_out: Option<Vec<bool>>,
    d_lse: bool,
}

impl Row {
    /// Whether `dS = P (dP - delta + d_lse)` is bad, with `dP = <d_out, v>` and `delta = <d_out, out>`, or multiplies a bad query.
    fn scores(&self) -> bool {
        self.q || self.live || self.d_lse || self.values.iter().chain(self.d_out.iter().flatten()).any(|bad| *bad)
    }

    /// Adds what is bad in another row.
    fn add(&mut self, other: &Row) {
        self.live |= other.live;
        self.q |= other.q;
        let or = |(bad, other): (&mut bool, &bool)| *bad |= other;
        self.values.iter_mut().zip(&other.values).for_each(or);
        self.d_out.iter_mut().flatten().zip(other.d_out.iter().flatten()).for_each(or);
    }
}

/// What is bad in the inputs.
struct Bad {
    /// `[b, q_head, token]`.
    q: Array3<bool>,
    /// `[b, kv_head, token]`.
    keys: Array3<bool>,
    /// `[b, kv_head, block, feature]`: any token of the block.
    block_values: Array4<bool>,
    factors: Option<Array4<bool>>,
    d_out: Option<Array4<bool>>,
    d_lse: Option<Array3<bool>>,
    d_sliding: Option<Array4<bool>>,
}

impl Bad {
    fn of(inputs: &Inputs) -> Self {
        let flags = |tensor: &Array4<f64>| tensor.mapv(|value| !value.is_finite());
        let cotangents = inputs.cotangents();
        let rows = |tensor: &Array4<f64>| tensor.map_axis(Axis(3), |row| row.iter().any(|value| !value.is_finite()));
        Bad {
            q: rows(inputs.q()),
            keys: rows(inputs.k()),
            block_values: by_block(&flags(inputs.v()), inputs.shape().block_size()),
            factors: inputs.sel_scale().map(flags),
            d_out: cotangents.d_out.as_ref().map(flags),
            d_lse: cotangents.d_lse.as_ref().map(|tensor| tensor.mapv(|value| !value.is_finite())),
            d_sliding: cotangents.d_sliding.as_ref().map(flags),
        }
    }

    fn any(&self) -> bool {
        let wide = [&self.factors, &self.d_out, &self.d_sliding].into_iter().flatten();
        self.q.iter().chain(&self.keys).chain(&self.block_values).chain(self.d_lse.iter().flatten()).any(|bad| *bad)
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
