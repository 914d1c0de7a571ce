// What every kernel shares: the sizes and strides of a problem, the storage element, and sums over a warp.
//
// Axes: b batch, h kv head, i query token, s selection slot, j key, d feature. No CUDA header is included, so that the
// compiler library alone suffices.
#pragma once

#define FULL_WARP 0xffffffffu
#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f
#define INFINITE __int_as_float(0x7f800000)

// Element strides of one tensor whose last axis is contiguous: both `b h n d` and `b n h d` views fit.
struct Strides {
    long long batch, head, token;
};

// Every size and stride of a launch. The same fields in the same order as `Dims` in src/dims.rs.
struct Dims {
    long long batch, q_heads, kv_heads, sel_heads, seq_len, dim, value_dim, block_size, num_sel, blocks;
    // The sliding window, or -1 without one; whether a query attends to its own block.
    long long window, include_diagonal;
    // The inverted index: visits per chunk of the counting sort, chunks, visits per segment, segments at most.
    long long chunk_visits, chunks, segment_visits, segments;
    Strides q, k, v, sel, out, lse, d_out, d_sliding, d_lse, dq, dk, dv, dsel_scale;
    // dim^(-1/2), and that times log2(e): scores are exponentiated in base 2.
    float scale, scale_log2;
};

__device__ __forceinline__ long long offset(const Strides& strides, long long b, long long head, long long token) {
    return b * strides.batch + head * strides.head + token * strides.token;
}

#if ELEMENT == 0  // f32
typedef float element;
__device__ __forceinline__ float widen(element value) { return value; }
__device__ __forceinline__ element narrow(float value) { return value; }
#elif ELEMENT == 1  // f16
typedef unsigned short element;
__device__ __forceinline__ float widen(element value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value));
    return wide;
}
__device__ __forceinline__ element narrow(float value) {
    element half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}
#elif ELEMENT == 2  // bf16: the upper half of an f32
typedef unsigned short element;
__device__ __forceinline__ float widen(element value) { return __uint_as_float((unsigned)value << 16); }
__device__ __forceinline__ element narrow(float value) {
    element half;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}
#endif

// The sum over the warp, the same in every lane: a butterfly, so the order is fixed.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(FULL_WARP, value, step);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, step));
    return value;
}
