// dkdv_tensor: partial gradients of k and v, key-outer, 16-bit tensor cores.
//
//   dk_j = sum_i c dS_ij q_i   (without the factor scale, which dkdv_merge applies),   dv_j = sum_i p_ij d_out_i
//
// Each warp holds 16 keys of a task's block; the (token, query head) rows that visit it are gathered 16 at a time:
// S^T = K Q^T and dP^T = V dO^T give P^T and dS^T, whose layout is that of the operand a of P^T dO and dS^T Q.
// Shapes: as in dkdv_plain; dim and value_dim multiples of 8, rows aligned to 16 bytes.
// Launch: (tasks, ceil(block_size / (16 WARPS))) CTAs of WARPS warps, each on its own.
// Accumulation: f32 by m16n8k16; p and c dS rounded to the element before their products; rows in order: own block,
// sliding part; or visits in order, and the query heads of each in order.
#include "mma.cuh"
#include "tasks.cuh"

// DIM_CHUNKS, VALUE_CHUNKS: of 32 features; DIM_GROUPS, VALUE_GROUPS: of 64.
struct KeyRows {
    float dk[8 * DIM_GROUPS][4];
    float dv[8 * VALUE_GROUPS][4];
};

// The rows that a pass over queries visits.
struct Rows {
    const unsigned* visits;  // null: consecutive tokens
    long long first;         // the first of those
    unsigned count;          // visits or tokens, times `heads`
    unsigned heads;
    long long first_head, b, sel_head;
    const element* d_out;
    Strides d_out_strides;
    const float *lse, *delta, *sel_scale;
    long long reach;  // token i sees key j with 0 <= i - j <= reach; negative: every key
};

// One row, as the lane that looked it up knows it.
struct RowInfo {
    long long token, q, d_out;  // offsets in elements
    float lse_log2, delta, factor;
    bool present;
};

// An absent row has weight 0: its lse is infinite.
__device__ __forceinline__ RowInfo find_row(const Rows& rows, unsigned number, const Dims& dims) {
    RowInfo info = {0, 0, 0, INFINITE, 0.0f, 1.0f, number < rows.count};
    if (!info.present) return info;
    const unsigned place = number / rows.heads;
    const long long head = rows.first_head + number % rows.heads;
    info.token = rows.first + place;
    if (rows.visits) {
        const unsigned visit = rows.visits[place];
        const unsigned num_sel = dims.num_sel;
        info.token = visit / num_sel;
        if (rows.sel_scale) {
            info.factor = rows.sel_scale[offset(dims.sel, rows.b, rows.sel_head, info.token) + visit % num_sel];
        }
    }
    info.q = offset(dims.q, rows.b, head, info.token);
    info.d_out = offset(rows.d_out_strides, rows.b, head, info.token);
    info.lse_log2 = rows.lse[offset(dims.lse, rows.b, head, info.token)] * LOG2_E;
    info.delta = rows.delta[(rows.b * dims.q_heads + head) * dims.seq_len + info.token];
    return info;
}

// tile[t] = keys x rows^T for the gathered rows 8 t .. 8 t + 8; `start` is where row 8 t + g begins.
template <int CHUNKS>
__device__ __forceinline__ void products(float (&tile)[2][4], const Saved<CHUNKS>& keys, const element* const (&start)[2],
                                         const bool (&present)[2], long long width, int lane) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) tile[t][e] = 0.0f;
    }
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int feature = 32 * c + 8 * (lane % 4);
#pragma unroll
        for (int t = 0; t < 2; ++t) {
            const Packed row = load_packed(start[t] + feature, present[t] && feature < width);
            multiply_add_features(tile[t], keys.words[2 * c][lane], keys.words[2 * c + 1][lane], row);
        }
    }
}

