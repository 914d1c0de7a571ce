// A row of features spread over a warp: feature `lane + 32 r` lies in register r. Reads are coalesced, and a dot
// product is DIM_STEPS multiply-adds in f32 and one butterfly.
//
// DIM_STEPS and VALUE_STEPS (registers per lane) bound dim and value_dim from above by 32 each.
#pragma once
#include "common.cuh"

template <int STEPS>
struct Row {
    float at[STEPS];
};

template <int STEPS>
__device__ __forceinline__ Row<STEPS> zero_row() {
    Row<STEPS> row;
#pragma unroll
    for (int r = 0; r < STEPS; ++r) row.at[r] = 0.0f;
    return row;
}

template <int STEPS>
__device__ __forceinline__ Row<STEPS> load_row(const element* source, long long width, int lane) {
    Row<STEPS> row;
#pragma unroll
    for (int r = 0; r < STEPS; ++r) row.at[r] = lane + 32 * r < width ? widen(source[lane + 32 * r]) : 0.0f;
    return row;
}

template <int STEPS>
__device__ __forceinline__ void store_row(element* target, const Row<STEPS>& row, long long width, int lane) {
#pragma unroll
    for (int r = 0; r < STEPS; ++r) {
        if (lane + 32 * r < width) target[lane + 32 * r] = narrow(row.at[r]);
    }
}

template <int STEPS>
__device__ __forceinline__ void store_row_f32(float* target, const Row<STEPS>& row, long long width, int lane) {
#pragma unroll
    for (int r = 0; r < STEPS; ++r) {
        if (lane + 32 * r < width) target[lane + 32 * r] = row.at[r];
    }
}

// <a, b>, the same in every lane.
template <int STEPS>
__device__ __forceinline__ float dot(const Row<STEPS>& a, const Row<STEPS>& b) {
    float sum = 0.0f;
#pragma unroll
    for (int r = 0; r < STEPS; ++r) sum = fmaf(a.at[r], b.at[r], sum);
    return warp_sum(sum);
}

// sum += weight * row
template <int STEPS>
__device__ __forceinline__ void add_scaled(Row<STEPS>& sum, float weight, const Row<STEPS>& row) {
#pragma unroll
    for (int r = 0; r < STEPS; ++r) sum.at[r] = fmaf(weight, row.at[r], sum.at[r]);
}

template <int STEPS>
__device__ __forceinline__ void multiply(Row<STEPS>& row, float factor) {
#pragma unroll
    for (int r = 0; r < STEPS; ++r) row.at[r] *= factor;
}
