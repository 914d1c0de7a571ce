//! The judgement of an excerpt of an answer that is too large to judge whole: some rows of some heads, and the gradients of
//! some blocks of keys, each element by its own budget as ever. Everything else is only held to be finite.
//!
//! Both excerpts are problems of their own, small enough for the oracle:
//! - **rows** of one kv head: the same keys, with every slot of every other row masked. A row depends on no other row.
//! - **a block of keys**: its own queries and its visitors, gathered as the rows of a short sequence whose first block it
//!   is. Given `out` and `lse` as they were saved, the gradients of keys are sums over just those rows.

use ndarray::{Array, Array4, Axis, Dimension, Slice, concatenate};
use nsa_corpus::{Arithmetic, Cotangents, Error, Field, InputParts, Inputs, Outputs};
use nsa_reference::oracle;

use crate::judge::{compare_tokens, judge, judge_tokens, verdict};
use crate::verdict::{Class, Failure, Verdict};

/// Score terms up to which an answer is judged whole.
const WHOLE_TERMS: usize = 1 << 22;
/// Tokens that are judged in the middle of the sequence, besides those at block boundaries.
const TOKENS: usize = 48;
/// Rows up to which the gradients of a block of keys are judged.
const ROWS_MAX: usize = 1 << 18;

/// What was judged, and what came of it.
#[derive(Debug)]
pub struct Excerpt {
    /// Which part of the answer was judged, in words.
    pub what: String,
    /// The first failure, or that there is none.
    pub verdict: Verdict,
}

