//! An excerpt of an answer that is too large to judge whole: sampled rows of every head and gradients of sampled keys, each
//! element under its own budget as ever. Everything else is only held to be there and finite.

use ndarray::Dimension;
use nsa_corpus::{Arithmetic, Field, Inputs, Outputs, Random, Shape};
use nsa_reference::oracle::Sample;

use crate::judge::element::position;
use crate::judge::field::has_shape;
use crate::judge::verdict::{Class, Failure, Verdict};
use crate::judge::{judge, judge_sampled, verdict};

/// Score terms up to which an answer is judged whole.
const WHOLE_TERMS: usize = 1 << 22;
/// Tokens drawn, beside the first and the last of each head.
const TOKENS: usize = 24;
/// Blocks of which keys are sampled.
const KEY_BLOCKS: usize = 3;
/// Keys of such a block: each costs little beside the rows that attend to it.
const KEYS_OF_BLOCK: usize = 8;

/// What was judged, and what came of it.
#[derive(Debug)]
pub struct JudgedSample {
    /// Which part of the answer was judged, in words.
    pub what: String,
    /// The first failure, or that there is none.
    pub verdict: Verdict,
}

/// Judges an excerpt of `found`, the answer of an implementation of `arithmetic` to finite `inputs` of which every row has keys; all
/// of it where it is small.
pub fn judge_sample(inputs: &Inputs, arithmetic: &Arithmetic, found: &Outputs) -> JudgedSample {
    let shape = inputs.shape();
    let terms = shape.batch() * shape.q_heads() * shape.seq_len() * (shape.num_sel() + 1) * shape.block_size();
    if terms <= WHOLE_TERMS {
        let verdict = verdict(&judge(inputs, arithmetic, found));
        return JudgedSample { what: "every element".to_owned(), verdict };
    }
    if let Some(failure) = Field::ALL.into_iter().find_map(|field| unusable(field, inputs, found)) {
        return JudgedSample { what: "whether every element is finite".to_owned(), verdict: Verdict::Fail(failure) };
    }
    let sample = draw(shape);
    let comparisons = judge_sampled(inputs, arithmetic, found, &sample);
    let elements: usize = comparisons.iter().map(|comparison| comparison.elements).sum();
    let (tokens, keys) = (sample.tokens.len(), sample.keys.len());
    let what = format!("{elements} elements of {tokens} tokens and {keys} keys, over every head; all finite");
    JudgedSample { what, verdict: verdict(&comparisons) }
}

/// Why a field cannot be judged at all: it is missing, has another shape, or holds what is not finite. Where every row has
/// keys, not even `lse` may be infinite.
pub(crate) fn unusable(field: Field, inputs: &Inputs, found: &Outputs) -> Option<Failure> {
    if !field.asked_by(inputs) {
        return None;
    }
    let tensor = match has_shape(field, found.get(field), &field.shape(inputs.shape())) {
        Ok(tensor) => tensor,
        Err(failure) => return Some(failure),
    };
    let (index, value) = tensor.indexed_iter().find(|(_, value)| !value.is_finite())?;
    let count = tensor.iter().filter(|value| !value.is_finite()).count();
    let position = position(field, index.as_array_view().as_slice().expect("an index is a slice"));
    let message = format!("{field} at {position}: found {value}; {count} of {} elements are not finite", tensor.len());
    Some(Failure::new(Class::NonFinite, Some(field), message))
}

/// Tokens spread over every head, those at the edges of blocks among them, and keys of some blocks: the same for every run of a
/// shape.
pub fn draw(shape: &Shape) -> Sample {
    let mut random = Random::new(0);
    let mut below = |limit| random.below(limit);
    let mut sample = Sample::default();
    let (n, size) = (shape.seq_len(), shape.block_size());
    for (b, h) in (0..shape.batch()).flat_map(|b| (0..shape.kv_heads()).map(move |h| (b, h))) {
        let edge = below(shape.blocks()) * size;
        let tokens = [0, edge.saturating_sub(1), edge, n - 1];
        sample.tokens.extend(tokens.map(|i| [b, h, i]));
    }
    for _ in 0..TOKENS {
        sample.tokens.insert([below(shape.batch()), below(shape.kv_heads()), below(n)]);
    }
    for number in 0..KEY_BLOCKS {
        // The last block too: where it is partial, its padding counts.
        let block = if number == 0 { shape.blocks() - 1 } else { below(shape.blocks()) };
        let (b, h) = (below(shape.batch()), below(shape.kv_heads()));
        let keys = block * size..n.min((block + 1) * size);
        let step = keys.len().div_ceil(KEYS_OF_BLOCK);
        sample.keys.extend(keys.step_by(step).map(|key| [b, h, key]));
    }
    sample
}

#[cfg(test)]
mod tests {
    use nsa_corpus::{Case, Dtype, Selection, Sizes, Values};
    use nsa_reference::tiled;

    use super::*;

    /// Above [`WHOLE_TERMS`].
    fn inputs() -> Inputs {
        let (q_heads, kv_heads, sel_heads, seq_len) = (8, 2, 2, 6007);
        let (dim, value_dim, block_size, num_sel) = (4, 4, 16, 5);
        let sizes = Sizes { batch: 1, q_heads, kv_heads, seq_len, dim, value_dim, block_size, num_sel, sel_heads };
        let case = Case { selection: Selection::Any {}, sel_scale: Some(Values::normal()), ..Case::ordinary(sizes, 3) };
        case.materialize(Dtype::F32).unwrap()
    }

    #[test]
    fn a_judged_sample_passes_the_right_answer_and_every_field_of_it_can_fail() {
        let inputs = inputs();
        let arithmetic = tiled::arithmetic(Dtype::F32);
        let right = tiled::attend(&inputs);
        let judged = judge_sample(&inputs, &arithmetic, &right);
        assert!(judged.verdict == Verdict::Pass && judged.what.contains("over every head"), "{judged:?}");
        let sample = draw(inputs.shape());
        let (token, key) = (*sample.tokens.last().unwrap(), *sample.keys.last().unwrap());
        for (field, tensor) in right.iter() {
            let mut index = if matches!(field, Field::Dk | Field::Dv) { key.to_vec() } else { token.to_vec() };
            if matches!(field, Field::Out | Field::Lse | Field::Dq) {
                index[1] = index[1] * 4 + 3;
            }
            index.extend((tensor.ndim() == 4).then_some(2));
            let mut wrong = right.clone();
            wrong.get_mut(field).unwrap()[index.as_slice()] += 0.01;
            let verdict = judge_sample(&inputs, &arithmetic, &wrong).verdict;
            assert_eq!(verdict.failure().and_then(|failure| failure.field), Some(field), "{verdict}");
        }
    }

    #[test]
    fn what_is_missing_or_not_finite_is_no_answer() {
        let inputs = inputs();
        let mut found = tiled::attend(&inputs);
        assert_eq!(Field::ALL.into_iter().find_map(|field| unusable(field, &inputs, &found)), None);
        found.get_mut(Field::Dk).unwrap()[[0, 1, 5, 0]] = f64::NAN;
        let failure = judge_sample(&inputs, &tiled::arithmetic(Dtype::F32), &found).verdict;
        let message = "dk at batch 0, kv_head 1, key 5, feature 0: found NaN; 1 of 48056 elements are not finite";
        assert_eq!(failure.failure().unwrap().message, message);
        found.take(Field::Lse);
        assert_eq!(unusable(Field::Lse, &inputs, &found).unwrap().class, Class::Shape);
    }
}
