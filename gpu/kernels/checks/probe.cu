// probe: counts the words of shared memory that are not what `poison` left there, without writing any first.
//
//   report[0] = #{ words that are not pattern },   report[1] = CTAs of a cluster,   report[2 + SM] = CTAs that ran there
//
// Shapes: memory [words], dynamic shared memory; report [2 + SM_NUMBERS], zeros before: SMs are not numbered without holes.
// Launch: as many CTAs of 1024 threads as there are SMs, each held as in `poison`.
// Accumulation: whole numbers, by atomics, which give the same sum in any order.
#define HELD_CYCLES 20000
#define SM_NUMBERS 1024

__device__ __forceinline__ unsigned cluster_size() {
    unsigned size = 1;
#if __CUDA_ARCH__ >= 900
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
#endif
    return size;
}

extern "C" __global__ void __launch_bounds__(1024)
probe(unsigned* report, unsigned words, unsigned pattern) {
    extern __shared__ unsigned memory[];
    const long long begin = clock64();
    unsigned different = 0;
    for (unsigned word = threadIdx.x; word < words; word += blockDim.x) {
        different += ((volatile unsigned*)memory)[word] != pattern;
    }
    if (different > 0) atomicAdd(report, different);
    if (threadIdx.x == 0) {
        unsigned sm;
        asm("mov.u32 %0, %%smid;" : "=r"(sm));
        if (sm < SM_NUMBERS) atomicAdd(report + 2 + sm, 1);
        report[1] = cluster_size();
    }
    while (clock64() - begin < HELD_CYCLES) {}
}