/// Judges an excerpt of `found`, the answer of an implementation of `arithmetic` to `inputs`; all of it where it is small.
///
/// # Errors
/// The excerpt is no problem of its own: a mistake of this module.
///
/// # Panics
/// With a sliding window and more score terms than are judged whole: no named shape has one.
pub fn judge_excerpt(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> Result<Excerpt, Error> {
    let shape = inputs.shape();
    let terms = shape.batch() * shape.q_heads() * shape.seq_len() * (shape.num_sel() + 1) * shape.block_size();
    if terms <= WHOLE_TERMS {
        let verdict = verdict(&judge(inputs, arithmetic, found));
        return Ok(Excerpt { what: "every element".to_owned(), verdict });
    }
    assert!(inputs.sliding_window().is_none(), "excerpts have no sliding part");
    if let Some(failure) = Field::ALL.into_iter().find_map(|field| unusable(field, inputs, found)) {
        return Ok(Excerpt { what: "whether every element is finite".to_owned(), verdict: Verdict::Fail(failure) });
    }
    let (b, kv_head) = (shape.batch() - 1, shape.kv_heads() - 1);
    let tokens = tokens(shape.seq_len(), shape.block_size());
    let mut verdicts = vec![judge_rows(inputs, arithmetic, found, [b, kv_head], &tokens)?];
    let mut blocks = Vec::new();
    for block in [0, 1, shape.blocks() / 2, (shape.seq_len() / shape.block_size()).saturating_sub(1)] {
        let whole = (block + 1) * shape.block_size() <= shape.seq_len();
        if !inputs.cotangents().any() || !whole || blocks.contains(&block) {
            continue;
        }
        let visitors = visitors(inputs, [b, kv_head, block]);
        if visitors.len() * shape.groups() <= ROWS_MAX {
            verdicts.push(judge_keys(inputs, arithmetic, found, [b, kv_head, block], &visitors)?);
            blocks.push(block);
        }
    }
    let what = format!("batch {b}, kv head {kv_head}: {} tokens, key blocks {blocks:?}; all finite", tokens.len());
    let worst = verdicts.into_iter().max_by_key(|verdict| match verdict {
        Verdict::Fail(_) => 2,
        Verdict::Suspect(_) => 1,
        _ => 0,
    });
    Ok(Excerpt { what, verdict: worst.expect("rows are always judged") })
}

/// Why a field cannot be judged at all: it is missing, has another shape, or holds what is not finite. The named shapes
/// leave no row without keys, so that not even `lse` may be infinite.
fn unusable(field: Field, inputs: &Inputs, found: &Outputs) -> Option<Failure> {
    let shape = field.shape(inputs.shape());
    let (class, message) = match found.get(field) {
        _ if !field.asked_by(inputs) => return None,
        None => (Class::Shape, format!("{field} is missing")),
        Some(tensor) if tensor.shape() != shape => {
            (Class::Shape, format!("{field} has shape {:?}, expected {shape:?}", tensor.shape()))
        }
        Some(tensor) => match tensor.iter().filter(|value| !value.is_finite()).count() {
            0 => return None,
            count => (Class::NonFinite, format!("{count} of {} elements of {field} are not finite", tensor.len())),
        },
    };
    Some(Failure { class, field: Some(field), message })
}

/// The first and last tokens of the first, a middle and the last block, and others spread between.
fn tokens(seq_len: usize, block_size: usize) -> Vec<usize> {
    let middle = seq_len / 2 / block_size * block_size;
    let mut tokens =
        vec![0, block_size - 1, block_size, middle - 1, middle, (seq_len - 1) / block_size * block_size, seq_len - 1];
    // Steps by the golden ratio of the length spread evenly and meet every place within a block.
    let step = (seq_len as f64 * 0.618_033_988_749_895) as usize | 1;
    tokens.extend((1..=TOKENS).map(|count| count * step % seq_len));
    tokens.sort_unstable();
    tokens.dedup();
    tokens.retain(|token| *token < seq_len);
    tokens
}

/// `count` heads from `first` on of batch entry `b`.
fn heads<A: Clone, D: Dimension>(tensor: &Array<A, D>, b: usize, first: usize, count: usize) -> Array<A, D> {
    let mut view = tensor.view();
    view.slice_axis_inplace(Axis(0), Slice::from(b..=b));
    view.slice_axis_inplace(Axis(1), Slice::from(first..first + count));
    view.to_owned()
}

/// `count` tokens from `first` on.
fn cut<D: Dimension>(mut tensor: Array<f64, D>, first: usize, count: usize) -> Array<f64, D> {
    tensor.slice_axis_inplace(Axis(2), Slice::from(first..first + count));
    tensor
}

fn judge_rows(
    inputs: &Inputs,
    arithmetic: &Arithmetic,
    found: &Outputs,
    [b, kv_head]: [usize; 2],
    tokens: &[usize],
) -> Result<Verdict, Error> {
    let shape = inputs.shape();
    let sel_heads = shape.sel_heads() / shape.kv_heads();
    // Only dsel_scale sums over query heads; without it the last two of those that share their selection are enough.
    let all = inputs.sel_scale().is_some() || sel_heads > 1;
    let groups = if all { shape.groups() } else { shape.groups().min(2) };
    let (first, first_sel) = ((kv_head + 1) * shape.groups() - groups, kv_head * sel_heads);
    let mut mask = heads(inputs.mask(), b, first_sel, sel_heads);
    for (i, mut row) in mask.axis_iter_mut(Axis(2)).enumerate() {
        if !tokens.contains(&i) {
            row.fill(false);
        }
    }
    let cotangents = inputs.cotangents();
    let part = Inputs::new(InputParts {
        block_size: shape.block_size(),
        include_block_causal: inputs.include_block_causal(),
        sliding_window: None,
        element: inputs.element(),
        q: heads(inputs.q(), b, first, groups),
        k: heads(inputs.k(), b, kv_head, 1),
        v: heads(inputs.v(), b, kv_head, 1),
        indices: heads(inputs.indices(), b, first_sel, sel_heads).mapv(i64::from),
        mask,
        sel_scale: inputs.sel_scale().map(|tensor| heads(tensor, b, first_sel, sel_heads)),
        cotangents: Cotangents {
            d_out: cotangents.d_out.as_ref().map(|tensor| heads(tensor, b, first, groups)),
            d_lse: cotangents.d_lse.as_ref().map(|tensor| heads(tensor, b, first, groups)),
            d_sliding: None,
        },
    })?;
    let mut rows = Outputs::new();
    for field in [Field::Out, Field::Lse, Field::Dq, Field::DselScale] {
        if let (true, Some(tensor)) = (field.asked_by(inputs), found.get(field)) {
            let count = field.shape(part.shape())[1];
            let first = if field == Field::DselScale { first_sel } else { first };
            rows.set(field, heads(tensor, b, first, count));
        }
    }
    Ok(verdict(&judge_tokens(&part, arithmetic, &rows, tokens)))
}

/// A token whose row attends to a block of keys.
struct Visitor {
    token: usize,
    /// For each selection head of the kv head, the live slots that select the block.
    slots: Vec<Vec<usize>>,
}

/// The block's own queries, then every other token that selects it.
fn visitors(inputs: &Inputs, [b, kv_head, block]: [usize; 3]) -> Vec<Visitor> {
    let shape = inputs.shape();
    let sel_heads = shape.sel_heads() / shape.kv_heads();
    let visitor = |token: usize| {
        let selects = |h: usize, slot: usize| {
            let place = [b, kv_head * sel_heads + h, token, slot];
            inputs.mask()[place] && inputs.indices()[place] as usize == block
        };
        let slots = |h| (0..shape.num_sel()).filter(|slot| selects(h, *slot)).collect();
        Visitor { token, slots: (0..sel_heads).map(slots).collect() }
    };
    let own = block * shape.block_size()..(block + 1) * shape.block_size();
    let others = (0..shape.seq_len()).filter(|token| !own.contains(token)).map(visitor);
    let others = others.filter(|visitor| visitor.slots.iter().any(|slots| !slots.is_empty()));
    own.clone().map(visitor).chain(others).collect()
}

fn judge_keys(
    inputs: &Inputs,
    arithmetic: &Arithmetic,
    found: &Outputs,
    [b, kv_head, block]: [usize; 3],
    visitors: &[Visitor],
) -> Result<Verdict, Error> {
    let part = gather(inputs, [b, kv_head, block], visitors)?;
    let rows: Vec<usize> = visitors.iter().map(|visitor| visitor.token).collect();
    let shape = inputs.shape();
    let (groups, size) = (shape.groups(), shape.block_size());
    let mut saved = Outputs::new();
    for field in [Field::Out, Field::Lse] {
        let tensor = found.get(field).expect("`unusable` has seen it");
        saved.set(field, heads(tensor, b, kv_head * groups, groups).select(Axis(2), &rows));
    }
    let answer = oracle::backward(&part, &saved, Some(arithmetic));
    let mut keys = Outputs::new();
    for field in [Field::Dk, Field::Dv] {
        let tensor = found.get(field).expect("`unusable` has seen it");
        keys.set(field, cut(heads(tensor, b, kv_head, 1), block * size, size));
    }
    let first: Vec<usize> = (0..size).collect();
    Ok(verdict(&compare_tokens(&answer, arithmetic, &keys, &first)))
}

/// The problem of one block of keys, whose rows are `visitors`.
fn gather(inputs: &Inputs, [b, kv_head, block]: [usize; 3], visitors: &[Visitor]) -> Result<Inputs, Error> {
    let shape = inputs.shape();
    let (groups, size, sel_heads) = (shape.groups(), shape.block_size(), shape.sel_heads() / shape.kv_heads());
    let rows: Vec<usize> = visitors.iter().map(|visitor| visitor.token).collect();
    let width = visitors.iter().flat_map(|visitor| visitor.slots.iter().map(Vec::len)).max().unwrap_or(0);
    let mut mask = Array4::from_elem((1, sel_heads, rows.len(), width), false);
    let mut scales = Array4::ones(mask.dim());
    for (row, visitor) in visitors.iter().enumerate() {
        for (h, slots) in visitor.slots.iter().enumerate() {
            for (place, slot) in slots.iter().enumerate() {
                mask[[0, h, row, place]] = true;
                if let Some(tensor) = inputs.sel_scale() {
                    scales[[0, h, row, place]] = tensor[[b, kv_head * sel_heads + h, visitor.token, *slot]];
                }
            }
        }
    }
    let queries = |tensor: &Array4<f64>| heads(tensor, b, kv_head * groups, groups).select(Axis(2), &rows);
    // Behind the block's own keys lie zeros, which only their own rows attend to.
    let keys = |tensor: &Array4<f64>| {
        let own = cut(heads(tensor, b, kv_head, 1), block * size, size);
        let zeros = Array4::zeros((1, 1, rows.len() - size, tensor.dim().3));
        concatenate![Axis(2), own, zeros]
    };
    let cotangents = inputs.cotangents();
    let d_lse = cotangents.d_lse.as_ref();
    Inputs::new(InputParts {
        block_size: size,
        include_block_causal: inputs.include_block_causal(),
        sliding_window: None,
        element: inputs.element(),
        q: queries(inputs.q()),
        k: keys(inputs.k()),
        v: keys(inputs.v()),
        indices: Array4::zeros(mask.dim()),
        mask,
        sel_scale: inputs.sel_scale().map(|_| scales),
        cotangents: Cotangents {
            d_out: cotangents.d_out.as_ref().map(queries),
            d_lse: d_lse.map(|tensor| heads(tensor, b, kv_head * groups, groups).select(Axis(2), &rows)),
            d_sliding: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use nsa_corpus::{Case, Element, Mask, Selection, Sizes, Values};

    use super::*;

    fn inputs() -> Inputs {
        let (q_heads, kv_heads, sel_heads, seq_len) = (8, 2, 8, 83);
        let (dim, value_dim, block_size, num_sel) = (8, 4, 8, 3);
        let sizes = Sizes { batch: 2, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads };
        let case = Case {
            selection: Selection::Duplicates {},
            mask: Mask::Random {},
            sel_scale: Some(Values::normal()),
            d_lse: Some(Values::normal()),
            ..Case::ordinary(sizes, 3)
        };
        case.materialize(Element::F32).unwrap()
    }

    /// What is judged of the last kv head.
    fn parts(inputs: &Inputs, found: &Outputs) -> Vec<Verdict> {
        let arithmetic = Arithmetic::f32();
        let tokens = tokens(inputs.shape().seq_len(), inputs.shape().block_size());
        let mut verdicts = vec![judge_rows(inputs, &arithmetic, found, [1, 1], &tokens).unwrap()];
        for block in [0, 3, 9] {
            let visitors = visitors(inputs, [1, 1, block]);
            verdicts.push(judge_keys(inputs, &arithmetic, found, [1, 1, block], &visitors).unwrap());
        }
        verdicts
    }

    #[test]
    fn an_excerpt_of_the_right_answer_passes() {
        let inputs = inputs();
        let found = oracle::attend(&inputs);
        assert!(parts(&inputs, &found).iter().all(|verdict| *verdict == Verdict::Pass));
        let part = gather(&inputs, [1, 1, 3], &visitors(&inputs, [1, 1, 3])).unwrap();
        assert!(part.shape().seq_len() > 20 && part.shape().num_sel() >= 2, "visited twice by some");
    }

    #[test]
    fn every_field_of_an_excerpt_can_fail() {
        let inputs = inputs();
        let right = oracle::attend(&inputs);
        let token = 41;
        for (field, place) in [
            (Field::Out, vec![1, 7, token, 2]),
            (Field::Lse, vec![1, 7, token]),
            (Field::Dq, vec![1, 4, token, 0]),
            (Field::DselScale, vec![1, 7, token, 1]),
            (Field::Dk, vec![1, 1, 29, 3]),
            (Field::Dv, vec![1, 1, 79, 3]),
        ] {
            let mut found = right.clone();
            let value = &mut found.get_mut(field).unwrap()[place.as_slice()];
            *value = if *value == 0.0 { 1e-3 } else { *value * 1.01 };
            let fields: Vec<_> = parts(&inputs, &found).iter().filter_map(|verdict| verdict.failure()?.field).collect();
            assert!(fields.contains(&field), "{field}: {fields:?}");
        }
    }

    #[test]
    fn what_is_missing_or_not_finite_is_no_answer() {
        let inputs = inputs();
        let mut found = oracle::attend(&inputs);
        assert_eq!(Field::ALL.into_iter().find_map(|field| unusable(field, &inputs, &found)), None);
        found.get_mut(Field::Dk).unwrap()[[0, 0, 0, 0]] = f64::NAN;
        let failure = unusable(Field::Dk, &inputs, &found).unwrap();
        assert_eq!(failure.message, "1 of 2656 elements of dk are not finite");
        found.take(Field::Lse);
        assert_eq!(unusable(Field::Lse, &inputs, &found).unwrap().class, Class::Shape);
    }
}
