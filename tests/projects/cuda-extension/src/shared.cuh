__device__ int times_factor(int value);
