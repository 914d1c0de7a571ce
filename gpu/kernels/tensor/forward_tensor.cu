// forward_tensor: one warp for each (batch, selection head, 16 of its query heads, token), 16-bit tensor cores.
//
//   s_t = c_t scale <q_i, k_t>          over the diagonal's keys and every live slot's, with multiplicity
//   out = sum_t exp(s_t - m) v_t / l,   l = sum_t exp(s_t - m),   lse = m + ln l
//
// The query heads that share a selection are the 16 rows of every product, so each selected key is loaded once for all
// of them.
// Shapes: as in forward_plain; dim and value_dim multiples of 8, rows aligned to 16 bytes.
// Launch: ceil(b sel_heads ceil(sel_groups / 16) n / WARPS) CTAs of WARPS warps; tokens vary fastest, so that the warps
// of a CTA share their diagonal and whatever neighbours select alike in the first-level cache.
// Accumulation: scores and out in f32 by m16n8k16; p rounded to the element before p v; l from unrounded p; online
// softmax in base 2 with one rescaling per 8 KEY_TILES keys; keys in order: diagonal, then slots.
#include "mma.cuh"

// DIM_CHUNKS = ceil(dim / 32), VALUE_GROUPS = ceil(value_dim / 64), KEY_TILES tiles of 8 keys are scored at once.
struct Softmax {
    float out[8 * VALUE_GROUPS][4];
    float highest[2];  // of the scores so far, in base 2, for rows g and g + 8
    float sum[2];      // of exp2(score - highest), this lane's columns only
};

__device__ __forceinline__ void clear(Softmax& state) {
#pragma unroll
    for (int t = 0; t < 8 * VALUE_GROUPS; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) state.out[t][e] = 0.0f;
    }
#pragma unroll
    for (int below = 0; below < 2; ++below) {
        state.highest[below] = -INFINITE;
        state.sum[below] = 0.0f;
    }
}

// score[t] = q k^T for keys 8 t .. 8 t + 8 from `k` on; keys from `present` on are zeros.
__device__ __forceinline__ void products(float (&score)[KEY_TILES][4], const Saved<DIM_CHUNKS>& query, const element* k,
                                         int present, const Dims& dims, int lane) {
#pragma unroll
    for (int t = 0; t < KEY_TILES; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) score[t][e] = 0.0f;
    }
#pragma unroll
    for (int c = 0; c < DIM_CHUNKS; ++c) {
        const int feature = 32 * c + 8 * (lane % 4);
        Packed keys[KEY_TILES];
#pragma unroll
        for (int t = 0; t < KEY_TILES; ++t) {
            const int key = 8 * t + lane / 4;
            keys[t] = load_packed(k + key * dims.k.token + feature, key < present && feature < dims.dim);
        }
#pragma unroll
        for (int t = 0; t < KEY_TILES; ++t) {
            multiply_add_features(score[t], query.words[2 * c][lane], query.words[2 * c + 1][lane], keys[t]);
        }
    }
}

// Turns products into weights relative to the new maximum, and rescales what was summed up before.
__device__ __forceinline__ void weigh(Softmax& state, float (&score)[KEY_TILES][4], int count, float factor, int lane) {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
        float highest = state.highest[below];
#pragma unroll
        for (int t = 0; t < KEY_TILES; ++t) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int key = 8 * t + 2 * (lane % 4) + side;
                float& value = score[t][2 * below + side];
                value = key < count ? value * factor : -INFINITE;
                highest = fmaxf(highest, value);
            }
        }
        highest = row_max(highest);
        // With every score at minus infinity so far, the weights are 0, not NaN.
        const float shift = highest == -INFINITE ? 0.0f : highest;
        const float rescale = exp2f(state.highest[below] - shift);
        state.highest[below] = highest;
        state.sum[below] *= rescale;
#pragma unroll
        for (int t = 0; t < 8 * VALUE_GROUPS; ++t) {
            state.out[t][2 * below] *= rescale;
            state.out[t][2 * below + 1] *= rescale;
        }
#pragma unroll
        for (int t = 0; t < KEY_TILES; ++t) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                float& value = score[t][2 * below + side];
                value = exp2f(value - shift);
                state.sum[below] += value;
            }
        }
    }
}

// out += p v for keys from `v` on; keys from `present` on are zeros.
__device__ __forceinline__ void add_values(Softmax& state, const float (&weight)[KEY_TILES][4], const element* v,
                                           int present, const Dims& dims, int lane) {
#pragma unroll
    for (int u = 0; u < KEY_TILES / 2; ++u) {
        unsigned a[4];
        as_operand(a, weight[2 * u], weight[2 * u + 1]);
#pragma unroll
        for (int c = 0; c < VALUE_GROUPS; ++c) {
            const int feature = 64 * c + 8 * (lane / 4);
            Packed rows[4];
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                const int key = 16 * u + 2 * (lane % 4) + r % 2 + r / 2 * 8;
                rows[r] = load_packed(v + key * dims.v.token + feature, key < present && feature < dims.value_dim);
            }
            multiply_add_rows(state.out + 8 * c, a, rows);
        }
    }
}

