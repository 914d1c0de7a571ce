//! The four inner loops of the oracle. Each runs over independent outputs side by side and adds each output's terms
//! in index order, so that it vectorises to any width and still gives the same bits.
//!
//! Nothing here contracts a multiplication and an addition into one rounding, on any processor.

/// Keys in a panel: the innermost axis of packed keys and values.
pub(super) const PANEL: usize = 8;

/// Applies `$body` to the heads of a group, four, two or one at a time: `$count` is a constant inside.
macro_rules! by_heads {
    ($heads:expr, $first:ident, $count:ident, $body:block) => {{
        let mut $first = 0;
        while $heads - $first >= 4 {
            const $count: usize = 4;
            $body
            $first += 4;
        }
        if $heads - $first >= 2 {
            const $count: usize = 2;
            $body
            $first += 2;
        }
        if $heads - $first == 1 {
            const $count: usize = 1;
            $body
        }
    }};
}
pub(super) use by_heads;

/// `out[h][lane] = sum_d map(rows[h][d] * panels[d][lane])` over all lanes of consecutive panels `[panel][width][PANEL]`.
#[inline(always)]
pub(super) fn dot_panels<const H: usize>(
    rows: [&[f64]; H],
    panels: &[f64],
    map: impl Fn(f64) -> f64 + Copy,
    out: [&mut [f64]; H],
) {
    let width = rows[0].len();
    for (index, panel) in panels.chunks_exact(width * PANEL).enumerate() {
        let mut sums = [[0.0; PANEL]; H];
        for (d, lanes) in panel.chunks_exact(PANEL).enumerate() {
            for h in 0..H {
                let factor = rows[h][d];
                for lane in 0..PANEL {
                    sums[h][lane] += map(factor * lanes[lane]);
                }
            }
        }
        for h in 0..H {
            out[h][index * PANEL..][..PANEL].copy_from_slice(&sums[h]);
        }
    }
}

/// `out[h][d] += sum_t weights[h][t] * map(rows[t][d])`, terms in order; `rows` is `[term][width]`.
#[inline(always)]
pub(super) fn weighted_sum<const H: usize>(
    weights: [&[f64]; H],
    rows: &[f64],
    map: impl Fn(f64) -> f64 + Copy,
    mut out: [&mut [f64]; H],
) {
    let width = out[0].len();
    let mut d = 0;
    while width - d >= 16 {
        weighted_lanes::<H, 16>(weights, rows, d, map, &mut out);
        d += 16;
    }
    while width - d >= 4 {
        weighted_lanes::<H, 4>(weights, rows, d, map, &mut out);
        d += 4;
    }
    while d < width {
        weighted_lanes::<H, 1>(weights, rows, d, map, &mut out);
        d += 1;
    }
}

#[inline(always)]
fn weighted_lanes<const H: usize, const L: usize>(
    weights: [&[f64]; H],
    rows: &[f64],
    d: usize,
    map: impl Fn(f64) -> f64 + Copy,
    out: &mut [&mut [f64]; H],
) {
    let width = out[0].len();
    let mut sums = [[0.0; L]; H];
    for h in 0..H {
        sums[h].copy_from_slice(&out[h][d..d + L]);
    }
    for (t, row) in rows.chunks_exact(width).take(weights[0].len()).enumerate() {
        let lanes = &row[d..d + L];
        for h in 0..H {
            let weight = weights[h][t];
            for lane in 0..L {
                sums[h][lane] += weight * map(lanes[lane]);
            }
        }
    }
    for h in 0..H {
        out[h][d..d + L].copy_from_slice(&sums[h]);
    }
}

/// `out[j][d] += coefficients[r][j] * map(rows[r][d])` for `r` in order; `out` is `[key][width]`.
#[inline(always)]
pub(super) fn rank_update<const R: usize>(
    coefficients: [&[f64]; R],
    rows: [&[f64]; R],
    map: impl Fn(f64) -> f64 + Copy,
    out: &mut [f64],
) {
    let width = rows[0].len();
    for (j, out) in out.chunks_exact_mut(width).enumerate() {
        let factors = coefficients.map(|row| row[j]);
        for d in 0..width {
            let mut sum = out[d];
            for r in 0..R {
                sum += factors[r] * map(rows[r][d]);
            }
            out[d] = sum;
        }
    }
}

/// Sum in a fixed order: eight strided partial sums, then those in order.
#[inline(always)]
pub(super) fn sum(values: &[f64]) -> f64 {
    let mut lanes = [0.0; PANEL];
    let mut chunks = values.chunks_exact(PANEL);
    for chunk in &mut chunks {
        for lane in 0..PANEL {
            lanes[lane] += chunk[lane];
        }
    }
    let tail: f64 = chunks.remainder().iter().sum();
    lanes.iter().sum::<f64>() + tail
}
