// Tensor cores, byte permutation, asynchronous copies: what attention needs beyond portable.cuh.
#pragma once

#include "half.cuh"

#if defined(__CUDACC__)
#include "tensor_device.cuh"
#else
#include "tensor_host.cuh"
#endif
