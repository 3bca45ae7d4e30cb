// fp16, bf16 and e4m3 against fp32, as bit patterns.
#pragma once

#include "plan.cuh"

namespace kakeya {

constexpr u32 MAGNITUDE = 0x7fffffffu;
constexpr u32 INFINITE = 0x7f800000u;  // magnitudes from here up are not finite

/// The fp32 equal to an fp16 pattern; infinities and NaN become an infinity or a NaN.
KAKEYA_FN Lane<float> from_f16(const Lane<u32>& h) {
#if defined(__CUDACC__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(static_cast<u16>(h)));
  return wide;
#else
  // The field read 13 bits higher is the value times 2^-112, subnormals included.
  const Lane<u32> magnitude = h & 0x7fffu;
  const Lane<u32> scaled = bits(mul(real(magnitude << 13), 0x1p112f));
  const Lane<u32> wide = select<u32>(magnitude >= 0x7c00u, INFINITE, scaled);
  return real(wide | ((h & 0x8000u) << 16));
#endif
}

/// The fp16 pattern nearest to an fp32, ties to even; infinite from 65520 up.
KAKEYA_FN Lane<u32> to_f16(const Lane<float>& x) {
#if defined(__CUDACC__)
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
#else
  const Lane<u32> u = bits(x), magnitude = u & MAGNITUDE;
  const Lane<u32> odd = (magnitude >> 13) & 1u;
  const Lane<u32> normal = (magnitude - (112u << 23) + 0xfffu + odd) >> 13;
  // Below 2^-14 the grid is 2^-24: the rounded multiple of it is the field itself.
  const Lane<bool> tiny = magnitude < (113u << 23);
  const Lane<u32> field = small_whole(mul(real(select<u32>(tiny, magnitude, 0u)), 0x1p24f));
  const Lane<u32> large = select<u32>(normal < 0x7c00u, normal, 0x7c00u);
  return select<u32>(tiny, field, large) | (u >> 16 & 0x8000u);
#endif
}

/// The bf16 pattern nearest to an fp32, ties to even.
KAKEYA_FN Lane<u32> to_bf16(const Lane<float>& x) {
  const Lane<u32> u = bits(x);
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

/// Two patterns in one word, `low` in the lower half.
KAKEYA_FN Lane<u32> pair_of(int kind, const Lane<float>& low, const Lane<float>& high) {
#if defined(__CUDACC__)
  u32 both;
  if (kind == F16) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  }
  return both;
#else
  return kind == F16 ? to_f16(low) | to_f16(high) << 16 : to_bf16(low) | to_bf16(high) << 16;
#endif
}

/// The fp32 equal to one half of a word.
KAKEYA_FN Lane<float> half_of(int kind, const Lane<u32>& word, int which) {
  if (kind == F16) return from_f16(which ? word >> 16 : word & 0xffffu);
  return real(which ? word & 0xffff0000u : word << 16);
}

/// The e4m3 code nearest to an fp32, ties to even, saturating at +-448.
KAKEYA_FN Lane<u32> to_e4m3(const Lane<float>& x) {
  const Lane<u32> u = bits(x), magnitude = u & MAGNITUDE;
  const Lane<u32> odd = (magnitude >> 20) & 1u;
  const Lane<u32> normal = ((magnitude + 0x7ffffu + odd) >> 20) - (120u << 3);
  // Below 2^-6 the grid is 2^-9: the rounded multiple of it is the field itself.
  const Lane<bool> tiny = magnitude < (121u << 23);
  const Lane<u32> field = small_whole(mul(real(select<u32>(tiny, magnitude, 0u)), 0x1p9f));
  const Lane<u32> large = select<u32>(normal < 0x7eu, normal, 0x7eu);
  return select<u32>(tiny, field, large) | (u >> 24 & 0x80u);
}

/// The value of an e4m3 code; its field read 20 bits higher is the value times 2^-120.
KAKEYA_FN Lane<float> from_e4m3(const Lane<u32>& code) {
  return mul(real((code & 0x7fu) << 20 | (code & 0x80u) << 24), 0x1p120f);
}

}  // namespace kakeya
