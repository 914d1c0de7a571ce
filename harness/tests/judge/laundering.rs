//! A candidate that launders: its forward is off by a share of its budgets, all in the direction that does the most harm, and its
//! gradients follow from that forward exactly. Each is within its own budget; the second look at the gradients sees the conspiracy.

use nsa_corpus::{Arithmetic, Case, Dtype, Field, Inputs, Outputs, Sizes};
use nsa_harness::judge::field::Comparison;
use nsa_harness::judge::verdict::Verdict;
use nsa_harness::judge::{judge, verdict};
use nsa_reference::{
    oracle::{self, Answer},
    tiled,
};

/// 256 tokens, four heads a group, up to 80 keys a row and some hundred rows a key.
fn inputs(dtype: Dtype) -> Inputs {
    let sizes = Sizes {
        batch: 1,
        q_heads: 4,
        kv_heads: 1,
        seq_len: 256,
        dim: 64,
        value_dim: 64,
        block_size: 16,
        num_sel: 4,
        sel_heads: 1,
    };
    let sel_scale = Some(nsa_corpus::Values::normal());
    Case { sel_scale, ..Case::ordinary(sizes, 3) }.materialize(dtype).unwrap()
}

/// The largest step of the format, towards `direction`, that stays within `most` of `value`.
fn moved(dtype: Dtype, value: f64, direction: f64, most: f64) -> f64 {
    let steps = (0..=20).rev().map(|step| dtype.round(value + direction * most * f64::from(step) / 20.0));
    steps.into_iter().find(|moved| (moved - value).abs() <= most).unwrap_or(dtype.round(value))
}

/// Which of its budgets the candidate stays below.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Below {
    Rigorous,
    /// The first look then sees nothing at all.
    Likely,
}

/// A forward off by `share` of its budgets. Every row's `<out, d_out>` moves the way in which the first feature of its query adds
/// up over the rows of a key.
fn conspiring(inputs: &Inputs, arithmetic: &Arithmetic, below: Below, share: f64) -> Outputs {
    let Answer { outputs: mut saved, bounds } = oracle::forward(inputs, Some(arithmetic));
    let bounds = bounds.unwrap();
    let budgets = if below == Below::Rigorous { bounds.rigorous } else { bounds.likely };
    let (d_out, q) = (inputs.cotangents().d_out.as_ref().unwrap(), inputs.q());
    let budget = budgets.get(Field::Out).unwrap();
    for (at, value) in saved.get_mut(Field::Out).unwrap().indexed_iter_mut() {
        let row = [at[0], at[1], at[2]];
        let direction = d_out[[row[0], row[1], row[2], at[3]]].signum() * q[[row[0], row[1], row[2], 0]].signum();
        *value = moved(arithmetic.output, *value, direction, share * budget[&at]);
    }
    let budget = budgets.get(Field::Lse).unwrap();
    for (at, value) in saved.get_mut(Field::Lse).unwrap().indexed_iter_mut() {
        *value = moved(arithmetic.lse, *value, -1.0, share * budget[&at]);
    }
    saved
}

/// The conspiring forward, and the gradients that follow from it, as stored.
fn laundered(inputs: &Inputs, arithmetic: &Arithmetic, below: Below, share: f64) -> Outputs {
    let mut answer = conspiring(inputs, arithmetic, below, share);
    for (field, values) in oracle::backward(inputs, &answer, None).outputs.iter() {
        let stored = arithmetic.stored(field);
        answer.set(field, values.mapv(|value| stored.round(value)));
    }
    answer
}

fn of(comparisons: &[Comparison], field: Field) -> &Comparison {
    comparisons.iter().find(|comparison| comparison.field == field).unwrap()
}

