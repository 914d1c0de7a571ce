//! The gradient checker on the transcription: it passes what is right, under every option, and refuses what is not.

mod common;

use common::{Draw, problem};
use ndarray::{Array1, Array2, Array4, ArrayD, IxDyn, arr1};
use nsa_corpus::{Cotangents, Dtype, Field, InputParts, Inputs};
use nsa_reference::gradcheck::{self, Problem, Report, Settings, Variable, Verdict};
use nsa_reference::regular_attend::attend;
use nsa_reference::tiled;

fn check(inputs: &Inputs, settings: &Settings) -> Report {
    let claimed = attend::<f64>(inputs);
    gradcheck::attention(inputs, attend::<f64>, &claimed).unwrap().check(settings)
}

#[test]
fn the_adjoint_passes_on_the_transcription_itself() {
    let mut checked = 0;
    for seed in 0..60 {
        let inputs = problem(seed, Dtype::F64);
        if inputs.cotangents().any() && inputs.q().len() <= 40 {
            let report = check(&inputs, &Settings::default());
            assert_eq!(report.verdict, Verdict::Pass, "problem {seed}: {report}");
            checked += report.checks;
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn the_adjoint_passes_on_generated_problems() {
    // The loss comes from the tiled candidate in f64, which is quicker, and a witness of its own.
    let mut checked = 0;
    for seed in 0..150 {
        let inputs = problem(seed, Dtype::F64);
        if inputs.cotangents().any() {
            let claimed = attend::<f64>(&inputs);
            let report = gradcheck::attention(&inputs, tiled::attend, &claimed).unwrap().check(&Settings::default());
            assert_eq!(report.verdict, Verdict::Pass, "problem {seed}: {report}");
            checked += report.checks;
        }
    }
    assert!(checked > 10_000, "{checked}");
}

/// A problem of fixed sizes with every one of 2^6 combinations of options.
fn with_options(options: usize) -> Inputs {
    let mut draw = Draw::new(100 + options as u64);
    let on = |bit: usize| options >> bit & 1 == 1;
    let (sel_heads, window) = (if on(0) { 4 } else { 2 }, on(1).then_some(2));
    let slots = (1, sel_heads, 7, 2);
    let rows = (1, 4, 7, 2);
    Inputs::new(InputParts {
        block_size: 3,
        include_block_causal: on(2),
        sliding_window: window,
        dtype: Dtype::F64,
        q: draw.tensor((1, 4, 7, 3), 1.0),
        k: draw.tensor((1, 2, 7, 3), 1.0),
        v: draw.tensor((1, 2, 7, 2), 1.0),
        indices: Array4::from_shape_simple_fn(slots, || draw.below(3) as i64),
        mask: Array4::from_shape_simple_fn(slots, || draw.chance(60)),
        sel_scale: on(3).then(|| draw.tensor(slots, 1.0)),
        cotangents: Cotangents {
            d_out: on(4).then(|| draw.tensor(rows, 1.0)),
            d_lse: on(5).then(|| draw.tensor((1, 4, 7), 1.0)),
            d_sliding: (on(1) && (!on(4) || !on(5))).then(|| draw.tensor(rows, 1.0)),
        },
    })
    .unwrap()
}

#[test]
fn the_adjoint_passes_under_every_combination_of_options_and_mutations_of_1e_6_are_seen() {
    let mut combinations = 0;
    for options in 0..64 {
        let inputs = with_options(options);
        if inputs.cotangents().any() {
            let claimed = attend::<f64>(&inputs);
            let problem = gradcheck::attention(&inputs, tiled::attend, &claimed).unwrap();
            let report = problem.check(&Settings::default());
            assert_eq!(report.verdict, Verdict::Pass, "options {options:#b}: {report}");
            problem.assert_detects(&Settings::default());
            combinations += 1;
        }
    }
    assert_eq!(combinations, 56);
}

#[test]
fn a_wrong_element_is_named() {
    let inputs = with_options(0b111110);
    let mut claimed = attend::<f64>(&inputs);
    claimed.get_mut(Field::Dk).unwrap()[IxDyn(&[0, 1, 4, 2])] += 1e-5;
    let problem = gradcheck::attention(&inputs, attend::<f64>, &claimed).unwrap();
    let report = problem.check(&Settings::default());
    assert_eq!(report.verdict, Verdict::Fail);
    assert_eq!(report.failures.len(), 1, "{report}");
    assert_eq!(report.failures[0].variable, "k");
    assert_eq!(report.failures[0].element(), Some(vec![0, 1, 4, 2]));
}

#[test]
fn a_failing_direction_is_explained_by_the_element() {
    let inputs = with_options(0b111110);
    let mut claimed = attend::<f64>(&inputs);
    claimed.get_mut(Field::Dv).unwrap()[IxDyn(&[0, 0, 5, 1])] *= 1.01;
    let problem = gradcheck::attention(&inputs, attend::<f64>, &claimed).unwrap();
    let report = problem.check_directions(&Settings::default());
    assert_eq!(report.verdict, Verdict::Fail);
    let worst = report.worst.as_ref().unwrap();
    assert_eq!(worst.variable, "v");
    assert_eq!(worst.culprit.as_ref().unwrap().element(), Some(vec![0, 0, 5, 1]), "{report}");
}

#[test]
fn directions_pass_on_a_problem_too_large_for_elements_and_see_mutations() {
    let mut draw = Draw::new(5);
    let slots = (2, 2, 40, 2);
    let inputs = Inputs::new(InputParts {
        block_size: 8,
        include_block_causal: true,
        sliding_window: None,
        dtype: Dtype::F64,
        q: draw.tensor((2, 4, 40, 8), 1.0),
        k: draw.tensor((2, 2, 40, 8), 1.0),
        v: draw.tensor((2, 2, 40, 8), 1.0),
        indices: Array4::from_shape_simple_fn(slots, || draw.below(5) as i64),
        mask: Array4::from_shape_simple_fn(slots, || draw.chance(60)),
        sel_scale: Some(draw.tensor(slots, 1.0)),
        cotangents: Cotangents { d_out: Some(draw.tensor((2, 4, 40, 8), 1.0)), ..Cotangents::default() },
    })
    .unwrap();
    let settings = Settings { directions: 6, ..Settings::default() };
    let claimed = attend::<f64>(&inputs);
    let problem = gradcheck::attention(&inputs, attend::<f64>, &claimed).unwrap();
    let report = problem.check(&settings);
    assert_eq!((report.verdict, report.checks), (Verdict::Pass, 24), "{report}");
    problem.assert_detects(&settings);
}

#[test]
fn large_logits_and_large_offsets_neither_fail_nor_go_unseen() {
    // With q and k of 1e-3, sel_scale's gradients are 1e-9 of the loss: its last bits leave 5 digits of them.
    for (factor, offset, relative) in [(8.0, 0.0, 1e-6), (1e-3, 0.0, 1e-5), (0.05, 100.0, 1e-6)] {
        let mut parts = with_options(0b111110).into_parts();
        parts.q.mapv_inplace(|q| q * factor + offset);
        parts.k.mapv_inplace(|k| k * factor);
        let inputs = Inputs::new(parts).unwrap();
        let report = check(&inputs, &Settings { relative, ..Settings::default() });
        assert_eq!(report.verdict, Verdict::Pass, "factor {factor} offset {offset}: {report}");
    }
}

fn square(gradient: Array1<f64>) -> Problem<'static> {
    let variable = Variable::new("x", arr1(&[1.0, 2.0, 3.0]), gradient).unwrap();
    Problem::new(|x: &[ArrayD<f64>]| x[0].mapv(|x| x * x).sum(), vec![variable])
}

#[test]
fn a_claim_that_is_not_finite_fails() {
    let report = square(arr1(&[2.0, f64::NAN, 6.0])).check(&Settings::default());
    assert_eq!(report.verdict, Verdict::Fail);
    assert_eq!(report.failures[0].element(), Some(vec![1]));
    let infinite = square(arr1(&[2.0, 4.0, f64::INFINITY])).check(&Settings::default());
    assert_eq!(infinite.failures[0].element(), Some(vec![2]));
}

#[test]
fn a_loss_that_is_not_finite_is_ambiguous_not_passed() {
    let variable = Variable::new("x", arr1(&[1.0]), arr1(&[0.0])).unwrap();
    let report = Problem::new(|_: &[ArrayD<f64>]| f64::NAN, vec![variable]).check(&Settings::default());
    assert_eq!(report.verdict, Verdict::Ambiguous);
    assert!(report.to_string().contains("the loss is not finite"), "{report}");
}

#[test]
fn a_loss_too_rough_to_tell_is_ambiguous() {
    let variable = Variable::new("x", arr1(&[0.7]), arr1(&[0.7f64.cos()])).unwrap();
    let rough = |x: &[ArrayD<f64>]| x[0][0].sin() + 1e-5 * (x[0][0] * 1e12).sin();
    let report = Problem::new(rough, vec![variable]).check(&Settings::default());
    assert_eq!(report.verdict, Verdict::Ambiguous, "{report}");
}

#[test]
fn zeros_a_sign_and_a_transposition_fail() {
    let x = Array2::from_shape_fn((3, 3), |(i, j)| (1 + i + 2 * j) as f64);
    let right = x.mapv(|x| 3.0 * x * x);
    let wrong = [Array2::zeros((3, 3)), -&right, right.t().to_owned()];
    let verdict = |claim: Array2<f64>| {
        let variable = Variable::new("x", x.clone(), claim).unwrap();
        Problem::new(|x: &[ArrayD<f64>]| x[0].mapv(|x| x * x * x).sum(), vec![variable])
            .check(&Settings::default())
            .verdict
    };
    assert_eq!(verdict(right), Verdict::Pass);
    for claim in wrong {
        assert_eq!(verdict(claim), Verdict::Fail);
    }
}

#[test]
fn a_gradient_of_zero_passes_and_a_mutated_one_is_seen() {
    // Only the first tensor is read.
    let variables = vec![
        Variable::new("read", arr1(&[0.5, 0.25]), arr1(&[1.0, 0.5])).unwrap(),
        Variable::new("unread", arr1(&[1.0, 2.0]), arr1(&[0.0, 0.0])).unwrap(),
    ];
    let problem = Problem::new(|x: &[ArrayD<f64>]| x[0].mapv(|x| x * x).sum(), variables);
    assert_eq!(problem.check(&Settings::default()).verdict, Verdict::Pass);
    problem.assert_detects(&Settings::default());
}

#[test]
#[should_panic(expected = "planted faults are not seen")]
fn a_check_too_coarse_for_its_mutation_is_found_out() {
    let variable = Variable::new("x", arr1(&[0.7]), arr1(&[0.7f64.cos()])).unwrap();
    let rough = |x: &[ArrayD<f64>]| x[0][0].sin() + 1e-5 * (x[0][0] * 1e12).sin();
    Problem::new(rough, vec![variable]).assert_detects(&Settings::default());
}

#[test]
fn shapes_that_disagree_are_refused_by_name() {
    let error = Variable::new("x", arr1(&[1.0]), arr1(&[1.0, 2.0])).unwrap_err();
    assert_eq!(error.to_string(), "x has shape [1] and its gradient [2]");
}

#[test]
fn the_rounding_that_cancelling_terms_leave_behind_is_no_failure() {
    let claim = |left_over: f64| {
        let variables = vec![
            Variable::new("read", arr1(&[0.5]), arr1(&[1.0])).unwrap(),
            Variable::new("unread", arr1(&[1.0]), arr1(&[left_over])).unwrap(),
        ];
        Problem::new(|x: &[ArrayD<f64>]| x[0].mapv(|x| x * x).sum(), variables).check(&Settings::default()).verdict
    };
    assert_eq!(claim(5e-16), Verdict::Pass);
    assert_eq!(claim(5e-12), Verdict::Fail);
}
