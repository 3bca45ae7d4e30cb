// Points of D4 and E8 in the cube as indices, and back.
//
// Both cosets are one mixed-radix number, first coordinate most significant, base 2q + 1 for
// whole points and 2q for half-odd ones; twice the index is that number, but for the parity of the
// last digit, which follows from the even sum. With q <= 110 two digits stay below 2^16, four
// below 2^32, eight below 2^63.
#pragma once

#include "plan.cuh"

namespace kakeya {

KAKEYA_FN constexpr u64 power(u64 base, int n) {
  u64 v = 1;
  for (int i = 0; i < n; ++i) v *= base;
  return v;
}

/// Number of points with whole coordinates; of all points.
KAKEYA_FN constexpr u64 whole_points(Plan p, int n) { return (power(2 * p.q + 1, n) + 1) / 2; }

KAKEYA_FN constexpr u64 points(Plan p, int n) {
  return whole_points(p, n) + (n == 8 ? p.q * power(2 * p.q, 7) : 0);
}

/// Bits of an index.
///
/// Rule: page.plane.split
KAKEYA_FN constexpr int index_bits(Plan p, int n) {
  int bits = 0;
  for (u64 last = points(p, n) - 1; last; last /= 2) ++bits;
  return bits;
}

// Constants of division by a base, chosen by the coset of a lane.
struct Radix {
  Lane<u32> base, square, fourth;
  Lane<u32> per_base, per_square;  // 2^32 / base and square
  Lane<u64> per_fourth;            // 2^64 / fourth
};

KAKEYA_FN constexpr u32 pow32(int base, int n) { return static_cast<u32>(power(base, n)); }

template <int N>
KAKEYA_FN Radix make_radix(Plan p, const Lane<bool>& half) {
  const int a = 2 * p.q, b = 2 * p.q + 1;
  Radix r;
  r.base = select<u32>(half, pow32(a, 1), pow32(b, 1));
  r.square = select<u32>(half, pow32(a, 2), pow32(b, 2));
  r.fourth = select<u32>(half, pow32(a, 4), pow32(b, 4));
  r.per_base = select<u32>(half, ~0u / pow32(a, 1) + 1, ~0u / pow32(b, 1) + 1);
  r.per_square = select<u32>(half, ~0u / pow32(a, 2), ~0u / pow32(b, 2));
  r.per_fourth = select<u64>(half, ~u64(0) / power(a, 4), ~u64(0) / power(b, 4));
  return r;
}

/// Index of a point, given as by nearest_point.
///
/// Rule: e8.index.bijective, d4.index.bijective
template <int N>
KAKEYA_FN Lane<u64> rank(Plan p, const Lane<float>* c, const Lane<bool>& half) {
  const float q = static_cast<float>(p.q);
  const Lane<float> base = select<float>(half, 2 * q, 2 * q + 1);
  const Radix radix = make_radix<N>(p, half);
  Lane<u32> pairs[N / 2];
  KAKEYA_UNROLL
  for (int k = 0; k < N / 2; ++k) {
    const Lane<float> upper = mul(add(c[2 * k], q), base);
    pairs[k] = small_whole(add(upper, add(c[2 * k + 1], q)));
  }
  Lane<u64> v = cast<u64>(pairs[0] * radix.square + pairs[1]);
  if (N == 8) {
    const Lane<u32> low = pairs[N / 2 - 2] * radix.square + pairs[N / 2 - 1];
    v = v * cast<u64>(radix.fourth) + cast<u64>(low);
  }
  return (v >> 1) + select<u64>(half, whole_points(p, N), 0);
}

/// Coordinates of an index below the number of points.
///
/// Rule: e8.index.bijective, d4.index.bijective
///
/// Quotients come from multiplying by the reciprocal, rounded down: at most one too small, and
/// corrected; for two digits rounded up, and exact, for 2^16 * 221 < 2^32.
template <int N>
KAKEYA_FN void unrank(Plan p, const Lane<u64>& index, Lane<float>* x) {
  const u64 whole = whole_points(p, N);
  const Lane<bool> half = index >= whole;
  const Radix radix = make_radix<N>(p, half);
  const Lane<u64> v = (index - select<u64>(half, whole, 0)) << 1;
  Lane<u32> fours[2];
  if (N == 8) {
    const Lane<u64> fourth = cast<u64>(radix.fourth);
    Lane<u64> high = high_product(v, radix.per_fourth);
    Lane<u64> low = v - high * fourth;
    const Lane<bool> short_by_one = low >= fourth;
    fours[0] = cast<u32>(high) + select<u32>(short_by_one, 1u, 0u);
    fours[1] = cast<u32>(select<u64>(short_by_one, low - fourth, low));
  } else {
    fours[0] = cast<u32>(v);
  }
  Lane<u32> sum = 0u, last = 0u;
  KAKEYA_UNROLL
  for (int k = 0; k < N / 4; ++k) {
    Lane<u32> pairs[2];
    const Lane<u32> upper = high_product(fours[k], radix.per_square);
    const Lane<u32> lower = fours[k] - upper * radix.square;
    const Lane<bool> short_by_one = lower >= radix.square;
    pairs[0] = upper + select<u32>(short_by_one, 1u, 0u);
    pairs[1] = select<u32>(short_by_one, lower - radix.square, lower);
    KAKEYA_UNROLL
    for (int j = 0; j < 2; ++j) {
      const Lane<u32> first = high_product(pairs[j], radix.per_base);
      const Lane<u32> second = pairs[j] - first * radix.base;
      sum += first + last;
      last = second;
      x[4 * k + 2 * j] = small_float(first);
      x[4 * k + 2 * j + 1] = small_float(second);
    }
  }
  const float q = static_cast<float>(p.q);
  if (N == 8) {  // the stored last digit is even; the sum of the others tells what was dropped
    x[7] = select<float>(half, small_float(last + (sum & 1u)), x[7]);
  }
  const Lane<float> origin = select<float>(half, 0.5f - q, -q);
  KAKEYA_UNROLL
  for (int i = 0; i < N; ++i) x[i] = add(x[i], origin);
}

}  // namespace kakeya
