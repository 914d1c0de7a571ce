//! Cuts output buffers into tiles of consecutive tokens, one for each task, so that tasks write their own rows and
//! nothing else.

/// Some tokens of one (batch, kv head): for each buffer and head, the rows of those tokens.
pub(super) struct Tile<'a> {
    /// `batch * kv_heads + kv head`.
    pub(super) region: usize,
    /// First token.
    pub(super) first: usize,
    /// Number of tokens.
    pub(super) tokens: usize,
    /// `[buffer][head]`: a slice `[token][width]`, empty for an absent buffer.
    pub(super) rows: Vec<Vec<&'a mut [f64]>>,
}

/// A buffer `[region][head][token][width]`.
pub(super) struct Buffer<'a> {
    pub(super) values: &'a mut [f64],
    pub(super) heads: usize,
    pub(super) width: usize,
}

/// Cuts `buffers`, each over `regions` regions and `seq_len` tokens, into tiles of at most `length` tokens.
///
/// A buffer that holds nothing gives empty rows.
pub(super) fn cut(buffers: Vec<Buffer<'_>>, regions: usize, seq_len: usize, length: usize) -> Vec<Tile<'_>> {
    let mut tiles: Vec<Tile<'_>> = Vec::new();
    for region in 0..regions {
        for first in (0..seq_len).step_by(length) {
            tiles.push(Tile { region, first, tokens: length.min(seq_len - first), rows: Vec::new() });
        }
    }
    for buffer in buffers {
        let mut rest = buffer.values;
        let absent = rest.is_empty();
        tiles.iter_mut().for_each(|tile| tile.rows.push(Vec::with_capacity(buffer.heads)));
        for chunk in tiles.chunks_mut(seq_len.div_ceil(length)) {
            for _ in 0..buffer.heads {
                for tile in &mut *chunk {
                    let count = if absent { 0 } else { tile.tokens * buffer.width };
                    let (row, remaining) = rest.split_at_mut(count);
                    rest = remaining;
                    tile.rows.last_mut().expect("pushed above").push(row);
                }
            }
        }
    }
    tiles
}
