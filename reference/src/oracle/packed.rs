//! Keys and values of one kv head, padded with zeros as the seed pads them, in the two layouts that the kernels read.

use nsa_corpus::Inputs;

use super::kernels::PANEL;

/// One tensor of one (batch, kv head): `rows[token][width]` and `panels[token / PANEL][width][token % PANEL]`.
pub(super) struct Packed {
    width: usize,
    rows: Vec<f64>,
    panels: Vec<f64>,
}

impl Packed {
    fn new(tokens: &[f64], width: usize, padded: usize) -> Self {
        let mut rows = tokens.to_vec();
        rows.resize(padded * width, 0.0);
        let mut panels = vec![0.0; padded * width];
        for (panel, rows) in panels.chunks_exact_mut(width * PANEL).zip(rows.chunks_exact(width * PANEL)) {
            for (lane, row) in rows.chunks_exact(width).enumerate() {
                for (d, value) in row.iter().enumerate() {
                    panel[d * PANEL + lane] = *value;
                }
            }
        }
        Packed { width, rows, panels }
    }

    /// Keys `start..start + len`, `[key][width]`.
    pub(super) fn rows(&self, start: usize, len: usize) -> &[f64] {
        &self.rows[start * self.width..(start + len) * self.width]
    }

    /// The panels that hold keys `start..start + len`, and the lane of the first one.
    pub(super) fn panels(&self, start: usize, len: usize) -> (&[f64], usize) {
        let (first, end) = (start / PANEL, (start + len).div_ceil(PANEL));
        (&self.panels[first * PANEL * self.width..end * PANEL * self.width], start % PANEL)
    }
}

/// Keys and values of one (batch, kv head).
pub(super) struct Head {
    pub(super) keys: Packed,
    pub(super) values: Packed,
}

impl Head {
    pub(super) fn new(inputs: &Inputs, b: usize, h: usize) -> Self {
        let shape = inputs.shape();
        let padded = padded_keys(inputs);
        let slice =
            |tensor: &ndarray::Array4<f64>| tensor.slice(ndarray::s![b, h, .., ..]).iter().copied().collect::<Vec<_>>();
        Head {
            keys: Packed::new(&slice(inputs.k()), shape.dim(), padded),
            values: Packed::new(&slice(inputs.v()), shape.value_dim(), padded),
        }
    }
}

/// Keys once padded to whole blocks and whole panels.
pub(super) fn padded_keys(inputs: &Inputs) -> usize {
    inputs.shape().padded_len().next_multiple_of(PANEL)
}