// Adds keys first .. first + count. Keys from seq_len on are padding: score 0, value 0.
__device__ __forceinline__ void absorb(Softmax& state, const Saved<DIM_CHUNKS>& query, const element* k,
                                       const element* v, long long first, long long count, float factor,
                                       const Dims& dims, int lane) {
    for (long long start = 0; start < count; start += 8 * KEY_TILES) {
        const long long key = first + start;
        const int counted = min(count - start, 8LL * KEY_TILES);
        const int present = min((long long)counted, max(0LL, dims.seq_len - key));
        float score[KEY_TILES][4];
        products(score, query, k + key * dims.k.token, present, dims, lane);
        weigh(state, score, counted, factor * dims.scale_log2, lane);
        add_values(state, score, v + key * dims.v.token, present, dims, lane);
    }
}

// Writes out and lse of the rows that are query heads; a row without any key has out 0 and lse minus infinity.
__device__ void finish(Softmax& state, bool any, element* out, float* lse, long long head, int heads, long long b,
                       long long i, const Dims& dims, int lane) {
#pragma unroll
    for (int below = 0; below < 2; ++below) {
        const int row = lane / 4 + 8 * below;
        const float sum = row_sum(state.sum[below]);
        if (row >= heads) continue;
        element* target = out + offset(dims.out, b, head + row, i);
        const float factor = any ? 1.0f / sum : 0.0f;
#pragma unroll
        for (int c = 0; c < VALUE_GROUPS; ++c) {
            store_features(target, state.out + 8 * c, below, factor, c, dims.value_dim, lane);
        }
        const float value = any ? state.highest[below] * LN_2 + logf(sum) : -INFINITE;
        if (lane % 4 == 0) lse[offset(dims.lse, b, head + row, i)] = value;
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
forward_tensor(const element* q, const element* k, const element* v, const unsigned* indices, const unsigned char* mask,
               const float* sel_scale, element* out, float* lse, element* sliding_out, float* sliding_lse, Dims dims) {
    __shared__ Saved<DIM_CHUNKS> queries[WARPS];
    Saved<DIM_CHUNKS>& query = queries[threadIdx.x / 32];
    const int lane = threadIdx.x % 32;
    const long long sel_groups = dims.q_heads / dims.sel_heads;
    const long long tiles = (sel_groups + 15) / 16;
    const long long piece = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (piece >= dims.batch * dims.sel_heads * tiles * dims.seq_len) return;
    const long long i = piece % dims.seq_len;
    const long long tile = piece / dims.seq_len % tiles;
    const long long sel_head = piece / dims.seq_len / tiles % dims.sel_heads;
    const long long b = piece / dims.seq_len / tiles / dims.sel_heads;
    const long long head = sel_head * sel_groups + 16 * tile;
    const int heads = min(16LL, sel_groups - 16 * tile);
    const long long kv_head = sel_head / (dims.sel_heads / dims.kv_heads);
    k += offset(dims.k, b, kv_head, 0);
    v += offset(dims.v, b, kv_head, 0);
    const int row = lane / 4;
    save(query, row < heads ? q + offset(dims.q, b, head + row, i) : 0,
         row + 8 < heads ? q + offset(dims.q, b, head + row + 8, i) : 0, dims.dim, lane);

    Softmax state;
    clear(state);
    bool any = dims.include_diagonal;
    if (dims.include_diagonal) {
        const long long first = i / dims.block_size * dims.block_size;
        absorb(state, query, k, v, first, i - first + 1, 1.0f, dims, lane);
    }
    for (long long s = 0; s < dims.num_sel; ++s) {
        const long long slot = offset(dims.sel, b, sel_head, i) + s;
        if (!mask[slot]) continue;
        const float factor = sel_scale ? sel_scale[slot] : 1.0f;
        absorb(state, query, k, v, indices[slot] * dims.block_size, dims.block_size, factor, dims, lane);
        any = true;
    }
    finish(state, any, out, lse, head, heads, b, i, dims, lane);

    if (dims.window < 0) return;
    clear(state);
    const long long first = max(0LL, i - dims.window);
    absorb(state, query, k, v, first, i - first + 1, 1.0f, dims, lane);
    finish(state, true, sliding_out, sliding_lse, head, heads, b, i, dims, lane);
}