// sum += a x rows, for this lane's rows 2 j, 2 j + 1, 2 j + 8, 2 j + 9 of the gathered ones.
template <int GROUPS>
__device__ __forceinline__ void add_rows(float (&sum)[8 * GROUPS][4], const float (&tile)[2][4],
                                         const element* const (&start)[4], const bool (&present)[4], long long width,
                                         int lane) {
    unsigned a[4];
    as_operand(a, tile[0], tile[1]);
#pragma unroll
    for (int c = 0; c < GROUPS; ++c) {
        const int feature = 64 * c + 8 * (lane / 4);
        Packed rows[4];
#pragma unroll
        for (int r = 0; r < 4; ++r) rows[r] = load_packed(start[r] + feature, present[r] && feature < width);
        multiply_add_rows(sum + 8 * c, a, rows);
    }
}

// score becomes c dS^T, d_weight becomes p^T.
__device__ __forceinline__ void weigh(float (&score)[2][4], float (&d_weight)[2][4], const RowInfo& info,
                                      const Rows& rows, long long first_key, const Dims& dims, int lane) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
            const int source = 8 * t + 2 * (lane % 4) + side;
            const long long token = __shfl_sync(FULL_WARP, info.token, source);
            const float lse_log2 = __shfl_sync(FULL_WARP, info.lse_log2, source);
            const float delta = __shfl_sync(FULL_WARP, info.delta, source);
            const float factor = __shfl_sync(FULL_WARP, info.factor, source);
#pragma unroll
            for (int below = 0; below < 2; ++below) {
                const int e = 2 * below + side;
                const long long distance = token - (first_key + lane / 4 + 8 * below);
                const bool sees = rows.reach < 0 || (distance >= 0 && distance <= rows.reach);
                const float weight = sees ? exp2f(score[t][e] * factor * dims.scale_log2 - lse_log2) : 0.0f;
                score[t][e] = sees ? factor * (weight * (d_weight[t][e] - delta)) : 0.0f;
                d_weight[t][e] = weight;
            }
        }
    }
}

// Adds what every row sends to this warp's 16 keys. The next rows are looked up while these are multiplied.
__device__ __forceinline__ void absorb(KeyRows& state, const Saved<DIM_CHUNKS>& keys, const Saved<VALUE_CHUNKS>& values,
                                       const element* q, const Rows& rows, long long first_key, const Dims& dims,
                                       int lane) {
    RowInfo next = find_row(rows, lane % 16, dims);
    for (unsigned first = 0; first < rows.count; first += 16) {
        const RowInfo info = next;
        next = find_row(rows, first + 16 + lane % 16, dims);
        const element *q_row[2], *d_out_row[2], *q_rows[4], *d_out_rows[4];
        bool row_present[2], rows_present[4];
#pragma unroll
        for (int t = 0; t < 2; ++t) {
            const int source = 8 * t + lane / 4;
            q_row[t] = q + __shfl_sync(FULL_WARP, info.q, source);
            d_out_row[t] = rows.d_out + __shfl_sync(FULL_WARP, info.d_out, source);
            row_present[t] = first + source < rows.count;
        }
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int source = 2 * (lane % 4) + r % 2 + r / 2 * 8;
            q_rows[r] = q + __shfl_sync(FULL_WARP, info.q, source);
            d_out_rows[r] = rows.d_out + __shfl_sync(FULL_WARP, info.d_out, source);
            rows_present[r] = first + source < rows.count;
        }
        float score[2][4], d_weight[2][4];
        products(score, keys, q_row, row_present, dims.dim, lane);
        products(d_weight, values, d_out_row, row_present, dims.value_dim, lane);
        weigh(score, d_weight, info, rows, first_key, dims, lane);
        add_rows<VALUE_GROUPS>(state.dv, d_weight, d_out_rows, rows_present, dims.value_dim, lane);
        add_rows<DIM_GROUPS>(state.dk, score, q_rows, rows_present, dims.dim, lane);
    }
}

