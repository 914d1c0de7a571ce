//! What `bench` measured, as text.

use nsa_harness::bench::{Speed, Timed};
use nsa_harness::document::Benchmarks;

use crate::output::table;

const HEAD: [&str; 9] =
    ["shape", "dtype", "forward ms", "min", "TFLOP/s", "forward+backward ms", "min", "TFLOP/s", "checked"];

/// As text.
pub(crate) fn text(document: &Benchmarks) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(document.results.iter().map(row));
    table(&rows)
}

fn row(timed: &Timed) -> Vec<String> {
    let speed =
        |speed: Speed| [format!("{:.4}", speed.ms), format!("{:.4}", speed.ms_min), format!("{:.1}", speed.tflops)];
    let checked = timed.checked.as_ref().map(|checked| format!("{} ({})", checked.verdict, checked.what));
    let mut row = vec![timed.shape.clone(), timed.dtype.to_string()];
    row.extend(speed(timed.forward));
    row.extend(speed(timed.both));
    row.push(checked.unwrap_or_else(|| "no".to_owned()));
    row
}
