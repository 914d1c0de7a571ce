//! Which blocks the slots select, and which slots are live.

use std::collections::BTreeMap;

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use crate::rng::Stream;
use crate::{Error, Given, Shape};

/// How the block of each slot is drawn.
///
/// Every kind is defined for every token: a slot for which it has no legal block (no past block at the start, fewer
/// blocks than slots) gets index 0 and is masked, whatever the mask says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// Distinct blocks before the query's own, in random order: what a selection usually is.
    Past {},
    /// Block 0, the block before the query's own, then distinct ones between: the shape of a trained selection.
    FirstPreviousPast {},
    /// As `first_previous_past`, one draw for all tokens of a block: neighbours select the same blocks, as they nearly do in
    /// trained models.
    Shared {},
    /// `randint(0, 2)`, as the mock inputs of `test_triton_nsa.py`: blocks 0 and 1 (0 alone where there is one block).
    ZeroOrOne {},
    /// Distinct blocks, earlier or later, in random order.
    Distinct {},
    /// Any block, earlier or later, repeats allowed.
    Any {},
    /// Slots come in pairs that select the same block, any block.
    Duplicates {},
    /// The query's own block.
    Own {},
    /// A block after the query's own.
    Future {},
    /// The last block, which may be partial.
    Last {},
    /// One block, drawn once, for all slots of all tokens.
    Same {},
    /// This block for all slots of all tokens.
    Fixed {
        /// Its number; the last block where there are fewer.
        block: usize,
    },
    /// A tensor of a file.
    Given(Given),
}

/// Which slots are live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Mask {
    /// Every slot.
    All {},
    /// No slot.
    None {},
    /// Each slot with probability one half.
    Random {},
    /// Only this slot.
    One {
        /// Its number; no slot is live where there are fewer.
        slot: usize,
    },
    /// A tensor of a file.
    Given(Given),
}

/// Indices and mask `[b, sel_heads, n, num_sel]`. `tags` are the numbers of the two tensors.
pub(crate) fn draw(
    selection: &Selection,
    mask: &Mask,
    shape: &Shape,
    seed: u64,
    tags: [u64; 2],
) -> Result<(Array4<i64>, Array4<bool>), Error> {
    let dim = (shape.batch(), shape.sel_heads(), shape.seq_len(), shape.num_sel());
    let mut live = live(mask, dim, seed, tags[1])?;
    if let Selection::Given(given) = selection {
        return Ok((whole_numbers(given, dim)?, live));
    }
    let mut indices = Array4::zeros(dim);
    // What is drawn once belongs to no row.
    let same = Stream::new(seed, tags[0], [usize::MAX - 1; 3]);
    for b in 0..dim.0 {
        for h in 0..dim.1 {
            for i in 0..dim.2 {
                let drawn = match selection {
                    Selection::Shared {} => i / shape.block_size() * shape.block_size(),
                    _ => i,
                };
                let row = selection.row(shape, Stream::new(seed, tags[0], [b, h, drawn]), same, i);
                for (s, block) in row.into_iter().enumerate() {
                    match block {
                        Some(block) => indices[[b, h, i, s]] = block as i64,
                        None => live[[b, h, i, s]] = false,
                    }
                }
            }
        }
    }
    Ok((indices, live))
}

/// Gives masked slots whose index numbers no block the index 0, which nobody reads: a file may hold any number there, as
/// kernels do that mark a masked slot by -1.
pub(crate) fn settle_masked(indices: &mut Array4<i64>, mask: &Array4<bool>, blocks: usize) {
    if indices.dim() != mask.dim() {
        // Refused, with both shapes, where inputs are built.
        return;
    }
    let outside = |index: i64| usize::try_from(index).map_or(true, |index| index >= blocks);
    for (index, live) in indices.iter_mut().zip(mask) {
        if !live && outside(*index) {
            *index = 0;
        }
    }
}

type Dim4 = (usize, usize, usize, usize);

