// One source, two compilers. A CUDA compiler sees one thread of a warp; a host C++ compiler sees
// all 32 threads at once, as arrays. Code above this header is written once, in warp-wide steps:
// no branch depends on a lane, `select` chooses instead, and loads and stores take a mask.
#pragma once

namespace kakeya {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

constexpr int WARP = 32;

}  // namespace kakeya

#if defined(__CUDACC__)
#define KAKEYA_FN __device__ __forceinline__
#define KAKEYA_UNROLL _Pragma("unroll")
#define KAKEYA_UNROLL_SOME _Pragma("unroll 8")
#define KAKEYA_ROLLED _Pragma("unroll 1")
#define KAKEYA_PAIRED _Pragma("unroll 2")
#include "lane_device.cuh"
#else
#define KAKEYA_FN inline
#define KAKEYA_UNROLL
#define KAKEYA_UNROLL_SOME
#define KAKEYA_ROLLED
#define KAKEYA_PAIRED
#include "lane_host.cuh"
#endif

namespace kakeya {

/// Number of a lane's low bits below which all fp32 whole numbers are exact.
constexpr float TWO23 = 8388608.0f;
constexpr u32 TWO23_BITS = 0x4b000000u;
constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23

/// Nearest whole number, ties to even, of |x| <= 2^22; a zero is +0.
KAKEYA_FN Lane<float> round_small(const Lane<float>& x) { return sub(add(x, ROUNDER), ROUNDER); }

/// The fp32 equal to a whole number below 2^23.
KAKEYA_FN Lane<float> small_float(const Lane<u32>& n) { return sub(real(n | TWO23_BITS), TWO23); }

/// The whole number equal to an fp32 in 0 .. 2^23 - 1.
KAKEYA_FN Lane<u32> small_whole(const Lane<float>& x) { return bits(add(x, TWO23)) - TWO23_BITS; }

/// `x` within low .. high; `low` where x is NaN.
KAKEYA_FN Lane<float> clamp(const Lane<float>& x, float low, float high) {
  return least(greatest(x, low), high);
}

}  // namespace kakeya
