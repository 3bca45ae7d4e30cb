// Between the model's basis and that of codes, where a call asks for it: queries on the way in,
// results on the way out. A rotation is signs and a Hadamard matrix over all numbers of a vector.
#pragma once

#include "attend_plan.cuh"

namespace kakeya {

/// 1 / sqrt(d) of the head dims that there are.
KAKEYA_FN constexpr float root_of(int d) { return d == 64 ? 0.125f : d == 128 ? 0.0883883476f : 0.0625f; }

/// Change the signs of numbers of fields, as the seed of a stream says.
///
/// Rule: signs.splitmix64.top-bit
KAKEYA_FN Lane<float> flipped(const AttendArgs& a, bool v, const Lane<int>& field,
                              const Lane<float>& x) {
  const Lane<i64> at = cast<i64>(field / 32) + i64(SIGNS + (v ? 8 : 0));
  const Lane<u32> words = lookup_global<u32>(a.tables, at, true);
  return real(bits(x) ^ ((words >> cast<u32>(field % 32)) << 31u));
}

/// The Hadamard transform of a vector of which each lane has `count` numbers, each bit of a field
/// being one of the lane's number or of the register's.
///
/// Rule: hadamard.order.strides
KAKEYA_FN void turn(Lane<float>* x, int count, float scale) {
  const Lane<u32> lane = cast<u32>(lane_number());
  KAKEYA_UNROLL
  for (int bit = 0; bit < 5; ++bit) {
    const Lane<u32> side = (lane >> u32(bit)) << 31u;
    KAKEYA_UNROLL
    for (int i = 0; i < count; ++i) {
      x[i] = add(shuffle_xor(x[i], 1 << bit), real(bits(x[i]) ^ side));
    }
  }
  KAKEYA_UNROLL
  for (int r = 1; r < count; r *= 2) {
    KAKEYA_UNROLL
    for (int i = 0; i < count; ++i) {
      if (i & r) continue;
      const Lane<float> lower = x[i], upper = x[i + r];
      x[i] = add(lower, upper);
      x[i + r] = sub(lower, upper);
    }
  }
  KAKEYA_UNROLL
  for (int i = 0; i < count; ++i) x[i] = mul(x[i], scale);
}

/// A number of a tensor of the queries' type, at a place counted in numbers.
KAKEYA_FN Lane<float> read_number(int kind, const void* from, const Lane<i64>& at,
                                  const Lane<bool>& on) {
  if (kind == F32) {
    Lane<u32> w;
    read_words<1>(from, at * i64(4), on, &w);
    return real(w);
  }
  return half_of(kind, read_small<u16>(from, at * i64(2), on), 0);
}

/// The same the other way, rounded.
KAKEYA_FN void write_number(int kind, void* to, const Lane<i64>& at, const Lane<float>& x) {
  if (kind == F32) {
    const Lane<u32> w = bits(x);
    write_words<1>(to, at * i64(4), true, &w);
  } else {
    write_small<u16>(to, at * i64(2), true, pair_of(kind, x, x) & 0xffffu);
  }
}

}  // namespace kakeya
