// poison: fills the shared memory of every SM, so that a kernel which reads what it did not write gets no answer by luck.
//
//   memory[..] = pattern;   all bits set are NaN as f32, f16 and bf16, and an index far out of range
//
// Shapes: memory [words], dynamic shared memory: as much as a CTA may have.
// Launch: as many CTAs of 1024 threads as there are SMs. One alone fills an SM's shared memory, so no SM holds two at once; each
// keeps its SM until every other CTA has surely begun on its own.
// Accumulation: none.
#define HELD_CYCLES 20000

extern "C" __global__ void __launch_bounds__(1024)
poison(unsigned words, unsigned pattern) {
    extern __shared__ unsigned memory[];
    const long long begin = clock64();
    // Volatile: nobody reads these words, as far as the compiler knows.
    for (unsigned word = threadIdx.x; word < words; word += blockDim.x) ((volatile unsigned*)memory)[word] = pattern;
    while (clock64() - begin < HELD_CYCLES) {}
}
