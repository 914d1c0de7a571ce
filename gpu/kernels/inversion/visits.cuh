// The inverted index: which (token, slot) pairs of a selection head select each block.
//
// A visit is the number i * num_sel + s of a live slot. A stable counting sort by block, without atomics: visits are
// cut into chunks, one warp for each; `counts[block][chunk]` is filled by visit_count, summed up by visit_scan, and
// turned into positions by visit_fill. The order within a block is that of the visits, whatever the schedule.
#pragma once
#include "common.cuh"

// The chunk that a warp works on, and its place in the tables.
struct Chunk {
    long long b, sel_head, number, first, last;
    unsigned* counts;  // of this selection head, [blocks][chunks]
};

__device__ __forceinline__ bool find_chunk(Chunk& chunk, unsigned* counts, const Dims& dims) {
    const long long task = blockIdx.x * 4LL + threadIdx.x / 32;
    if (task >= dims.batch * dims.sel_heads * dims.chunks) return false;
    const long long list = task / dims.chunks;
    chunk.number = task % dims.chunks;
    chunk.b = list / dims.sel_heads;
    chunk.sel_head = list % dims.sel_heads;
    chunk.first = chunk.number * dims.chunk_visits;
    chunk.last = min(chunk.first + dims.chunk_visits, dims.seq_len * dims.num_sel);
    chunk.counts = counts + list * dims.blocks * dims.chunks;
    return true;
}

// The block that `visit` selects, or none (all ones) beyond the chunk and where the mask is false.
__device__ __forceinline__ unsigned visited_block(const Chunk& chunk, long long visit, const unsigned* indices,
                                                  const unsigned char* mask, const Dims& dims) {
    if (visit >= chunk.last) return 0xffffffffu;
    const long long slot = offset(dims.sel, chunk.b, chunk.sel_head, visit / dims.num_sel) + visit % dims.num_sel;
    return mask[slot] ? indices[slot] : 0xffffffffu;
}
