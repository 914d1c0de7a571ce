//! Where the rows of a tensor lie in a buffer, gaps between them included.

/// The stride by which `count` rows of `width` elements lie more than 2^32 elements apart from first to last.
pub(crate) fn far_stride(count: usize, width: usize) -> usize {
    const REACH: usize = 1 << 32;
    // A multiple of 8 keeps rows aligned for every rung.
    if count > 1 { (REACH / (count - 1) + 8).max(width + 7) / 8 * 8 } else { width }
}

/// The rows of one tensor in a buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Count, stride and step in the order of rows of each axis, the largest stride first.
    axes: [(usize, usize, usize); 3],
    row_bytes: usize,
    bytes: usize,
}

impl Extent {
    /// Rows of `row_bytes` along three axes, batch, head and token, by their strides in elements of `size` bytes.
    ///
    /// # Errors
    /// Strides by which rows would overlap, or bytes that cannot be addressed.
    pub(crate) fn new(counts: [usize; 3], row_bytes: usize, strides: [i64; 3], size: usize) -> Result<Self, String> {
        let steps = [counts[1] * counts[2], counts[2], 1];
        let mut axes = [(1, 0, 0); 3];
        for (axis, stride) in strides.into_iter().enumerate() {
            if counts[axis] == 1 || row_bytes == 0 {
                continue;
            }
            let stride = usize::try_from(stride).ok().and_then(|stride| stride.checked_mul(size));
            axes[axis] = (counts[axis], stride.ok_or_else(|| format!("{strides:?} are no strides"))?, steps[axis]);
        }
        axes.sort_by_key(|(_, stride, _)| std::cmp::Reverse(*stride));
        let mut extent = row_bytes;
        for (count, stride, _) in axes.iter().rev().filter(|(count, ..)| *count > 1) {
            if *stride < extent {
                return Err(format!("rows overlap: {stride} bytes from one to the next, {extent} bytes long"));
            }
            let all = stride.checked_mul(count - 1).and_then(|bytes| bytes.checked_add(extent));
            extent = all.filter(|bytes| *bytes <= isize::MAX as usize).ok_or("more bytes than can be addressed")?;
        }
        Ok(Extent { axes, row_bytes, bytes: extent })
    }

    /// `rows` rows, each `stride` bytes behind the one before.
    pub(crate) fn strided(rows: usize, row_bytes: usize, stride: usize) -> Self {
        if rows == 0 || row_bytes == 0 || stride == row_bytes {
            return Extent::flat(rows * row_bytes);
        }
        let bytes = (rows - 1) * stride + row_bytes;
        Extent { axes: [(rows, stride, 1), (1, 0, 0), (1, 0, 0)], row_bytes, bytes }
    }

    /// `bytes` without rows or gaps.
    pub(crate) fn flat(bytes: usize) -> Self {
        Extent { axes: [(1, 0, 0); 3], row_bytes: bytes, bytes }
    }

    /// Bytes from the first to the last.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes of all rows, without the gaps between them.
    pub(crate) fn filled_bytes(&self) -> usize {
        self.axes.iter().map(|(count, ..)| count).product::<usize>() * self.row_bytes
    }

    /// Whether rows lie in their own order without gaps.
    pub(crate) fn is_in_order(&self) -> bool {
        self.bytes == self.filled_bytes() && self.axes.is_sorted_by(|(_, _, one), (_, _, next)| next <= one)
    }

    /// Where each row begins, and its number in the order `b, head, token`: as they lie in memory.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let [a, b, c] = self.axes;
        let rows = if self.row_bytes == 0 { 0 } else { a.0 };
        (0..rows).flat_map(move |i| {
            (0..b.0)
                .flat_map(move |j| (0..c.0).map(move |k| (i * a.1 + j * b.1 + k * c.1, i * a.2 + j * b.2 + k * c.2)))
        })
    }

    /// The runs of bytes without gaps, first and end of each, in order.
    pub(crate) fn runs(&self) -> Vec<(usize, usize)> {
        if self.bytes == self.filled_bytes() {
            return if self.bytes == 0 { Vec::new() } else { vec![(0, self.bytes)] };
        }
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (start, _) in self.rows() {
            match runs.last_mut().filter(|(_, end)| *end == start) {
                Some((_, end)) => *end += self.row_bytes,
                None => runs.push((start, start + self.row_bytes)),
            }
        }
        runs
    }
}
