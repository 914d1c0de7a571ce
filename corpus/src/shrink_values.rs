//! Plainer values of a case whose sizes and options stay: plainer distributions first, then single elements, by overrides,
//! to 0, ±1 and powers of two.

use std::collections::HashSet;

use ndarray::{ArrayD, Dimension};

use crate::{Case, Override, Selection, Tensor, Values};

/// Tensors of more elements than this are not taken apart: their sizes have to shrink first.
const ELEMENTS_MAX: usize = 2048;

/// Cases with one distribution replaced by a plainer one.
pub(crate) fn distributions(case: &Case) -> Vec<Case> {
    let mut found = Vec::new();
    let plain = [Selection::Fixed { block: 0 }, Selection::Own {}, Selection::Past {}];
    for selection in plain.into_iter().filter(|plain| selection_rank(plain) < selection_rank(&case.selection)) {
        found.push(Case { selection, ..case.clone() });
    }
    let plain = [
        Values::zeros(),
        Values::ones(),
        Values::OneHot { value: 1.0 },
        Values::Integers { limit: 1 },
        Values::normal(),
    ];
    for (tensor, values) in case.values() {
        for plainer in plain.iter().filter(|plain| rank(plain) < rank(values)) {
            let mut simpler = case.clone();
            *simpler.values_mut(tensor).expect("the case has it") = plainer.clone();
            found.push(simpler);
        }
    }
    found
}

/// Cases with one element plainer, or one override less where that makes nothing less plain.
pub(crate) fn elements(case: Case) -> impl Iterator<Item = Case> {
    let tensors: Vec<(Tensor, ArrayD<f64>)> =
        Tensor::ALL.into_iter().filter_map(|tensor| Some((tensor, numbers(&case, tensor)?))).collect();
    let source = case.clone();
    let fewer = (0..case.overrides.len()).filter_map(move |at| without(&source, at));
    let plainer = tensors.into_iter().flat_map(move |(tensor, values)| {
        let case = case.clone();
        changes(tensor, &values).into_iter().map(move |change| with(&case, change))
    });
    fewer.chain(plainer)
}

/// Sets of elements to make plainer together: the whole tensor, halves, quarters, and so on to single elements. Most
/// elements of a failing case do not matter, and go in a few large steps.
fn changes(tensor: Tensor, values: &ArrayD<f64>) -> Vec<Vec<Override>> {
    let elements: Vec<(Vec<usize>, f64)> =
        values.indexed_iter().map(|(index, &value)| (index.slice().to_vec(), value)).collect();
    let mut found = Vec::new();
    let mut length = elements.len();
    while length > 1 {
        for part in elements.chunks(length) {
            for plain in [|_: f64| 0.0, power_below] {
                found.push(together(tensor, part, plain));
            }
        }
        length = length.div_ceil(2);
    }
    for (index, value) in &elements {
        let plain = plainer(tensor, *value);
        found.extend(plain.into_iter().map(|plain| vec![Override::new(tensor, index, plain)]));
    }
    found.retain(|set| !set.is_empty());
    found
}

/// The elements of `part` that `plain` makes plainer.
fn together(tensor: Tensor, part: &[(Vec<usize>, f64)], plain: impl Fn(f64) -> f64) -> Vec<Override> {
    let simpler = |value: f64| complexity(tensor, plain(value)) < complexity(tensor, value);
    // An index or a truth value has no power of two of its own to go to.
    let whole = |value: f64| !matches!(tensor, Tensor::Indices | Tensor::Mask) || plain(value) == 0.0;
    part.iter()
        .filter(|(_, value)| plain(*value).is_finite() && simpler(*value) && whole(*value))
        .map(|(index, value)| Override::new(tensor, index, plain(*value)))
        .collect()
}

