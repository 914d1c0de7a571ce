// visit_scan: from counts to positions, and the segments that long lists of visits are cut into.
//
//   counts   <- exclusive running sum over (block, chunk)
//   starts[list][block]         = visits of earlier blocks;   starts[list][blocks] = all visits
//   segment_starts[list][block] = segments of earlier blocks, where a block of c visits has ceil(c / segment_visits)
//
// Shapes: counts [b sel_heads, blocks, chunks]; starts and segment_starts [b sel_heads, blocks + 1].
// Launch: b sel_heads CTAs of 1024 threads, one for each list.
// Accumulation: whole numbers.
#include "common.cuh"

#define THREADS 1024

// Exclusive running sum of `value` over the CTA, plus `carry`, which grows by the total.
__device__ unsigned running_sum(unsigned value, unsigned& carry) {
    __shared__ unsigned sums[THREADS];
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int step = 1; step < THREADS; step *= 2) {
        const unsigned earlier = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
        __syncthreads();
        sums[threadIdx.x] += earlier;
        __syncthreads();
    }
    const unsigned before = carry + sums[threadIdx.x] - value;
    carry += sums[THREADS - 1];
    __syncthreads();
    return before;
}

extern "C" __global__ void __launch_bounds__(THREADS)
visit_scan(unsigned* counts, unsigned* starts, unsigned* segment_starts, Dims dims) {
    const long long cells = dims.blocks * dims.chunks;
    counts += blockIdx.x * cells;
    starts += blockIdx.x * (dims.blocks + 1);
    segment_starts += blockIdx.x * (dims.blocks + 1);

    unsigned visits = 0;
    for (long long first = 0; first < cells; first += THREADS) {
        const long long cell = first + threadIdx.x;
        const unsigned before = running_sum(cell < cells ? counts[cell] : 0, visits);
        if (cell >= cells) continue;
        counts[cell] = before;
        if (cell % dims.chunks == 0) starts[cell / dims.chunks] = before;
    }
    if (threadIdx.x == 0) starts[dims.blocks] = visits;
    __syncthreads();

    unsigned segments = 0;
    for (long long first = 0; first < dims.blocks; first += THREADS) {
        const long long block = first + threadIdx.x;
        const unsigned own = block < dims.blocks ? starts[block + 1] - starts[block] : 0;
        const unsigned before = running_sum((own + dims.segment_visits - 1) / dims.segment_visits, segments);
        if (block < dims.blocks) segment_starts[block] = before;
    }
    if (threadIdx.x == 0) segment_starts[dims.blocks] = segments;
}
