// delta: what the backward subtracts from dP in every row.
//
//   delta_i = <d_out_i, out_i> - d_lse_i,   sliding_delta_i = <d_sliding_i, sliding_out_i>
//
// Shapes: out, d_out, sliding_out, d_sliding [b, q_heads, n, value_dim]; d_lse [b, q_heads, n] or null (0);
// delta and sliding_delta [b, q_heads, n], contiguous. The sliding ones only where window >= 0.
// Launch: ceil(b q_heads n / 4) CTAs of 4 warps, one warp for each row.
// Accumulation: f32 multiply-adds, 32 lanes and a butterfly, from out as it was stored.
#include "rows.cuh"

extern "C" __global__ void __launch_bounds__(128)
delta(const element* out, const element* d_out, const float* d_lse, const element* sliding_out, const element* d_sliding,
      float* delta, float* sliding_delta, Dims dims) {
    const int lane = threadIdx.x % 32;
    const long long row = blockIdx.x * 4LL + threadIdx.x / 32;
    if (row >= dims.batch * dims.q_heads * dims.seq_len) return;
    const long long i = row % dims.seq_len;
    const long long head = row / dims.seq_len % dims.q_heads;
    const long long b = row / dims.seq_len / dims.q_heads;

    const float sum = dot(load_row<VALUE_STEPS>(out + offset(dims.out, b, head, i), dims.value_dim, lane),
                          load_row<VALUE_STEPS>(d_out + offset(dims.d_out, b, head, i), dims.value_dim, lane));
    if (lane == 0) delta[row] = d_lse ? sum - d_lse[offset(dims.d_lse, b, head, i)] : sum;

    if (dims.window < 0) return;
    const float sliding = dot(load_row<VALUE_STEPS>(sliding_out + offset(dims.out, b, head, i), dims.value_dim, lane),
                              load_row<VALUE_STEPS>(d_sliding + offset(dims.d_sliding, b, head, i), dims.value_dim, lane));
    if (lane == 0) sliding_delta[row] = sliding;
}
