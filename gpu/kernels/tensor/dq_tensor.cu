// dq_tensor: gradients of q and of sel_scale, query-outer, 16-bit tensor cores.
//
//   p_t = exp(s_t - lse_i),   dS_t = p_t (<d_out_i, v_t> - delta_i)
//   dq_i = scale sum_t c_t dS_t k_t (+ the sliding part's),   dsel_scale[i, s] = scale sum_{g, j} dS_t <q_i, k_t>
//
// Shapes: as in dq_plain; dim and value_dim multiples of 8, rows aligned to 16 bytes.
// Launch: ceil(b sel_heads n / WARPS) CTAs of WARPS warps: one warp for each (batch, selection head, token), whose query
// heads, 16 at a time, are the rows of every product. So dsel_scale has one writer and a fixed order.
// Accumulation: q k^T, d_out v^T and dS k in f32 by m16n8k16; c dS rounded to the element before dS k; dsel_scale from
// unrounded dS, over the lane's keys, then lanes by a butterfly, then 16 heads after 16 heads.
#include "mma.cuh"

// DIM_CHUNKS = ceil(dim / 32), DIM_GROUPS = ceil(dim / 64), VALUE_CHUNKS = ceil(value_dim / 32).
struct QueryRows {
    float gradient[8 * DIM_GROUPS][4];
    float lse_log2[2], delta[2];  // of rows g and g + 8
    bool live[2];
};

// tile[t] = rows x keys^T for keys 8 t .. 8 t + 8 from `keys` on; keys from `present` on are zeros.
template <int CHUNKS>
__device__ __forceinline__ void products(float (&tile)[KEY_TILES][4], const Saved<CHUNKS>& rows, const element* keys,
                                         long long stride, long long width, int present, int lane) {
#pragma unroll
    for (int t = 0; t < KEY_TILES; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) tile[t][e] = 0.0f;
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int feature = 32 * c + 8 * (lane % 4);
        Packed loaded[KEY_TILES];
#pragma unroll
        for (int t = 0; t < KEY_TILES; ++t) {
            const int key = 8 * t + lane / 4;
            loaded[t] = load_packed(keys + key * stride + feature, key < present && feature < width);
        }
#pragma unroll
        for (int t = 0; t < KEY_TILES; ++t) {
            multiply_add_features(tile[t], rows.words[2 * c][lane], rows.words[2 * c + 1][lane], loaded[t]);
        }
    }
}

// score becomes c dS; returns this lane's part of sum dS <q, k>.
__device__ __forceinline__ float score_gradients(float (&score)[KEY_TILES][4], const float (&d_weight)[KEY_TILES][4],
                                                 const QueryRows& state, int present, float factor, float scale_log2,
                                                 int lane) {
    float slope = 0.0f;
#pragma unroll
    for (int t = 0; t < KEY_TILES; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const bool live = 8 * t + 2 * (lane % 4) + e % 2 < present && state.live[e / 2];
            const float product = score[t][e];
            const float weight = live ? exp2f(product * factor * scale_log2 - state.lse_log2[e / 2]) : 0.0f;
            const float d_score = live ? weight * (d_weight[t][e] - state.delta[e / 2]) : 0.0f;
            slope = fmaf(d_score, product, slope);
            score[t][e] = factor * d_score;
        }
    }
    return slope;
}

// gradient += dS k for keys from `k` on; keys from `present` on are zeros.
__device__ __forceinline__ void add_keys(QueryRows& state, const float (&d_score)[KEY_TILES][4], const element* k,
                                         int present, const Dims& dims, int lane) {
#pragma unroll
    for (int u = 0; u < KEY_TILES / 2; ++u) {
        unsigned a[4];
        as_operand(a, d_score[2 * u], d_score[2 * u + 1]);
#pragma unroll
        for (int c = 0; c < DIM_GROUPS; ++c) {
            const int feature = 64 * c + 8 * (lane / 4);
            Packed rows[4];
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const int key = 16 * u + 2 * (lane % 4) + r % 2 + r / 2 * 8;
                rows[r] = load_packed(k + key * dims.k.token + feature, key < present && feature < dims.dim);
            }
            multiply_add_rows(state.gradient + 8 * c, a, rows);
        }
    }
}

// Adds keys first .. last; returns this lane's part of sum dS <q, k>. Padded keys are zero rows: they add nothing here.
__device__ __forceinline__ float absorb(QueryRows& state, const Saved<DIM_CHUNKS>& query,
                                        const Saved<VALUE_CHUNKS>& d_out, const element* k, const element* v,
                                        long long first, long long last, float factor, const Dims& dims, int lane) {
    float slope = 0.0f;
    last = min(last, dims.seq_len);
    for (long long key = first; key < last; key += 8 * KEY_TILES) {
        const int present = min(last - key, 8LL * KEY_TILES);
        float score[KEY_TILES][4], d_weight[KEY_TILES][4];
        products(score, query, k + key * dims.k.token, dims.k.token, dims.dim, present, lane);
        products(d_weight, d_out, v + key * dims.v.token, dims.v.token, dims.value_dim, present, lane);
        slope += score_gradients(score, d_weight, state, present, factor, dims.scale_log2, lane);
        add_keys(state, score, k + key * dims.k.token, present, dims, lane);
    }
    return slope;
}

