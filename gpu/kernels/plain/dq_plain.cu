// dq_plain: gradients of q and of sel_scale, query-outer, any size, f32 arithmetic.
//
//   p_t = exp(s_t - lse_i),   dS_t = p_t (<d_out_i, v_t> - delta_i)
//   dq_i = scale sum_t c_t dS_t k_t (+ the sliding part's),   dsel_scale[i, s] = scale sum_{g, j} dS_t <q_i, k_t>
//
// Shapes: as in forward_plain; lse and sliding_lse as the forward stored them, delta and sliding_delta [b, q_heads, n]
// contiguous, dq [b, q_heads, n, dim], dsel_scale [b, sel_heads, n, num_sel] in f32 or null.
// Launch: ceil(b sel_heads n / 4) CTAs of 4 warps: one warp for each (batch, selection head, token), which walks the
// query heads that share the selection in order. So dsel_scale has one writer and a fixed order.
// Accumulation: f32 multiply-adds, keys in the forward's order. Padded keys are zero rows: they add nothing here.
#include "rows.cuh"

struct QueryRow {
    Row<DIM_STEPS> query, gradient;
    Row<VALUE_STEPS> d_out;
    float lse_log2, delta;
};

// Adds keys first .. last to the row's gradient; returns sum_j dS_j <q, k_j>.
__device__ float absorb(QueryRow& row, const element* k, const element* v, long long first, long long last, float factor,
                        const Dims& dims, int lane) {
    float slope = 0.0f;
    for (long long key = first; key < min(last, dims.seq_len); ++key) {
        const Row<DIM_STEPS> key_row = load_row<DIM_STEPS>(k + key * dims.k.token, dims.dim, lane);
        const float product = dot(row.query, key_row);
        const float d_weight = dot(row.d_out, load_row<VALUE_STEPS>(v + key * dims.v.token, dims.value_dim, lane));
        const float d_score = exp2f(product * factor * dims.scale_log2 - row.lse_log2) * (d_weight - row.delta);
        add_scaled(row.gradient, factor * d_score, key_row);
        slope = fmaf(d_score, product, slope);
    }
    return slope;
}

// One query head: its gradient, and its share of dsel_scale, which later heads add to.
__device__ QueryRow selected_part(QueryRow row, const element* k, const element* v, const unsigned* indices,
                                  const unsigned char* mask, const float* sel_scale, float* dsel_scale, long long i,
                                  bool first_head, const Dims& dims, int lane) {
    if (dims.include_diagonal) absorb(row, k, v, i / dims.block_size * dims.block_size, i + 1, 1.0f, dims, lane);
    for (long long s = 0; s < dims.num_sel; ++s) {
        float slope = 0.0f;
        if (mask[s]) {
            const long long first = indices[s] * dims.block_size;
            slope = absorb(row, k, v, first, first + dims.block_size, sel_scale ? sel_scale[s] : 1.0f, dims, lane);
        }
        if (dsel_scale && lane == 0) dsel_scale[s] = (first_head ? 0.0f : dsel_scale[s]) + dims.scale * slope;
    }
    return row;
}

extern "C" __global__ void __launch_bounds__(128)
dq_plain(const element* q, const element* k, const element* v, const unsigned* indices, const unsigned char* mask,
         const float* sel_scale, const float* lse, const element* d_out, const float* delta, const float* sliding_lse,
         const element* d_sliding, const float* sliding_delta, element* dq, float* dsel_scale, Dims dims) {
    const int lane = threadIdx.x % 32;
    const long long task = blockIdx.x * 4LL + threadIdx.x / 32;
    if (task >= dims.batch * dims.sel_heads * dims.seq_len) return;
    const long long i = task % dims.seq_len;
    const long long sel_head = task / dims.seq_len % dims.sel_heads;
    const long long b = task / dims.seq_len / dims.sel_heads;
    const long long sel_groups = dims.q_heads / dims.sel_heads;
    const long long kv_head = sel_head / (dims.sel_heads / dims.kv_heads);
    k += offset(dims.k, b, kv_head, 0);
    v += offset(dims.v, b, kv_head, 0);
    const long long slots = offset(dims.sel, b, sel_head, i);
    if (dsel_scale) dsel_scale += offset(dims.dsel_scale, b, sel_head, i);

    for (long long g = 0; g < sel_groups; ++g) {
        const long long head = sel_head * sel_groups + g;
        const long long saved = (b * dims.q_heads + head) * dims.seq_len + i;
        QueryRow row;
        row.query = load_row<DIM_STEPS>(q + offset(dims.q, b, head, i), dims.dim, lane);
        row.gradient = zero_row<DIM_STEPS>();
        row.d_out = load_row<VALUE_STEPS>(d_out + offset(dims.d_out, b, head, i), dims.value_dim, lane);
        row.lse_log2 = lse[offset(dims.lse, b, head, i)] * LOG2_E;
        row.delta = delta[saved];
        row = selected_part(row, k, v, indices + slots, mask + slots, sel_scale ? sel_scale + slots : 0, dsel_scale, i,
                            g == 0, dims, lane);
        if (dims.window >= 0) {
            row.d_out = load_row<VALUE_STEPS>(d_sliding + offset(dims.d_sliding, b, head, i), dims.value_dim, lane);
            row.lse_log2 = sliding_lse[offset(dims.lse, b, head, i)] * LOG2_E;
            row.delta = sliding_delta[saved];
            absorb(row, k, v, max(0LL, i - dims.window), i + 1, 1.0f, dims, lane);
        }
        multiply(row.gradient, dims.scale);
        store_row(dq + offset(dims.dq, b, head, i), row.gradient, dims.dim, lane);
    }
}