// Stores a result's features of row g (below: g + 8) in f32.
template <int GROUPS>
__device__ __forceinline__ void store_partial(float* row, const float (&sum)[8 * GROUPS][4], int below, long long width,
                                              int lane) {
#pragma unroll
    for (int t = 0; t < 8 * GROUPS; ++t) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
            const int feature = t / 8 * 64 + 8 * (2 * (lane % 4) + side) + t % 8;
            if (feature < width) row[feature] = sum[t][2 * below + side];
        }
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
dkdv_tensor(const element* q, const element* k, const element* v, const float* sel_scale, const float* lse,
            const element* d_out, const float* delta, const float* sliding_lse, const element* d_sliding,
            const float* sliding_delta, const unsigned* visits, const unsigned* starts, const unsigned* segment_starts,
            float* partial, Dims dims) {
    __shared__ Saved<DIM_CHUNKS> all_keys[WARPS];
    __shared__ Saved<VALUE_CHUNKS> all_values[WARPS];
    Saved<DIM_CHUNKS>& keys = all_keys[threadIdx.x / 32];
    Saved<VALUE_CHUNKS>& values = all_values[threadIdx.x / 32];
    const int lane = threadIdx.x % 32;
    const long long within = 16LL * (blockIdx.y * WARPS + threadIdx.x / 32);
    Task task;
    if (within >= dims.block_size || !find_task(task, blockIdx.x, visits, starts, segment_starts, dims)) return;
    const long long first_key = task.block * dims.block_size + within;
    if (first_key >= dims.seq_len) return;
    // Keys of this warp: beyond them lies the next block, or padding, whose gradient falls on padding.
    const int count = min(min(16LL, dims.block_size - within), dims.seq_len - first_key);
    const element* key = k + offset(dims.k, task.b, task.kv_head, first_key + lane / 4);
    const element* value = v + offset(dims.v, task.b, task.kv_head, first_key + lane / 4);
    const bool present = lane / 4 < count, present_below = lane / 4 + 8 < count;
    save(keys, present ? key : 0, present_below ? key + 8 * dims.k.token : 0, dims.dim, lane);
    save(values, present ? value : 0, present_below ? value + 8 * dims.v.token : 0, dims.value_dim, lane);

    KeyRows state;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
        for (int t = 0; t < 8 * DIM_GROUPS; ++t) state.dk[t][e] = 0.0f;
#pragma unroll
        for (int t = 0; t < 8 * VALUE_GROUPS; ++t) state.dv[t][e] = 0.0f;
    }
    const bool own = task.visits == 0;
    const long long heads = dims.q_heads / (own ? dims.kv_heads : dims.sel_heads);
    Rows rows = {task.visits, first_key, 0, (unsigned)heads, (own ? task.kv_head : task.sel_head) * heads, task.b,
                 task.sel_head, d_out, dims.d_out, lse, delta, sel_scale, own ? dims.block_size : -1};
    // First the selected part: the block's own queries, or its visitors; then the sliding part.
    const long long block_end = min((task.block + 1) * dims.block_size, dims.seq_len);
    rows.count = heads * (!own ? task.count : dims.include_diagonal ? block_end - first_key : 0);
    for (int part = 0; part < (own && dims.window >= 0 ? 2 : 1); ++part) {
        if (part == 1) {
            rows.count = heads * (min(first_key + count + dims.window, dims.seq_len) - first_key);
            rows.d_out = d_sliding;
            rows.d_out_strides = dims.d_sliding;
            rows.lse = sliding_lse;
            rows.delta = sliding_delta;
            rows.reach = dims.window;
        }
        absorb(state, keys, values, q, rows, first_key, dims, lane);
    }
#pragma unroll
    for (int below = 0; below < 2; ++below) {
        const int row = lane / 4 + 8 * below;
        if (row >= count) continue;
        float* target = partial + (blockIdx.x * dims.block_size + within + row) * (dims.dim + dims.value_dim);
        store_partial<DIM_GROUPS>(target, state.dk, below, dims.dim, lane);
        store_partial<VALUE_GROUPS>(target + dims.dim, state.dv, below, dims.value_dim, lane);
    }
}
