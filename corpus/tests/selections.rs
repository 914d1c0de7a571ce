//! What each kind of selection and mask promises.

use std::collections::BTreeSet;

use nsa_corpus::{Case, Dtype, Inputs, Mask, Selection, Shape, Sizes};

fn inputs(selection: Selection, mask: Mask, block_size: usize) -> Inputs {
    let sizes = Sizes {
        batch: 2,
        q_heads: 2,
        kv_heads: 2,
        seq_len: 51,
        dim: 2,
        value_dim: 2,
        block_size,
        num_sel: 4,
        sel_heads: 2,
    };
    Case { selection, mask, ..Case::ordinary(sizes, 5) }.materialize(Dtype::F64).unwrap()
}

/// Each row's own block and its live slots.
fn rows(inputs: &Inputs) -> Vec<(usize, Vec<usize>)> {
    let shape: &Shape = inputs.shape();
    let rows = inputs.indices().rows().into_iter().zip(inputs.mask().rows());
    rows.enumerate()
        .map(|(row, (blocks, live))| {
            let own = row % shape.seq_len() / shape.block_size();
            let live = blocks.iter().zip(live).filter(|(_, live)| **live).map(|(block, _)| *block as usize);
            (own, live.collect())
        })
        .collect()
}

fn distinct(slots: &[usize]) -> usize {
    slots.iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn past_blocks_are_distinct_and_before_the_row_and_as_many_as_there_are() {
    for (own, slots) in rows(&inputs(Selection::Past {}, Mask::All {}, 8)) {
        assert!(slots.iter().all(|&block| block < own));
        assert_eq!((slots.len(), distinct(&slots)), (own.min(4), own.min(4)));
    }
}

#[test]
fn the_first_and_the_previous_block_come_first() {
    for (own, slots) in rows(&inputs(Selection::FirstPreviousPast {}, Mask::All {}, 8)) {
        assert_eq!((slots.len(), distinct(&slots)), (own.min(4), own.min(4)));
        assert_eq!(slots.first(), (own > 0).then_some(&0));
        assert!(own < 2 || slots[1] == own - 1);
    }
}

#[test]
fn tokens_of_a_block_share_their_selection() {
    let rows = rows(&inputs(Selection::Shared {}, Mask::All {}, 8));
    for ((own, slots), (next_own, next_slots)) in rows.iter().zip(&rows[1..]) {
        assert_eq!((slots.len(), distinct(slots)), ((*own).min(4), (*own).min(4)));
        assert!(own != next_own || slots == next_slots);
    }
    assert_ne!(rows[..51], rows[51..102], "each head draws for itself");
}

#[test]
fn distinct_blocks_are_distinct_and_reach_all() {
    let rows = rows(&inputs(Selection::Distinct {}, Mask::All {}, 8));
    assert!(rows.iter().all(|(_, slots)| slots.len() == 4 && distinct(slots) == 4));
    assert_eq!(rows.iter().flat_map(|(_, slots)| slots).collect::<BTreeSet<_>>().len(), 7);
}

#[test]
fn more_slots_than_blocks_leave_masked_slots_of_index_0() {
    let inputs = inputs(Selection::Distinct {}, Mask::All {}, 20);
    assert_eq!(inputs.shape().blocks(), 3);
    for (blocks, live) in inputs.indices().rows().into_iter().zip(inputs.mask().rows()) {
        assert_eq!(live.to_vec(), [true, true, true, false]);
        assert_eq!(blocks[3], 0);
    }
}

#[test]
fn the_mock_selection_draws_blocks_0_and_1() {
    let drawn: BTreeSet<_> =
        rows(&inputs(Selection::ZeroOrOne {}, Mask::All {}, 8)).into_iter().flat_map(|row| row.1).collect();
    assert_eq!(drawn, BTreeSet::from([0, 1]));
    let drawn: BTreeSet<_> =
        rows(&inputs(Selection::ZeroOrOne {}, Mask::All {}, 64)).into_iter().flat_map(|row| row.1).collect();
    assert_eq!(drawn, BTreeSet::from([0]));
}

#[test]
fn the_other_kinds_select_what_they_say() {
    let holds = |selection: Selection, fact: &dyn Fn(usize, &[usize]) -> bool| {
        let rows = rows(&inputs(selection.clone(), Mask::All {}, 8));
        assert!(rows.iter().all(|(own, slots)| fact(*own, slots)), "{selection:?}");
    };
    holds(Selection::Duplicates {}, &|_, slots| slots[0] == slots[1] && slots[2] == slots[3]);
    holds(Selection::Own {}, &|own, slots| slots == [own; 4]);
    holds(Selection::Future {}, &|own, slots| {
        slots.len() == if own < 6 { 4 } else { 0 } && slots.iter().all(|&b| b > own)
    });
    holds(Selection::Last {}, &|_, slots| slots == [6; 4]);
    holds(Selection::Fixed { block: 2 }, &|_, slots| slots == [2; 4]);
    holds(Selection::Fixed { block: 99 }, &|_, slots| slots == [6; 4]);
    let same = rows(&inputs(Selection::Same {}, Mask::All {}, 8));
    assert!(same.iter().all(|(_, slots)| *slots == [same[0].1[0]; 4]));
}

#[test]
fn masks_select_the_slots_they_say() {
    let live = |mask| inputs(Selection::Any {}, mask, 8).mask().clone();
    assert!(live(Mask::All {}).iter().all(|live| *live));
    assert!(!live(Mask::None {}).iter().any(|live| *live));
    assert!(live(Mask::One { slot: 1 }).rows().into_iter().all(|row| row.to_vec() == [false, true, false, false]));
    assert!(!live(Mask::One { slot: 9 }).iter().any(|live| *live));
    let random = live(Mask::Random {});
    let share = random.iter().filter(|live| **live).count() as f64 / random.len() as f64;
    assert!((0.4..0.6).contains(&share), "{share}");
}
