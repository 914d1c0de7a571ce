//! What the comparison of a field says of its elements: which fail, as what, which is named, and what is counted.

use ndarray::{Array3, ArrayD};
use nsa_corpus::{Dtype, Field};
use nsa_harness::judge::expected::Expected;
use nsa_harness::judge::field::{Comparison, compare};
use nsa_harness::judge::overflow::Overflow;
use nsa_harness::judge::verdict;
use nsa_harness::judge::verdict::{Class, Failure, NotJudged, Verdict};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// One row of elements, each `[expected, found, tier B, tier H]`.
fn compared(field: Field, stored: Dtype, elements: &[[f64; 4]]) -> Comparison {
    reached(field, stored, elements, None)
}

/// The same, with the elements that `0 * NaN` can reach.
fn reached(field: Field, stored: Dtype, elements: &[[f64; 4]], reached: Option<&[bool]>) -> Comparison {
    let reached = reached.map(|flags| Array3::from_shape_vec((1, 1, flags.len()), flags.to_vec()).unwrap().into_dyn());
    let tensor = |column: usize| -> ArrayD<f64> {
        let values = elements.iter().map(|dtype| dtype[column]).collect();
        Array3::from_shape_vec((1, 1, elements.len()), values).unwrap().into_dyn()
    };
    let [values, found, rigorous, likely] = [0, 1, 2, 3].map(tensor);
    let expected = Expected {
        values: &values,
        rigorous: &rigorous,
        likely: &likely,
        stored,
        overflow: Overflow::Nowhere,
        reached: reached.as_ref(),
    };
    compare(field, Some(&found), &expected)
}

fn lse(elements: &[[f64; 4]]) -> Comparison {
    compared(Field::Lse, Dtype::F16, elements)
}

/// The class of the failure and the token that it names.
fn failure(comparison: &Comparison) -> Option<(Class, String)> {
    let Failure { class, message, .. } = comparison.failure.clone()?;
    let position = message.split(':').next().unwrap();
    Some((class, position.rsplit("token ").next().unwrap().to_owned()))
}

fn over(token: usize) -> Option<(Class, String)> {
    Some((Class::OverBudget, token.to_string()))
}

fn non_finite(token: usize) -> Option<(Class, String)> {
    Some((Class::NonFinite, token.to_string()))
}

/// An element whose error is `ratio` times its budget.
fn off(ratio: f64) -> [f64; 4] {
    [4.0, 4.0 + ratio, 1.0, 0.5]
}

#[test]
fn every_element_is_counted_in_its_class() {
    let not_judged = [1.0, 7.0, INF, INF];
    let all = lse(&[off(0.25), off(0.75), off(0.75), not_judged, not_judged, off(2.0), [1.0, NAN, 1.0, 0.5]]);
    assert_eq!((all.elements, all.suspect, all.not_judged, all.failed, all.excused), (7, 2, 2, 2, 0));
    assert_eq!((all.budget_use.judged, all.budget_use.exact, all.budget_use.excluded), (5, 0, 2));
}

#[test]
fn every_element_without_a_finite_budget_is_counted_whatever_was_found_there() {
    let all = lse(&[[1.0, 1.0, INF, INF], [1.0, 7.0, INF, INF], [1.0, NAN, INF, INF], [NAN, NAN, INF, INF], off(0.25)]);
    assert_eq!((all.not_judged, all.failed, all.elements), (3, 1, 5));
    assert_eq!(failure(&all), non_finite(2), "NaN is wrong where nothing is promised, too");
}

