// visit_count: how many live slots of each chunk select each block.
//
//   counts[list][block][chunk] = #{ visits of the chunk that select the block },   list = b sel_heads + sel_head
//
// Shapes: indices and mask [b, sel_heads, n, num_sel]; counts [b sel_heads, blocks, chunks].
// Launch: ceil(b sel_heads chunks / 4) CTAs of 4 warps, one warp for each chunk.
// Accumulation: whole numbers; equal blocks within a warp are counted by a vote, so no atomic is needed.
#include "visits.cuh"

extern "C" __global__ void __launch_bounds__(128)
visit_count(const unsigned* indices, const unsigned char* mask, unsigned* counts, Dims dims) {
    const int lane = threadIdx.x % 32;
    Chunk chunk;
    if (!find_chunk(chunk, counts, dims)) return;
    for (long long block = lane; block < dims.blocks; block += 32) chunk.counts[block * dims.chunks + chunk.number] = 0;
    __syncwarp();
    for (long long first = chunk.first; first < chunk.last; first += 32) {
        const unsigned block = visited_block(chunk, first + lane, indices, mask, dims);
        const unsigned peers = __match_any_sync(FULL_WARP, block);
        const bool leader = (peers & ((1u << lane) - 1)) == 0;
        if (leader && block != 0xffffffffu) chunk.counts[block * dims.chunks + chunk.number] += __popc(peers);
        __syncwarp();
    }
}