// What the backward knows of query heads head .. head + heads at token i: of the selected or of the sliding part.
__device__ __forceinline__ void load_rows(QueryRows& state, Saved<VALUE_CHUNKS>& saved, const element* d_out,
                                          const Strides& strides, const float* lse, const float* delta, long long b,
                                          long long head, int heads, long long i, const Dims& dims, int lane) {
    const element* source[2];
#pragma unroll
    for (int below = 0; below < 2; ++below) {
        const int row = lane / 4 + 8 * below;
        const bool live = row < heads;
        state.live[below] = live;
        source[below] = live ? d_out + offset(strides, b, head + row, i) : 0;
        state.lse_log2[below] = live ? lse[offset(dims.lse, b, head + row, i)] * LOG2_E : 0.0f;
        state.delta[below] = live ? delta[(b * dims.q_heads + head + row) * dims.seq_len + i] : 0.0f;
    }
    save(saved, source[0], source[1], dims.value_dim, lane);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
dq_tensor(const element* q, const element* k, const element* v, const unsigned* indices, const unsigned char* mask,
          const float* sel_scale, const float* lse, const element* d_out, const float* delta, const float* sliding_lse,
          const element* d_sliding, const float* sliding_delta, element* dq, float* dsel_scale, Dims dims) {
    __shared__ Saved<DIM_CHUNKS> queries[WARPS];
    __shared__ Saved<VALUE_CHUNKS> cotangents[WARPS];
    Saved<DIM_CHUNKS>& query = queries[threadIdx.x / 32];
    Saved<VALUE_CHUNKS>& cotangent = cotangents[threadIdx.x / 32];
    const int lane = threadIdx.x % 32;
    const long long piece = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (piece >= dims.batch * dims.sel_heads * dims.seq_len) return;
    const long long i = piece % dims.seq_len;
    const long long sel_head = piece / dims.seq_len % dims.sel_heads;
    const long long b = piece / dims.seq_len / dims.sel_heads;
    const long long sel_groups = dims.q_heads / dims.sel_heads;
    const long long kv_head = sel_head / (dims.sel_heads / dims.kv_heads);
    k += offset(dims.k, b, kv_head, 0);
    v += offset(dims.v, b, kv_head, 0);
    if (dsel_scale) dsel_scale += offset(dims.dsel_scale, b, sel_head, i);

    for (long long g = 0; g < sel_groups; g += 16) {
        const long long head = sel_head * sel_groups + g;
        const int heads = min(16LL, sel_groups - g);
        const int row = lane / 4;
        QueryRows state;
#pragma unroll
        for (int t = 0; t < 8 * DIM_GROUPS; ++t) {
#pragma unroll
            for (int e = 0; e < 4; ++e) state.gradient[t][e] = 0.0f;
        }
        save(query, row < heads ? q + offset(dims.q, b, head + row, i) : 0,
             row + 8 < heads ? q + offset(dims.q, b, head + row + 8, i) : 0, dims.dim, lane);
        load_rows(state, cotangent, d_out, dims.d_out, lse, delta, b, head, heads, i, dims, lane);
        if (dims.include_diagonal) {
            absorb(state, query, cotangent, k, v, i / dims.block_size * dims.block_size, i + 1, 1.0f, dims, lane);
        }
        for (long long s = 0; s < dims.num_sel; ++s) {
            const long long slot = offset(dims.sel, b, sel_head, i) + s;
            float slope = 0.0f;
            if (mask[slot]) {
                const long long first = indices[slot] * dims.block_size;
                const float factor = sel_scale ? sel_scale[slot] : 1.0f;
                slope = absorb(state, query, cotangent, k, v, first, first + dims.block_size, factor, dims, lane);
            }
            if (!dsel_scale) continue;
            slope = warp_sum(slope);
            if (lane == 0) dsel_scale[s] = (g == 0 ? 0.0f : dsel_scale[s]) + dims.scale * slope;
        }
        if (dims.window >= 0) {
            load_rows(state, cotangent, d_sliding, dims.d_sliding, sliding_lse, sliding_delta, b, head, heads, i, dims,
                      lane);
            absorb(state, query, cotangent, k, v, max(0LL, i - dims.window), i + 1, 1.0f, dims, lane);
        }
#pragma unroll
        for (int below = 0; below < 2; ++below) {
            if (!state.live[below]) continue;
            element* target = dq + offset(dims.dq, b, head + row + 8 * below, i);
#pragma unroll
            for (int c = 0; c < DIM_GROUPS; ++c) {
                store_features(target, state.gradient + 8 * c, below, dims.scale, c, dims.dim, lane);
            }
        }
    }
}
