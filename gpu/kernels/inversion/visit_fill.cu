// visit_fill: the visits of each block, in their own order.
//
//   visits[list][starts[block] ..  starts[block + 1]] = the visits that select the block, ascending
//
// Shapes: indices and mask [b, sel_heads, n, num_sel]; positions (what visit_scan made of the counts)
// [b sel_heads, blocks, chunks], used up here; visits [b sel_heads, n num_sel].
// Launch: ceil(b sel_heads chunks / 4) CTAs of 4 warps, one warp for each chunk.
// Accumulation: whole numbers; equal blocks within a warp take consecutive places in lane order.
#include "visits.cuh"

extern "C" __global__ void __launch_bounds__(128)
visit_fill(const unsigned* indices, const unsigned char* mask, unsigned* positions, unsigned* visits, Dims dims) {
    const int lane = threadIdx.x % 32;
    Chunk chunk;
    if (!find_chunk(chunk, positions, dims)) return;
    visits += (chunk.b * dims.sel_heads + chunk.sel_head) * dims.seq_len * dims.num_sel;
    for (long long first = chunk.first; first < chunk.last; first += 32) {
        const unsigned block = visited_block(chunk, first + lane, indices, mask, dims);
        const bool live = block != 0xffffffffu;
        const unsigned peers = __match_any_sync(FULL_WARP, block);
        const int rank = __popc(peers & ((1u << lane) - 1));
        unsigned position = 0;
        if (live && rank == 0) {
            position = chunk.counts[block * dims.chunks + chunk.number];
            chunk.counts[block * dims.chunks + chunk.number] = position + __popc(peers);
        }
        position = __shfl_sync(FULL_WARP, position, __ffs(peers) - 1);
        if (live) visits[position + rank] = first + lane;
        __syncwarp();
    }
}
