// Tensor-core building blocks for 16-bit elements: m16n8k16 products with f32 accumulation, fed straight from global
// memory. A warp uses each key exactly once, so a tile in shared memory would only be a detour.
//
// A product contracts over an index that both operands may number in any order, as long as it is the same one. That
// freedom makes every load one of 16 bytes:
//   * rows contracted over features (q k^T, d_out v^T): lane l holds features 32 c + 8 (l % 4) .. + 8 of its row; the
//     first four feed one product, the last four the next;
//   * rows contracted over rows (p v, dS k): lane l holds features 64 c + 8 (l / 4) .. + 8 of four rows; tile t = 0..8
//     of the result then has feature 64 c + 8 column + t in its column.
// Layout of a product's operands and result: lane l = 4 g + j has rows g and g + 8, columns 2 j and 2 j + 1.
#pragma once
#include "common.cuh"

// Eight features of one row, two in each word.
typedef uint4 Packed;

__device__ __forceinline__ Packed load_packed(const element* source, bool valid) {
    return valid ? *reinterpret_cast<const Packed*>(source) : make_uint4(0, 0, 0, 0);
}

// Two f32 values rounded to the element: `low` in the lower half.
__device__ __forceinline__ unsigned pack(float low, float high) {
    return narrow(low) | (unsigned)narrow(high) << 16;
}

// sum += a b: a is 16 x 16 by rows (words: row g, row g + 8, then the same 8 columns on), b is 16 x 8.
__device__ __forceinline__ void multiply_add(float (&sum)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                             unsigned b0, unsigned b1) {
#if ELEMENT == 1
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}

// sum += a b over 32 features: a's rows g and g + 8, b's row g, each this lane's eight features.
__device__ __forceinline__ void multiply_add_features(float (&sum)[4], Packed a, Packed a_below, Packed b) {
    multiply_add(sum, a.x, a_below.x, a.y, a_below.y, b.x, b.y);
    multiply_add(sum, a.z, a_below.z, a.w, a_below.w, b.z, b.w);
}

// The operand b of tile t from rows `first` and `second` (the same eight features of each): the two rows' feature t.
template <int T>
__device__ __forceinline__ unsigned pair(Packed first, Packed second) {
    const unsigned a = T / 2 == 0 ? first.x : T / 2 == 1 ? first.y : T / 2 == 2 ? first.z : first.w;
    const unsigned b = T / 2 == 0 ? second.x : T / 2 == 1 ? second.y : T / 2 == 2 ? second.z : second.w;
    return __byte_perm(a, b, T % 2 == 0 ? 0x5410 : 0x7632);
}

// sum[0..8] += a b over 16 rows: `rows` are this lane's eight features of rows 2 j, 2 j + 1, 2 j + 8, 2 j + 9.
template <int T = 0>
__device__ __forceinline__ void multiply_add_rows(float (*sum)[4], const unsigned (&a)[4], const Packed (&rows)[4]) {
    multiply_add(sum[T], a[0], a[1], a[2], a[3], pair<T>(rows[0], rows[1]), pair<T>(rows[2], rows[3]));
    if constexpr (T + 1 < 8) multiply_add_rows<T + 1>(sum, a, rows);
}

// A result tile pair as the operand a of the next product, rounded to the element: columns become contracted rows.
__device__ __forceinline__ void as_operand(unsigned (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack(left[0], left[1]);
    a[1] = pack(left[2], left[3]);
    a[2] = pack(right[0], right[1]);
    a[3] = pack(right[2], right[3]);
}

// Stores features 64 c + 16 j .. + 16 of a result's row (0: row g, 1: row g + 8) times `factor`.
__device__ __forceinline__ void store_features(element* row, const float (*sum)[4], int below, float factor, int chunk,
                                               long long width, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const long long feature = 64 * chunk + 16 * (lane % 4) + 8 * half;
        if (feature >= width) continue;
        const int e = 2 * below + half;
        Packed words;
        words.x = pack(sum[0][e] * factor, sum[1][e] * factor);
        words.y = pack(sum[2][e] * factor, sum[3][e] * factor);
        words.z = pack(sum[4][e] * factor, sum[5][e] * factor);
        words.w = pack(sum[6][e] * factor, sum[7][e] * factor);
        *reinterpret_cast<Packed*>(row + feature) = words;
    }
}

// The sum or maximum over the four lanes that share a result's row.
__device__ __forceinline__ float row_sum(float value) {
    value += __shfl_xor_sync(FULL_WARP, value, 1);
    return value + __shfl_xor_sync(FULL_WARP, value, 2);
}

__device__ __forceinline__ float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, 1));
    return fmaxf(value, __shfl_xor_sync(FULL_WARP, value, 2));
}

// This lane's part of 16 rows as the operand a of products over features, kept in shared memory: the lane that writes a
// word is the one that reads it, so no barrier is needed.
template <int CHUNKS>
struct Saved {
    Packed words[2 * CHUNKS][32];
};

// Keeps rows g and g + 8; an absent row (null) counts as zeros.
template <int CHUNKS>
__device__ __forceinline__ void save(Saved<CHUNKS>& saved, const element* row, const element* below, long long width,
                                     int lane) {
#pragma unroll
    for (int c = 0; c < CHUNKS; ++c) {
        const int feature = 32 * c + 8 * (lane % 4);
        saved.words[2 * c][lane] = load_packed(row + feature, row && feature < width);
        saved.words[2 * c + 1][lane] = load_packed(below + feature, below && feature < width);
    }
}