/// The tensor as numbers, `true` as 1; `None` where the case has none or it cannot be drawn.
fn numbers(case: &Case, tensor: Tensor) -> Option<ArrayD<f64>> {
    let shape = case.check().ok()?;
    if tensor.shape(&shape).iter().product::<usize>() > ELEMENTS_MAX {
        return None;
    }
    match tensor {
        Tensor::Indices => Some(case.slots(&shape).ok()?.0.mapv(|block| block as f64).into_dyn()),
        Tensor::Mask => Some(case.slots(&shape).ok()?.1.mapv(|live| f64::from(u8::from(live))).into_dyn()),
        _ => case.fill(tensor, &shape).ok()?,
    }
}

fn with(case: &Case, changes: Vec<Override>) -> Case {
    let mut simpler = case.clone();
    let replaced: HashSet<_> = changes.iter().map(|change| (change.tensor, &change.index)).collect();
    simpler.overrides.retain(|other| !replaced.contains(&(other.tensor, &other.index)));
    simpler.overrides.extend(changes);
    simpler
}

/// The case without override number `at`, unless the element under it is less plain.
fn without(case: &Case, at: usize) -> Option<Case> {
    let mut simpler = case.clone();
    let Override { tensor, index, value } = simpler.overrides.remove(at);
    let shape = simpler.check().ok()?;
    let under = match tensor {
        Tensor::Indices => simpler.slots(&shape).ok()?.0.into_dyn()[index.as_slice()] as f64,
        Tensor::Mask => f64::from(u8::from(simpler.slots(&shape).ok()?.1.into_dyn()[index.as_slice()])),
        _ => simpler.fill::<ndarray::IxDyn>(tensor, &shape).ok()??[index.as_slice()],
    };
    (complexity(tensor, under) <= complexity(tensor, value)).then_some(simpler)
}

/// How far an element is from the plainest: 0, 1, -1, a power of two, any number, no number. Indices count as they are.
pub(crate) fn complexity(tensor: Tensor, value: f64) -> u64 {
    if matches!(tensor, Tensor::Indices | Tensor::Mask) {
        return value as u64;
    }
    match value {
        0.0 => 0,
        1.0 => 1,
        -1.0 => 2,
        _ if !value.is_finite() => 5,
        _ if power_below(value) == value => 3,
        _ => 4,
    }
}

/// The values that are plainer than `value`, plainest first.
fn plainer(tensor: Tensor, value: f64) -> Vec<f64> {
    let now = complexity(tensor, value);
    let mut plain = match tensor {
        Tensor::Indices => vec![0.0, (value / 2.0).floor(), value - 1.0],
        Tensor::Mask => vec![0.0],
        _ if value.is_nan() => vec![0.0, 1.0],
        _ => vec![0.0, 1.0, -1.0, power_below(value)],
    };
    plain.retain(|&plain| plain.is_finite() && plain >= 0.0 || tensor != Tensor::Indices);
    plain.retain(|&plain| plain.is_finite() && complexity(tensor, plain) < now);
    plain.dedup();
    plain
}

/// The power of two next to `value` towards zero, with its sign; 0 for a subnormal number.
fn power_below(value: f64) -> f64 {
    const SIGN_AND_EXPONENT: u64 = 0xfff0_0000_0000_0000;
    f64::from_bits(value.to_bits() & SIGN_AND_EXPONENT)
}

/// How plain a distribution is, 0 the plainest.
pub(crate) fn rank(values: &Values) -> usize {
    match values {
        Values::Zeros {} => 0,
        Values::Constant { value: 1.0 } => 1,
        Values::Constant { .. } => 2,
        Values::OneHot { value: 1.0 } => 3,
        Values::OneHot { .. } => 4,
        Values::Integers { limit: 1 } => 5,
        Values::Integers { .. } | Values::PowerGrid { .. } => 6,
        Values::Normal { scale: 1.0 } => 7,
        Values::Given(_) => 9,
        _ => 8,
    }
}

/// How plain a selection is, 0 the plainest.
pub(crate) fn selection_rank(selection: &Selection) -> usize {
    match selection {
        Selection::Fixed { block: 0 } => 0,
        Selection::Fixed { .. } => 1,
        Selection::Own {} => 2,
        Selection::Past {} => 3,
        Selection::Given(_) => 5,
        _ => 4,
    }
}
