//! What a call takes and leaves on the device.

use crate::memory::Buffer;

/// What the forward reads, on the device.
#[derive(Debug)]
pub struct Tensors {
    /// `[b, q_heads, n, dim]`.
    pub q: Buffer,
    /// `[b, kv_heads, n, dim]`.
    pub k: Buffer,
    /// `[b, kv_heads, n, value_dim]`.
    pub v: Buffer,
    /// `[b, sel_heads, n, num_sel]`, 32-bit block numbers.
    pub indices: Buffer,
    /// Like `indices`, one byte each.
    pub mask: Buffer,
    /// Like `indices`, f32.
    pub sel_scale: Option<Buffer>,
}

/// What the backward is given besides, on the device.
#[derive(Debug)]
pub struct CotangentTensors {
    /// `[b, q_heads, n, value_dim]`.
    pub d_out: Buffer,
    /// `[b, q_heads, n]`, f32.
    pub d_lse: Option<Buffer>,
    /// `[b, q_heads, n, value_dim]`; without it the sliding part sends no gradient.
    pub d_sliding: Option<Buffer>,
}

/// What the forward writes.
#[derive(Debug)]
pub struct ForwardTensors {
    /// `[b, q_heads, n, value_dim]`.
    pub out: Buffer,
    /// `[b, q_heads, n]`, f32.
    pub lse: Buffer,
    /// The sliding part's, beside a window: `[b, q_heads, n, value_dim]`.
    pub sliding_out: Option<Buffer>,
    /// The sliding part's, beside a window: `[b, q_heads, n]`, f32.
    pub sliding_lse: Option<Buffer>,
}

/// What the backward writes.
#[derive(Debug)]
pub struct GradientTensors {
    /// `[b, q_heads, n, dim]`.
    pub dq: Buffer,
    /// `[b, kv_heads, n, dim]`.
    pub dk: Buffer,
    /// `[b, kv_heads, n, value_dim]`.
    pub dv: Buffer,
    /// `[b, sel_heads, n, num_sel]`, f32; where sel_scale is given.
    pub dsel_scale: Option<Buffer>,
    pub(crate) workspace: WorkspaceTensors,
}

/// What the backward needs on the way.
#[derive(Debug)]
pub(crate) struct WorkspaceTensors {
    pub(crate) delta: Buffer,
    pub(crate) sliding_delta: Option<Buffer>,
    pub(crate) counts: Buffer,
    pub(crate) starts: Buffer,
    pub(crate) segment_starts: Buffer,
    pub(crate) visits: Buffer,
    pub(crate) partial: Buffer,
}

impl WorkspaceTensors {
    pub(crate) fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        let always = [&self.delta, &self.counts, &self.starts, &self.segment_starts, &self.visits, &self.partial];
        always.into_iter().chain(&self.sliding_delta)
    }
}
