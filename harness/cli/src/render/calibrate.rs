//! What `calibrate` found, as text.

use nsa_corpus::{Dot, foreign};
use nsa_harness::calibrate::units;
use nsa_harness::campaign::calibration::{Found, Skipped};
use nsa_harness::document::Calibrate;

use crate::output::table;

const HEAD: [&str; 7] = ["sum", "dtype", "declared", "added at once", "kept beside 1", "error found", "verdict"];

/// As text.
pub(crate) fn text(document: &Calibrate) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows.extend(document.results.iter().map(row));
    rows.extend(document.skipped.iter().map(unmeasured));
    table(&rows)
}

fn unmeasured(skipped: &Skipped) -> Vec<String> {
    let mut row = vec![String::new(); HEAD.len()];
    (row[0], row[1]) = (skipped.sum.name().to_owned(), skipped.dtype.to_string());
    row[HEAD.len() - 1] = format!("not measured: {}", foreign::line(&skipped.reason));
    row
}

fn row(found: &Found) -> Vec<String> {
    let (measured, refuted) = (&found.measured, found.refuted);
    let verdict = match (found.looser, found.tiles) {
        _ if refuted => "REFUTED: a larger error than is declared".to_owned(),
        (Some(bits), _) => format!("LOOSE: sums keep 2^{bits} times more than is declared"),
        (None, Some(tiles)) if !matches!(measured.declared, Dot::Fma { .. }) => {
            format!("covered; found {}", described(tiles))
        }
        _ => "covered".to_owned(),
    };
    vec![
        measured.sum.name().to_owned(),
        measured.dtype.to_string(),
        described(measured.declared),
        measured.together.to_string(),
        measured.kept.map_or_else(|| "everything".to_owned(), |depth| format!("2^-{depth}")),
        format!("{:.1} u", measured.attained_units),
        verdict,
    ]
}

/// A dot product's arithmetic in words, with its constant.
fn described(dot: Dot) -> String {
    let units = units(dot);
    match dot {
        Dot::Fma { .. } => format!("one by one: {units:.1} u"),
        Dot::Blocks { block, extra_bits } => format!("tiles of {block}, {extra_bits} extra bits: {units:.0} u"),
        Dot::Tf32 { extra_bits } => format!("tf32, {extra_bits} extra bits: {units:.0} u"),
    }
}