#[test]
fn only_nan_that_can_be_reached_is_excused() {
    let elements = [[1.0, NAN, 1.0, 1.0], [2.0, NAN, 1.0, 1.0], [-INF, NAN, 0.0, 0.0]];
    // A row without keys has lse -inf whatever it touches.
    let count = |flags: &[bool]| {
        let found = reached(Field::Lse, Dtype::F16, &elements, Some(flags));
        (found.excused, found.failed)
    };
    assert_eq!((count(&[true; 3]), count(&[false; 3])), ((2, 1), (0, 3)));
    assert_eq!(count(&[true, false, true]), (1, 2));
    let other = [[1.0, INF, 1.0, 1.0], [NAN, 1.0, 1.0, 1.0], [1.0, 7.0, 1.0, 1.0], [-INF, INF, 0.0, 0.0]];
    let found = reached(Field::Lse, Dtype::F16, &other, Some(&[true; 4]));
    assert_eq!((found.excused, found.failed), (0, 4));
    let excused = reached(Field::Lse, Dtype::F16, &elements[..1], Some(&[true]));
    assert!(matches!(verdict(&[excused]), Verdict::Inconclusive(message) if message.contains("lse is NaN in 1 of 1")));
}

#[test]
fn a_field_that_could_not_have_failed_says_nothing() {
    let why = |elements: &[[f64; 4]]| lse(elements).inconclusive();
    let (not_judged, loose, tight) = ([1.0, 1.0, INF, INF], [1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 0.1, 0.1]);
    assert_eq!(why(&[not_judged; 3]), Some(NotJudged::Excluded));
    assert_eq!(why(&[loose, loose, tight]), Some(NotJudged::AboveSignal));
    assert_eq!(why(&[not_judged, loose, tight]), Some(NotJudged::AboveSignal));
    assert_eq!(why(&[loose, tight]), None, "half of it is seen");
    // Zeros that have to be zeros can fail, and so can what has to be infinite.
    assert_eq!(why(&[[0.0, 0.0, 0.0, 0.0]; 3]), None);
    assert_eq!(why(&[[-INF, -INF, 0.0, 0.0], [NAN, NAN, 0.0, 0.0]]), None);
    // Beside numbers that are not seen, zeros do not make up for them.
    assert_eq!(why(&[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.1], loose]), Some(NotJudged::AboveSignal));
    assert_eq!(why(&[]), Some(NotJudged::Empty));
    assert_eq!(why(&[[1.0, NAN, 2.0, 2.0]]), None, "what failed is judged");
    let says = |fields: &[Comparison]| verdict(fields);
    let Verdict::Inconclusive(message) = says(&[lse(&[not_judged]), lse(&[loose])]) else { panic!("it passed") };
    assert!(message.contains("lse: the declared arithmetic promises nothing of it"), "{message}");
    assert_eq!(says(&[lse(&[not_judged]), lse(&[tight])]), Verdict::Pass, "one field is seen");
}

#[test]
fn the_worst_element_is_the_one_with_the_largest_error_over_its_own_budget() {
    let worst = |elements: &[[f64; 4]]| lse(elements).worst.map(|worst| (worst.index[2], worst.ratio));
    // The largest error is not the largest ratio.
    let cases = [off(0.25), [10.0, 10.375, 0.5, 0.5], off(0.5), [10.0, 14.0, 16.0, 16.0]];
    assert_eq!(worst(&cases), Some((1, 0.75)));
    let found = lse(&cases).worst.unwrap();
    assert_eq!((found.expected, found.found, found.error, found.budget), (10.0, 10.375, 0.375, 0.5));
    assert_eq!(worst(&[off(0.5), off(0.5)]), Some((0, 0.5)), "the first of two alike");
    assert_eq!(worst(&[off(3.0), [1.0, NAN, 1.0, 1.0], off(4.0)]), Some((1, INF)), "NaN is worse than any error");
}

