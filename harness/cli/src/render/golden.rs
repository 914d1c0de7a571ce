//! What `golden` found, as text.

use nsa_corpus::{Field, foreign};
use nsa_harness::campaign::golden::Tensor;
use nsa_harness::document::Golden;

use crate::output::{not_judged, table};

/// As text.
pub(crate) fn text(golden: &Golden) -> String {
    let mut rows = vec![["file", "tensor", "error", "limit", ""].map(str::to_owned).to_vec()];
    rows.extend(golden.tensors.iter().map(row));
    let mut text = table(&rows);
    golden.inconclusive.iter().for_each(|line| text.push_str(&format!("inconclusive {}\n", foreign::line(line))));
    golden.skipped.iter().for_each(|line| text.push_str(&format!("skipped {line}\n")));
    text.push_str(&format!(
        "{} files, {} tensors compared with {}, {} beyond their limit, {} inconclusive, {} files skipped, {} broken\n",
        golden.files,
        golden.tensors.len(),
        golden.candidate,
        golden.failed(),
        golden.inconclusive.len(),
        golden.skipped.len(),
        golden.broken.len()
    ));
    text + &not_judged(&golden.fields)
}

fn row(tensor: &Tensor) -> Vec<String> {
    let state = match (&tensor.detail, tensor.failed) {
        (Some(detail), _) => format!("FAIL {}", foreign::line(detail)),
        (None, true) => "FAIL".to_owned(),
        (None, false) => String::new(),
    };
    vec![
        foreign::line(&tensor.file),
        tensor.field.map_or("-", Field::name).to_owned(),
        format!("{:.2e}", tensor.error),
        format!("{:.0e}", tensor.limit),
        state,
    ]
}