fn live(mask: &Mask, dim: Dim4, seed: u64, tag: u64) -> Result<Array4<bool>, Error> {
    Ok(match mask {
        Mask::All {} => Array4::from_elem(dim, true),
        Mask::None {} => Array4::from_elem(dim, false),
        Mask::One { slot } => Array4::from_shape_fn(dim, |(_, _, _, s)| s == *slot),
        Mask::Random {} => {
            Array4::from_shape_fn(dim, |(b, h, i, s)| Stream::new(seed, tag, [b, h, i]).below(s, 0, 2) == 1)
        }
        Mask::Given(given) => cut(given, dim)?.mapv(|value| value != 0.0),
    })
}

fn cut(given: &Given, dim: Dim4) -> Result<Array4<f64>, Error> {
    Ok(given.cut(&[dim.0, dim.1, dim.2, dim.3])?.into_dimensionality().expect("four axes were asked for"))
}

/// A number that stands for no block is left for [`settle_masked`], or for where inputs are built.
fn whole_numbers(given: &Given, dim: Dim4) -> Result<Array4<i64>, Error> {
    let numbers = cut(given, dim)?;
    match numbers.indexed_iter().find(|(_, value)| value.fract() != 0.0) {
        Some(((b, h, i, s), value)) => {
            Err(Error::invalid(format!("indices[{b}, {h}, {i}, {s}] is {value}, which numbers no block")))
        }
        None => Ok(numbers.mapv(|value| value as i64)),
    }
}

impl Selection {
    /// The blocks of the row of `token`, `None` where the kind has no legal one.
    fn row(&self, shape: &Shape, stream: Stream, same: Stream, token: usize) -> Vec<Option<usize>> {
        let (blocks, own, count) = (shape.blocks(), token / shape.block_size(), shape.num_sel());
        let each = |block: &dyn Fn(usize) -> Option<usize>| (0..count).map(block).collect();
        match self {
            Selection::Past {} => distinct(stream, own, count),
            Selection::FirstPreviousPast {} | Selection::Shared {} => first_previous_past(stream, own, count),
            Selection::ZeroOrOne {} => each(&|s| Some(stream.below(s, 0, 2).min(blocks - 1))),
            Selection::Distinct {} => distinct(stream, blocks, count),
            Selection::Any {} => each(&|s| Some(stream.below(s, 0, blocks))),
            Selection::Duplicates {} => each(&|s| Some(stream.below(s / 2, 0, blocks))),
            Selection::Own {} => each(&|_| Some(own)),
            Selection::Future {} => {
                let later = blocks - own - 1;
                each(&|s| (later > 0).then(|| own + 1 + stream.below(s, 0, later)))
            }
            Selection::Last {} => each(&|_| Some(blocks - 1)),
            Selection::Same {} => each(&|_| Some(same.below(0, 0, blocks))),
            Selection::Fixed { block } => each(&|_| Some((*block).min(blocks - 1))),
            Selection::Given(_) => unreachable!("a given selection is cut, not drawn"),
        }
    }
}

/// `count` distinct blocks of `0..limit` in random order, `None` once they run out (Fisher and Yates, with only the
/// displaced places stored).
fn distinct(stream: Stream, limit: usize, count: usize) -> Vec<Option<usize>> {
    let mut displaced: BTreeMap<usize, usize> = BTreeMap::new();
    let mut draw = |s: usize| {
        let at =
            |displaced: &BTreeMap<usize, usize>, position: usize| displaced.get(&position).copied().unwrap_or(position);
        let position = s + stream.below(s, 0, limit - s);
        let chosen = at(&displaced, position);
        displaced.insert(position, at(&displaced, s));
        chosen
    };
    (0..count).map(|s| (s < limit).then(|| draw(s))).collect()
}

/// Block 0, block `own - 1`, then distinct ones of `1..own - 1`.
fn first_previous_past(stream: Stream, own: usize, count: usize) -> Vec<Option<usize>> {
    let fixed = [(own > 0).then_some(0), (own > 1).then(|| own - 1)].into_iter().flatten().map(Some);
    let between = distinct(stream, own.saturating_sub(2), count).into_iter().map(|block| block.map(|block| block + 1));
    let mut row: Vec<Option<usize>> = fixed.chain(between).collect();
    row.truncate(count);
    row
}