/// For each gradient the smallest share, in tenths, at which it is suspect for its distance from the oracle's own, and its
/// largest error at all of the budgets, over its largest element.
fn seen(dtype: Dtype, below: Below) -> Vec<(Field, Option<u32>, f64)> {
    let inputs = inputs(dtype);
    let arithmetic = tiled::arithmetic(dtype);
    let gradients = Field::ALL.into_iter().filter(|field| field.is_gradient());
    let mut seen: Vec<(Field, Option<u32>, f64)> = gradients.map(|field| (field, None, 0.0)).collect();
    let exact = oracle::attend(&inputs);
    for share in 1..=10 {
        let answer = laundered(&inputs, &arithmetic, below, f64::from(share) / 10.0);
        let comparisons = judge(&inputs, &arithmetic, &answer);
        for (field, first, error) in &mut seen {
            let comparison = of(&comparisons, *field);
            let far = comparison.unconditional.as_ref();
            assert_eq!(comparison.failed, 0, "{dtype} {field}: a laundered gradient never fails");
            assert_eq!(
                comparison.suspect,
                far.map_or(0, |far| far.elements),
                "{dtype} {field}: the first look sees nothing"
            );
            *first = first.or(far.map(|_| share));
            let [exact, found] = [&exact, &answer].map(|outputs| outputs.get(*field).unwrap());
            let size = exact.iter().fold(0.0f64, |size, value| size.max(value.abs()));
            *error =
                exact.iter().zip(found).fold(0.0f64, |error, (exact, found)| error.max((exact - found).abs())) / size;
        }
    }
    seen
}

#[test]
fn a_conspiracy_of_forward_and_gradients_is_suspect() {
    for below in [Below::Rigorous, Below::Likely] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            for (field, share, error) in seen(dtype, below) {
                println!(
                    "{below:?} {dtype} {field}: suspect from {share:?} tenths on; all of it is {error:.2e} of the largest"
                );
                // dv takes nothing of `out`, and `lse` is f32: what it could launder is far below its own rounding.
                let limit = if dtype == Dtype::F32 { 9 } else { 4 };
                assert!(
                    field == Field::Dv || share.is_some_and(|share| share <= limit),
                    "{below:?} {dtype} {field}: {share:?}"
                );
            }
        }
    }
}

#[test]
fn the_message_names_both_distances() {
    let dtype = Dtype::Bf16;
    let (inputs, arithmetic) = (inputs(dtype), tiled::arithmetic(dtype));
    let comparisons = judge(&inputs, &arithmetic, &laundered(&inputs, &arithmetic, Below::Likely, 0.99));
    let Verdict::Suspect(message) = verdict(&comparisons) else { panic!("{:?}", verdict(&comparisons)) };
    for part in
        ["follows from the candidate's own out and lse, at a distance of", "from the exact ones, at a distance of"]
    {
        assert!(message.contains(part), "{message}");
    }
    let dk = of(&comparisons, Field::Dk);
    let far = dk.unconditional.as_ref().unwrap();
    assert_eq!(far.elements, dk.suspect);
    assert!(far.worst.given_saved.error <= far.worst.given_saved.likely && far.worst.own.error > far.worst.own.likely);
    // The rigorous budget allows for it: that is why it is no failure.
    let forward = oracle::forward(&inputs, Some(&arithmetic));
    let own = oracle::backward_near(&inputs, &forward.outputs, &forward.bounds.unwrap(), &arithmetic);
    let rigorous = own.bounds.unwrap().rigorous;
    assert!(far.worst.own.error <= rigorous.get(Field::Dk).unwrap()[far.worst.index.as_slice()]);
    assert_eq!(far.worst.own.expected, own.outputs.get(Field::Dk).unwrap()[far.worst.index.as_slice()]);
}

#[test]
fn a_right_candidate_is_not_suspect() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let inputs = inputs(dtype);
        let comparisons = judge(&inputs, &tiled::arithmetic(dtype), &tiled::attend(&inputs));
        assert_eq!(verdict(&comparisons), Verdict::Pass, "{dtype}");
    }
}
