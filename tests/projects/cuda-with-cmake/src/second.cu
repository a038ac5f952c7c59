#include "shared.cuh"

namespace {
__device__ int factor = 3;
}

__device__ int times_factor(int value) { return value * factor; }
