// How the key-outer backward is cut into tasks, one partial sum of dk and dv for each.
//
// For each batch entry: first kv_heads * blocks tasks that hold a block's own queries (its diagonal and its sliding
// part), then sel_heads * segments tasks, each a segment of one block's visits. So block 0, which every token may
// select, is shared by many tasks, and partial sums meet in a fixed order.
#pragma once
#include "common.cuh"

struct Task {
    long long b, kv_head, block;
    // A segment of visits of one selection head; `visits` is null for a block's own queries.
    const unsigned* visits;
    long long count, sel_head;
};

__device__ __forceinline__ long long tasks_per_batch(const Dims& dims) {
    return dims.kv_heads * dims.blocks + dims.sel_heads * dims.segments;
}

// The block whose segments contain `segment`: the last with segment_starts[block] <= segment.
__device__ __forceinline__ long long find_block(const unsigned* segment_starts, long long segment, long long blocks) {
    long long low = 0, high = blocks;
    while (high - low > 1) {
        const long long middle = (low + high) / 2;
        if (segment_starts[middle] <= segment) low = middle;
        else high = middle;
    }
    return low;
}

// False for a task number beyond the segments that this problem has.
__device__ __forceinline__ bool find_task(Task& task, long long number, const unsigned* visits, const unsigned* starts,
                                          const unsigned* segment_starts, const Dims& dims) {
    task.b = number / tasks_per_batch(dims);
    const long long within = number % tasks_per_batch(dims);
    task.visits = 0;
    task.count = 0;
    task.sel_head = 0;
    if (within < dims.kv_heads * dims.blocks) {
        task.kv_head = within / dims.blocks;
        task.block = within % dims.blocks;
        return true;
    }
    const long long segment = (within - dims.kv_heads * dims.blocks) % dims.segments;
    task.sel_head = (within - dims.kv_heads * dims.blocks) / dims.segments;
    task.kv_head = task.sel_head / (dims.sel_heads / dims.kv_heads);
    const long long list = task.b * dims.sel_heads + task.sel_head;
    segment_starts += list * (dims.blocks + 1);
    starts += list * (dims.blocks + 1);
    if (segment >= segment_starts[dims.blocks]) return false;
    task.block = find_block(segment_starts, segment, dims.blocks);
    const long long skipped = (segment - segment_starts[task.block]) * dims.segment_visits;
    task.count = min(dims.segment_visits, (long long)starts[task.block + 1] - starts[task.block] - skipped);
    task.visits = visits + list * dims.seq_len * dims.num_sel + starts[task.block] + skipped;
    return true;
}
