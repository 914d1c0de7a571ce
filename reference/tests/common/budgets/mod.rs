//! The error budgets of `docs/numerics.md`, written down a second time: row by row, term by term, from the formulas there
//! and nothing of the oracle's. Constants of formats and of arithmetics are spelled out here again as well.

mod backward;
mod forward;
mod near;

use nsa_corpus::{Arithmetic, Dot, Dtype, Inputs};

use super::naive::{Row, Term, selected_terms, sliding_terms};

/// Unit roundoff, smallest normal and largest value of a format.
fn format(dtype: Dtype) -> [f64; 3] {
    let [digits, smallest, largest] = match dtype {
        Dtype::F64 => [53, -1022, 1023],
        Dtype::F32 => [24, -126, 127],
        Dtype::F16 => [11, -14, 15],
        Dtype::Bf16 => [8, -126, 127],
    };
    let u = 2f64.powi(-digits);
    [u, 2f64.powi(smallest), (2.0 - 2.0 * u) * 2f64.powi(largest)]
}

fn gamma(count: usize, u: f64) -> f64 {
    let sum = count as f64 * u;
    if sum < 1.0 { sum / (1.0 - sum) } else { f64::INFINITY }
}

/// `eps_t` of `exp(exponent)`, whose exponent errs by `error`.
fn relative(exponent: f64, error: f64) -> f64 {
    if exponent + error < -746.0 { 0.0 } else { error.exp_m1() }
}

/// `c_K`.
fn accumulation(dot: Dot, count: usize) -> f64 {
    let truncated = |block: usize, extra_bits: i32| {
        let blocks = (count as f64 / block as f64).ceil();
        blocks * ((block as f64 + 1.0) * 2f64.powi(1 - extra_bits) + 2.0) / 16_777_216.0
    };
    match dot {
        Dot::Fma { unit } => gamma(count, unit),
        Dot::Blocks { block, extra_bits } => truncated(block, extra_bits),
        Dot::Tf32 { extra_bits } => truncated(8, extra_bits) + 1.0 / 1024.0 + 1.0 / 4_194_304.0,
    }
}

/// One term of a row.
struct Live {
    term: Term,
    x: f64,
    /// `X`: the sum of magnitudes of the products.
    magnitude: f64,
    /// `|q * k|_2`.
    norm: f64,
}

/// What a budget is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tier {
    /// B.
    Rigorous,
    /// H before B limits it.
    Likely,
    /// O: what the order of additions can make of one answer, before it is stored.
    Order,
}

/// The budgets of one tier.
pub(crate) struct Budgets<'a> {
    inputs: &'a Inputs,
    arithmetic: &'a Arithmetic,
    tier: Tier,
    u: f64,
    u_p: f64,
    flush: f64,
    least: f64,
    scale: f64,
}

impl<'a> Budgets<'a> {
    pub(crate) fn new(inputs: &'a Inputs, arithmetic: &'a Arithmetic, tier: Tier) -> Self {
        let u = arithmetic.unit;
        let flush = if u < 2f64.powi(-24) { 2f64.powi(-1022) } else { 2f64.powi(-126) };
        let [cast, smallest, _] = format(arithmetic.probability);
        let u_p = if cast > u { cast } else { 0.0 };
        let scale = (inputs.shape().dim() as f64).powf(-0.5);
        Budgets { inputs, arithmetic, tier, u, u_p, flush, least: flush.max(cast * smallest), scale }
    }

    /// `C_K`: the products of a tile, then tile after tile.
    fn products(&self, count: usize) -> f64 {
        let dot = self.arithmetic.products;
        let tiles = match dot {
            Dot::Fma { .. } => 0,
            Dot::Blocks { block, .. } => count.div_ceil(block),
            Dot::Tf32 { .. } => count.div_ceil(8),
        };
        accumulation(dot, count) + gamma(tiles, self.u)
    }

    fn likely(&self) -> bool {
        self.tier == Tier::Likely
    }

    /// With what storing adds, but for the order of additions, which decides before that.
    fn stored(&self, dtype: Dtype, value: f64, error: f64) -> f64 {
        let [u_o, smallest, _] = format(dtype);
        let budget = match self.tier {
            Tier::Order => error,
            _ => error + u_o * (value.abs() + error) + u_o * smallest + self.flush,
        };
        if budget.is_nan() { f64::INFINITY } else { budget }
    }

    /// `c_dim X + dim flush`.
    fn dot_error(&self, live: &Live, likely: bool) -> f64 {
        let dim = self.inputs.shape().dim();
        let x = live.x.abs();
        let unconspired = x / 2.0 + 6.0 * self.scale * (live.norm + x);
        let size = if likely { live.magnitude.min(unconspired) } else { live.magnitude };
        accumulation(self.arithmetic.scores, dim) * size + dim as f64 * self.flush
    }

    /// `E_t`.
    fn score_error(&self, live: &Live, likely: bool) -> f64 {
        self.scale * live.term.factor.abs() * (self.dot_error(live, likely) + 4.0 * self.u * live.x.abs()) + self.flush
    }

    fn rows(&self) -> Vec<Row> {
        let shape = self.inputs.shape();
        let mut rows = Vec::new();
        for batch in 0..shape.batch() {
            for head in 0..shape.q_heads() {
                rows.extend((0..shape.seq_len()).map(|token| Row::new(shape, batch, head, token)));
            }
        }
        rows
    }

    /// The terms of a row, selected or sliding. A padded key has products 0 whatever the query holds.
    fn terms(&self, row: &Row, sliding: bool) -> Vec<Live> {
        let terms = match self.inputs.sliding_window().filter(|_| sliding) {
            Some(window) => sliding_terms(row, window),
            None => selected_terms(self.inputs, row),
        };
        let live = |term: Term| {
            let product = |token, d| {
                self.inputs.q()[[row.batch, row.head, row.token, d]]
                    * self.inputs.k()[[row.batch, row.kv_head, token, d]]
            };
            let width = if term.token.is_some() { self.inputs.shape().dim() } else { 0 };
            let products: Vec<f64> = (0..width).map(|d| product(term.token.unwrap(), d)).collect();
            let sum = |map: fn(f64) -> f64| products.iter().map(|product| map(*product)).fold(0.0, |sum, x| sum + x);
            Live { term, x: sum(|x| x), magnitude: sum(f64::abs), norm: sum(|x| x * x).sqrt() }
        };
        terms.into_iter().map(live).collect()
    }

    /// `N_b`: each span of keys rescales the sum once for every tile.
    fn rescalings(&self, terms: &[Live]) -> f64 {
        let tile = self.arithmetic.rescale_every.unwrap_or(self.inputs.shape().block_size()).max(1);
        let spans = terms.chunk_by(|left, right| left.term.slot == right.term.slot);
        spans.map(|span| span.len().div_ceil(tile)).sum::<usize>() as f64
    }

    fn value(&self, row: &Row, live: &Live, d: usize) -> f64 {
        live.term.token.map_or(0.0, |token| self.inputs.v()[[row.batch, row.kv_head, token, d]])
    }

    fn key(&self, row: &Row, live: &Live, d: usize) -> f64 {
        live.term.token.map_or(0.0, |token| self.inputs.k()[[row.batch, row.kv_head, token, d]])
    }
}
