// dkdv_merge: the partial sums of every task of a block, added in task order.
//
//   dk_j = scale sum_tasks partial_dk,   dv_j = sum_tasks partial_dv
//
// Shapes: partial [tasks, block_size, dim + value_dim] in f32; segment_starts [b sel_heads, blocks + 1];
// dk [b, kv_heads, n, dim], dv [b, kv_heads, n, value_dim].
// Launch: b kv_heads n CTAs of 128 threads: one CTA for each key, features over the threads.
// Accumulation: f32; the block's own queries first, then selection head by selection head, segment by segment.
#include "tasks.cuh"

extern "C" __global__ void __launch_bounds__(128)
dkdv_merge(const float* partial, const unsigned* segment_starts, element* dk, element* dv, Dims dims) {
    const long long key = blockIdx.x % dims.seq_len;
    const long long kv_head = blockIdx.x / dims.seq_len % dims.kv_heads;
    const long long b = blockIdx.x / dims.seq_len / dims.kv_heads;
    const long long block = key / dims.block_size;
    const long long width = dims.dim + dims.value_dim;
    const long long slice = dims.block_size * width;
    const long long sel_heads = dims.sel_heads / dims.kv_heads;
    partial += b * tasks_per_batch(dims) * slice + key % dims.block_size * width;

    for (long long d = threadIdx.x; d < width; d += blockDim.x) {
        float sum = partial[(kv_head * dims.blocks + block) * slice + d];
        for (long long sel_head = kv_head * sel_heads; sel_head < (kv_head + 1) * sel_heads; ++sel_head) {
            const unsigned* segments = segment_starts + (b * dims.sel_heads + sel_head) * (dims.blocks + 1);
            const long long first_task = dims.kv_heads * dims.blocks + sel_head * dims.segments;
            for (unsigned segment = segments[block]; segment < segments[block + 1]; ++segment) {
                sum += partial[(first_task + segment) * slice + d];
            }
        }
        if (d < dims.dim) dk[offset(dims.dk, b, kv_head, key) + d] = narrow(dims.scale * sum);
        else dv[offset(dims.dv, b, kv_head, key) + d - dims.dim] = narrow(sum);
    }
}
