//! What the wrong elements of a field have in common: for each axis the tightest property that all of them share and that
//! leaves others out.

use nsa_corpus::{Field, Inputs};

use super::residual::Residual;

/// A property of a position along one axis, in words, with whether it holds.
type Property<'a> = (&'static str, Box<dyn Fn(usize) -> bool + 'a>);

/// One line for each axis along which not everything is wrong.
pub(super) fn pattern(inputs: &Inputs, residual: &Residual<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (axis, name) in residual.field.axes().iter().enumerate() {
        let size = residual.shape[axis];
        let mut wrong = vec![false; size];
        residual.wrong.iter().for_each(|(index, _)| wrong[index[axis]] = true);
        lines.extend(along(inputs, residual.field, name, &wrong));
    }
    if residual.field == Field::DselScale {
        let mask = inputs.mask();
        let masked = residual.wrong.iter().all(|(at, _)| !mask[[at[0], at[1], at[2], at[3]]]);
        lines.extend(masked.then(|| "masked slots only".to_owned()));
    }
    lines
}

fn along(inputs: &Inputs, field: Field, axis: &str, wrong: &[bool]) -> Option<String> {
    let count = wrong.iter().filter(|wrong| **wrong).count();
    if count == wrong.len() {
        return None;
    }
    if count == 1 {
        let at = wrong.iter().position(|wrong| *wrong)?;
        let words = tightest(inputs, field, axis, wrong).map_or_else(String::new, |words| format!(" ({words})"));
        return Some(format!("{axis} {at} only{words}"));
    }
    let words = tightest(inputs, field, axis, wrong)?;
    let all = properties(inputs, field, axis).into_iter().find(|(name, _)| *name == words)?;
    let exact = wrong.iter().enumerate().all(|(at, wrong)| *wrong == (all.1)(at));
    Some(format!("{} {words}", if exact { "exactly the" } else { "only" }))
}

/// The property that holds for every wrong position and for the fewest others.
fn tightest(inputs: &Inputs, field: Field, axis: &str, wrong: &[bool]) -> Option<&'static str> {
    let holding = |holds: &dyn Fn(usize) -> bool| (0..wrong.len()).filter(|at| holds(*at)).count();
    properties(inputs, field, axis)
        .into_iter()
        .filter(|(_, holds)| wrong.iter().enumerate().all(|(at, wrong)| !wrong || holds(at)))
        .filter(|(_, holds)| holding(holds.as_ref()) < wrong.len())
        .min_by_key(|(_, holds)| holding(holds.as_ref()))
        .map(|(words, _)| words)
}

fn properties<'a>(inputs: &'a Inputs, field: Field, axis: &str) -> Vec<Property<'a>> {
    let shape = inputs.shape();
    let (n, block, groups) = (shape.seq_len(), shape.block_size(), shape.groups());
    match axis {
        "batch" => vec![("batch entries other than the first", Box::new(|b| b > 0))],
        "q_head" => vec![
            ("query heads that are the last of their group", Box::new(move |h| groups > 1 && h % groups == groups - 1)),
            ("query heads that are the first of their group", Box::new(move |h| groups > 1 && h % groups == 0)),
            ("query heads that are not the first of their group", Box::new(move |h| h % groups > 0)),
            ("query heads of the first kv head", Box::new(move |h| h < groups)),
            ("query heads of kv heads other than the first", Box::new(move |h| h >= groups)),
            ("query heads other than the first", Box::new(|h| h > 0)),
        ],
        "kv_head" | "sel_head" => vec![("heads other than the first", Box::new(|h| h > 0))],
        "token" | "key" => vec![
            ("the first token", Box::new(|i| i == 0)),
            ("the last token", Box::new(move |i| i + 1 == n)),
            ("first tokens of their blocks", Box::new(move |i| i % block == 0)),
            ("last tokens of their blocks", Box::new(move |i| i % block == block - 1)),
            ("tokens of the partial last block", Box::new(move |i| i >= n / block * block)),
            ("tokens of the first block", Box::new(move |i| i < block)),
            ("tokens beyond the last whole tile of 16", Box::new(move |i| i >= n / 16 * 16)),
            ("tokens of the last block", Box::new(move |i| i / block == (n - 1) / block)),
            ("tokens that are not the first of their blocks", Box::new(move |i| i % block > 0)),
            ("tokens that are not the last of their blocks", Box::new(move |i| i % block < block - 1)),
            ("tokens from 16 on", Box::new(|i| i >= 16)),
            ("tokens beyond the first block", Box::new(move |i| i >= block)),
            ("tokens other than the first", Box::new(|i| i > 0)),
            ("tokens other than the last", Box::new(move |i| i + 1 < n)),
        ],
        "slot" => vec![
            ("the first slot", Box::new(|s| s == 0)),
            ("the last slot", Box::new(move |s| s + 1 == shape.num_sel())),
            ("slots from 4 on", Box::new(|s| s >= 4)),
            ("slots of odd number", Box::new(|s| s % 2 == 1)),
        ],
        "feature" => {
            let width = *field.shape(shape).last().unwrap_or(&1);
            vec![
                ("the last feature", Box::new(move |d| d + 1 == width)),
                ("features beyond the last multiple of 8", Box::new(move |d| d >= width / 8 * 8)),
                ("features beyond the last multiple of 16", Box::new(move |d| d >= width / 16 * 16)),
            ]
        }
        _ => Vec::new(),
    }
}
