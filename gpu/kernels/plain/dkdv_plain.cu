// dkdv_plain: partial gradients of k and v, key-outer, any size, f32 arithmetic.
//
//   dk_j = sum_i c dS_ij q_i   (without the factor scale, which dkdv_merge applies),   dv_j = sum_i p_ij d_out_i
//
// Shapes: as in dq_plain; visits, starts and segment_starts as visit_fill and visit_scan made them; partial
// [tasks, block_size, dim + value_dim] in f32, dk beside dv, one slice for each task of tasks.cuh.
// Launch: (tasks, ceil(block_size / 8)) CTAs of 8 warps: one warp for each key of a task.
// Accumulation: f32 multiply-adds, one query row after another: own block, sliding part; or visits in order, and the
// query heads of each in order.
#include "rows.cuh"
#include "tasks.cuh"

struct KeyRow {
    Row<DIM_STEPS> key, dk;
    Row<VALUE_STEPS> value, dv;
};

// Adds what query row (b, head, i) sends to this key.
__device__ __forceinline__ void absorb(KeyRow& row, const element* q, const element* d_out, float lse, float delta,
                                       float factor, const Dims& dims, int lane) {
    const Row<DIM_STEPS> query = load_row<DIM_STEPS>(q, dims.dim, lane);
    const Row<VALUE_STEPS> gradient = load_row<VALUE_STEPS>(d_out, dims.value_dim, lane);
    const float weight = exp2f(dot(query, row.key) * factor * dims.scale_log2 - lse * LOG2_E);
    const float d_score = weight * (dot(gradient, row.value) - delta);
    add_scaled(row.dk, factor * d_score, query);
    add_scaled(row.dv, weight, gradient);
}

extern "C" __global__ void __launch_bounds__(256)
dkdv_plain(const element* q, const element* k, const element* v, const float* sel_scale, const float* lse,
           const element* d_out, const float* delta, const float* sliding_lse, const element* d_sliding,
           const float* sliding_delta, const unsigned* visits, const unsigned* starts, const unsigned* segment_starts,
           float* partial, Dims dims) {
    const int lane = threadIdx.x % 32;
    const long long within = blockIdx.y * 8LL + threadIdx.x / 32;
    Task task;
    if (within >= dims.block_size || !find_task(task, blockIdx.x, visits, starts, segment_starts, dims)) return;
    const long long key = task.block * dims.block_size + within;
    // A padded key's gradient falls on padding.
    if (key >= dims.seq_len) return;
    KeyRow row;
    row.key = load_row<DIM_STEPS>(k + offset(dims.k, task.b, task.kv_head, key), dims.dim, lane);
    row.value = load_row<VALUE_STEPS>(v + offset(dims.v, task.b, task.kv_head, key), dims.value_dim, lane);
    row.dk = zero_row<DIM_STEPS>();
    row.dv = zero_row<VALUE_STEPS>();

    const bool own = task.visits == 0;
    const long long heads = own ? dims.q_heads / dims.kv_heads : dims.q_heads / dims.sel_heads;
    const long long first_head = own ? task.kv_head * heads : task.sel_head * heads;
    for (long long g = 0; g < heads && own; ++g) {
        const long long head = first_head + g;
        const long long saved = (task.b * dims.q_heads + head) * dims.seq_len;
        const long long last = dims.include_diagonal ? min((task.block + 1) * dims.block_size, dims.seq_len) : key;
        for (long long i = key; i < last; ++i) {
            absorb(row, q + offset(dims.q, task.b, head, i), d_out + offset(dims.d_out, task.b, head, i),
                   lse[offset(dims.lse, task.b, head, i)], delta[saved + i], 1.0f, dims, lane);
        }
        const long long seen = dims.window < 0 ? key : min(key + dims.window + 1, dims.seq_len);
        for (long long i = key; i < seen; ++i) {
            absorb(row, q + offset(dims.q, task.b, head, i), d_sliding + offset(dims.d_sliding, task.b, head, i),
                   sliding_lse[offset(dims.lse, task.b, head, i)], sliding_delta[saved + i], 1.0f, dims, lane);
        }
    }
    for (long long visit = 0; visit < task.count; ++visit) {
        const long long i = task.visits[visit] / dims.num_sel;
        const long long slot = offset(dims.sel, task.b, task.sel_head, i) + task.visits[visit] % dims.num_sel;
        const float factor = sel_scale ? sel_scale[slot] : 1.0f;
        for (long long head = first_head; head < first_head + heads; ++head) {
            absorb(row, q + offset(dims.q, task.b, head, i), d_out + offset(dims.d_out, task.b, head, i),
                   lse[offset(dims.lse, task.b, head, i)], delta[(task.b * dims.q_heads + head) * dims.seq_len + i],
                   factor, dims, lane);
        }
    }
    partial += (blockIdx.x * dims.block_size + within) * (dims.dim + dims.value_dim);
    store_row_f32(partial, row.dk, dims.dim, lane);
    store_row_f32(partial + dims.dim, row.dv, dims.value_dim, lane);
}
