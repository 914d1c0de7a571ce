//! Which blocks the slots select, and which slots are live.

use serde::{Deserialize, Serialize};

use crate::Shape;
use crate::rng::Stream;
use crate::values::Given;

/// How the block of each slot is drawn. Where a kind has no legal block for a slot (no past block at the start, say), the
/// slot's index is 0 and it is masked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Selection {
    /// Distinct blocks before the query's own, in random order: what a selection usually is.
    Past {},
    /// `randint(0, 2)`, as the mock inputs of `test_triton_nsa.py`: blocks 0 and 1 (0 alone where there is one block).
    ZeroOrOne {},
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
    /// Block 0, the block before the query's own, then distinct past ones: the shape of a real selection.
    FirstPreviousPast {},
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
        /// Its number.
        slot: usize,
    },
    /// A tensor of a file.
    Given(Given),
}

impl Selection {
    /// The blocks of row `[b, sel head, i]`, `None` where the kind has no legal one.
    pub(crate) fn row(&self, shape: &Shape, stream: Stream, same: Stream, token: usize) -> Vec<Option<usize>> {
        let (blocks, own, count) = (shape.blocks(), token / shape.block_size(), shape.num_sel());
        let each = |block: &dyn Fn(usize) -> Option<usize>| (0..count).map(block).collect();
        match self {
            Selection::Past {} => distinct(stream, own, count),
            Selection::ZeroOrOne {} => each(&|s| Some(stream.below(s, 0, 2).min(blocks - 1))),
            Selection::Any {} => each(&|s| Some(stream.below(s, 0, blocks))),
            Selection::Duplicates {} => each(&|s| Some(stream.below(s / 2, 0, blocks))),
            Selection::Own {} => each(&|_| Some(own)),
            Selection::Future {} => {
                let later = blocks - own - 1;
                each(&|s| (later > 0).then(|| own + 1 + stream.below(s, 0, later)))
            }
            Selection::Last {} => each(&|_| Some(blocks - 1)),
            Selection::Same {} => each(&|_| Some(same.below(0, 0, blocks))),
            Selection::FirstPreviousPast {} => first_previous_past(stream, own, count),
            Selection::Given(_) => unreachable!("a given selection is cut, not drawn"),
        }
    }
}

/// `count` distinct blocks of `0..limit` in random order (Fisher and Yates, over a sparse permutation), `None` once they
/// run out.
fn distinct(stream: Stream, limit: usize, count: usize) -> Vec<Option<usize>> {
    let mut moved: Vec<(usize, usize)> = Vec::new();
    let at = |moved: &[(usize, usize)], place: usize| {
        moved.iter().rev().find(|(from, _)| *from == place).map_or(place, |(_, to)| *to)
    };
    (0..count)
        .map(|s| {
            (s < limit).then(|| {
                let place = s + stream.below(s, 0, limit - s);
                let (chosen, displaced) = (at(&moved, place), at(&moved, s));
                moved.push((place, displaced));
                chosen
            })
        })
        .collect()
}

fn first_previous_past(stream: Stream, own: usize, count: usize) -> Vec<Option<usize>> {
    let fixed: Vec<usize> = [(own > 0).then_some(0), (own > 1).then(|| own - 1)].into_iter().flatten().collect();
    // Blocks 1 .. own - 1 remain.
    let rest = distinct(stream, own.saturating_sub(2), count).into_iter().map(|block| block.map(|block| block + 1));
    let mut row: Vec<Option<usize>> = fixed.into_iter().map(Some).chain(rest).collect();
    row.resize(count.max(row.len()), None);
    row.truncate(count);
    row
}

impl Mask {
    /// Whether slot `s` of a row is live.
    pub(crate) fn live(&self, stream: Stream, s: usize) -> bool {
        match self {
            Mask::All {} => true,
            Mask::None {} => false,
            Mask::Random {} => stream.below(s, 7, 2) == 1,
            Mask::One { slot } => s == *slot,
            Mask::Given(_) => unreachable!("a given mask is cut, not drawn"),
        }
    }
}