#[test]
fn what_is_right_has_no_worst_element() {
    let fine = [
        [1.0, 1.0, 0.0, 0.0],
        [INF, INF, 1.0, 1.0],
        // Which value that is not finite may differ; 65519 with a budget of 10 may overflow f16.
        [INF, -INF, 1.0, 1.0],
        [NAN, INF, 1.0, 1.0],
        [65_519.0, INF, 10.0, 10.0],
    ];
    for dtype in fine {
        let comparison = lse(&[dtype]);
        assert_eq!((comparison.worst.clone(), comparison.failed, comparison.suspect), (None, 0, 0), "{dtype:?}");
        assert_eq!(comparison.budget_use.exact, u64::from(dtype[0] == 1.0), "{dtype:?}");
        assert_eq!(comparison.budget_use.judged, u64::from(dtype[0] == 1.0), "{dtype:?}");
    }
    assert_eq!(lse(&[[1.0, 100.0, INF, INF]]).worst, None, "nothing was promised");
}

#[test]
fn the_worst_of_a_class_is_named_and_a_number_that_is_not_finite_outranks_an_error() {
    assert_eq!(failure(&lse(&[off(2.0), off(5.0), off(3.0)])), over(1));
    assert_eq!(failure(&lse(&[off(5.0), off(5.0)])), over(0));
    let nan = [1.0, NAN, 1.0, 1.0];
    assert_eq!(failure(&lse(&[off(2.0), nan, off(3.0), nan])), non_finite(1));
    assert_eq!(failure(&lse(&[nan, off(9.0)])), non_finite(0));
    assert_eq!(lse(&[off(2.0), nan, off(3.0), nan]).failed, 4);
    // An element within its budget outranks nothing.
    assert_eq!(failure(&lse(&[off(0.75), off(1.5)])), over(1));
}

#[test]
fn budgets_are_limits_that_belong_to_them() {
    let class = |dtype| lse(&[dtype]).failure.map(|failure| failure.class);
    assert_eq!(class([1.0, 2.0, 1.0, 0.5]), None);
    assert_eq!(class([2.0, 1.0, 1.0, 0.5]), None);
    assert_eq!(class([1.0, 2.0 + 1e-15, 1.0, 0.5]), Some(Class::OverBudget));
    assert_eq!(class([-1.0, 1.0, 1.0, 0.5]), Some(Class::OverBudget));
    assert_eq!(class([1.0, 1.0 + 1e-15, NAN, NAN]), Some(Class::OverBudget), "no budget is not a wide one");
    assert_eq!(lse(&[[1.0, 1.5, 1.0, 0.5], [1.0, 1.5 + 1e-15, 1.0, 0.5]]).suspect, 1);
}

#[test]
fn an_overflow_is_right_where_the_budget_reaches_the_number_that_rounds_to_it() {
    // f16 rounds to infinity from 65520 on; 65504 (1 + 2^-12) = 65519.99 stands for it.
    let class = |expected: f64, found: f64, budget: f64| {
        lse(&[[expected, found, budget, budget]]).failure.map(|failure| failure.class)
    };
    assert_eq!(class(65_519.0, INF, 1.0), None);
    assert_eq!(class(-65_519.0, -INF, 1.0), None);
    // A budget beyond the format on the other side of 0 allows that side's infinity as well.
    assert_eq!(class(0.0, -INF, 70_000.0), None);
    assert_eq!(class(-4_000.0, INF, 70_000.0), None);
    for (expected, found, budget) in [
        (65_519.0, INF, 0.9),
        (65_510.0, INF, 0.1),
        (65_519.0, NAN, 10.0),
        (65_519.0, -INF, 10.0),
        (-5_000.0, INF, 70_000.0),
    ] {
        assert_eq!(class(expected, found, budget), Some(Class::NonFinite), "{expected} {found} {budget}");
    }
}

#[test]
fn a_row_without_keys_is_held_to_its_lse_alone() {
    for (field, class) in
        [(Field::Lse, Some(Class::NonFinite)), (Field::SlidingLse, Some(Class::NonFinite)), (Field::Out, None)]
    {
        for found in [NAN, INF] {
            let comparison = compared(field, Dtype::F32, &[[-INF, found, 0.0, 0.0]]);
            assert_eq!(comparison.failure.map(|failure| failure.class), class, "{field} {found}");
        }
        assert_eq!(compared(field, Dtype::F32, &[[-INF, -INF, 0.0, 0.0]]).failure, None);
    }
    // Infinity is no such row.
    assert_eq!(lse(&[[INF, NAN, 0.0, 0.0]]).failure, None);
}

