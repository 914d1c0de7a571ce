// forward_plain: one warp for each (batch, query head, token), any size, f32 arithmetic.
//
//   s_t = c_t scale <q_i, k_t>          over the diagonal's keys and every live slot's, with multiplicity
//   out = sum_t exp(s_t - m) v_t / l,   l = sum_t exp(s_t - m),   lse = m + ln l
//
// Shapes: q [b, q_heads, n, dim], k [b, kv_heads, n, dim], v [b, kv_heads, n, value_dim], indices, mask and sel_scale
// [b, sel_heads, n, num_sel] (sel_scale may be null: 1), out and sliding_out [b, q_heads, n, value_dim], lse and
// sliding_lse [b, q_heads, n] (the sliding ones only where window >= 0).
// Launch: ceil(b q_heads n / 4) CTAs of 4 warps; tokens vary fastest.
// Accumulation: f32 multiply-adds; dot products by 32 lanes and a butterfly; online softmax in base 2 with one
// rescaling per block (per 256 keys in the sliding part), keys in order: diagonal, then slots.
#include "rows.cuh"

// Keys whose scores a warp holds at once: a whole block at most, so that a block rescales the sums once.
#define SPAN_STEPS 8

struct Softmax {
    float highest;  // of the scores so far, in base 2
    float sum;      // of exp2(score - highest)
    Row<VALUE_STEPS> out;
};

__device__ __forceinline__ Softmax empty_softmax() {
    Softmax state;
    state.highest = -INFINITE;
    state.sum = 0.0f;
    state.out = zero_row<VALUE_STEPS>();
    return state;
}

// Adds keys first .. first + count, at most 256 of them. Keys from seq_len on are padding: score 0, value 0.
__device__ void absorb(Softmax& state, const Row<DIM_STEPS>& query, const element* k, const element* v, long long first,
                       int count, float factor, const Dims& dims, int lane) {
    float score[SPAN_STEPS];
    float highest = state.highest;
#pragma unroll
    for (int r = 0; r < SPAN_STEPS; ++r) {
        score[r] = -INFINITE;
        for (int j = 0; j < 32 && 32 * r + j < count; ++j) {
            const long long key = first + 32 * r + j;
            float product = 0.0f;
            if (key < dims.seq_len) product = dot(query, load_row<DIM_STEPS>(k + key * dims.k.token, dims.dim, lane));
            if (lane == j) score[r] = product * factor * dims.scale_log2;
        }
        highest = fmaxf(highest, score[r]);
    }
    highest = warp_max(highest);
    // With every score at minus infinity so far, the weights are 0, not NaN.
    const float shift = highest == -INFINITE ? 0.0f : highest;
    const float rescale = exp2f(state.highest - shift);
    state.highest = highest;
    state.sum *= rescale;
    multiply(state.out, rescale);
    float sum = 0.0f;
#pragma unroll
    for (int r = 0; r < SPAN_STEPS; ++r) {
        const float weight = exp2f(score[r] - shift);
        sum += weight;
        for (int j = 0; j < 32 && 32 * r + j < count; ++j) {
            const long long key = first + 32 * r + j;
            const float shared_weight = __shfl_sync(FULL_WARP, weight, j);
            if (key < dims.seq_len) {
                add_scaled(state.out, shared_weight, load_row<VALUE_STEPS>(v + key * dims.v.token, dims.value_dim, lane));
            }
        }
    }
    state.sum += warp_sum(sum);
}

// Writes out and lse of one row; a row without any key has out 0 and lse minus infinity.
__device__ void finish(Softmax& state, bool any, element* out, float* lse, const Dims& dims, int lane) {
#pragma unroll
    for (int r = 0; r < VALUE_STEPS; ++r) state.out.at[r] = any ? state.out.at[r] / state.sum : 0.0f;
    store_row(out, state.out, dims.value_dim, lane);
    if (lane == 0) *lse = any ? state.highest * LN_2 + logf(state.sum) : -INFINITE;
}

extern "C" __global__ void __launch_bounds__(128)
forward_plain(const element* q, const element* k, const element* v, const unsigned* indices, const unsigned char* mask,
              const float* sel_scale, element* out, float* lse, element* sliding_out, float* sliding_lse, Dims dims) {
    const int lane = threadIdx.x % 32;
    const long long row = blockIdx.x * 4LL + threadIdx.x / 32;
    if (row >= dims.batch * dims.q_heads * dims.seq_len) return;
    const long long i = row % dims.seq_len;
    const long long head = row / dims.seq_len % dims.q_heads;
    const long long b = row / dims.seq_len / dims.q_heads;
    const long long kv_head = head / (dims.q_heads / dims.kv_heads);
    const long long sel_head = head / (dims.q_heads / dims.sel_heads);
    k += offset(dims.k, b, kv_head, 0);
    v += offset(dims.v, b, kv_head, 0);
    const Row<DIM_STEPS> query = load_row<DIM_STEPS>(q + offset(dims.q, b, head, i), dims.dim, lane);

    Softmax state = empty_softmax();
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
    finish(state, any, out + offset(dims.out, b, head, i), lse + offset(dims.lse, b, head, i), dims, lane);

    if (dims.window < 0) return;
    state = empty_softmax();
    for (long long first = max(0LL, i - dims.window); first <= i; first += 32 * SPAN_STEPS) {
        absorb(state, query, k, v, first, min(32LL * SPAN_STEPS, i - first + 1), 1.0f, dims, lane);
    }
    finish(state, true, sliding_out + offset(dims.out, b, head, i), sliding_lse + offset(dims.lse, b, head, i), dims, lane);
}