#[test]
fn a_failure_names_the_place_and_both_values() {
    let message = lse(&[off(0.25), [1.0, 3.0, 0.5, 0.5]]).failure.unwrap().message;
    assert_eq!(
        message,
        "lse at batch 0, q_head 0, token 1: expected 1e0, found 3e0, error 2.000e0, budget 5.000e-1 (error / budget 4.000)"
    );
}

#[test]
fn the_verdict_is_the_first_failure_else_whether_anything_is_suspect() {
    let (fine, suspect, wrong) = (lse(&[off(0.25)]), lse(&[off(0.25), off(0.75)]), lse(&[off(2.0)]));
    let nan = lse(&[[1.0, NAN, 1.0, 1.0]]);
    assert_eq!(verdict(&[]), Verdict::Inconclusive("no field was judged".into()));
    assert_eq!(verdict(std::slice::from_ref(&fine)), Verdict::Pass);
    let Verdict::Suspect(detail) = verdict(&[fine.clone(), suspect.clone()]) else { panic!("not suspect") };
    assert!(detail.starts_with("1 of 2 elements; lse at batch 0, q_head 0, token 1: "), "{detail}");
    let found = verdict(&[suspect, wrong.clone(), nan]);
    assert_eq!(found.failure(), wrong.failure.as_ref());
    assert_eq!(found.failure().map(|failure| failure.class), Some(Class::OverBudget));
    assert_eq!(verdict(&[fine]).failure(), None);
}

/// Zeros would pass each of these, so a pass would say nothing.
#[test]
fn a_case_that_zeros_pass_is_inconclusive_and_zeros_alone_carry_no_other_field() {
    let hidden = lse(&[[1.0, 1.0, 1.3, 1.3], [0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 1.9, 1.9], [1.0, 1.0, 1.0, 1.0]]);
    assert_eq!(hidden.inconclusive(), Some(NotJudged::AboveSignal));
    let zero = compared(Field::Out, Dtype::F16, &[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.1, 0.1]]);
    assert_eq!((zero.inconclusive(), zero.all_zero()), (None, true));
    assert_eq!(verdict(std::slice::from_ref(&zero)), Verdict::Pass, "all that is asked for is 0, and it could fail");
    for comparisons in [vec![hidden.clone()], vec![zero.clone(), hidden.clone()]] {
        let Verdict::Inconclusive(message) = verdict(&comparisons) else { panic!("{comparisons:?}") };
        assert!(message.contains("lse: its budgets are above its values: 0 would pass"), "{message}");
        assert_eq!(message.contains("out: its right values are all 0"), comparisons.len() == 2, "{message}");
    }
    assert_eq!(verdict(&[zero, hidden, lse(&[off(0.25)])]), Verdict::Pass, "one field that shows what it is");
}

#[test]
fn verdicts_have_the_words_that_reports_use() {
    let class = Failure::new(Class::OutOfBounds, None, "a byte".into());
    let text = |text: &str| text.to_owned();
    for (verdict, word, words) in [
        (Verdict::Pass, "pass", "pass"),
        (Verdict::Suspect(text("2 of 3")), "suspect", "suspect: 2 of 3"),
        (Verdict::Fail(class), "fail", "fail: out of bounds: a byte"),
        (Verdict::Skip(text("f64")), "skip", "skip: f64"),
        (Verdict::Inconclusive(text("no device")), "inconclusive", "inconclusive: no device"),
    ] {
        assert_eq!((verdict.word(), verdict.to_string().as_str()), (word, words));
    }
}
