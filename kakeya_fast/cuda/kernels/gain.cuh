// The scale byte of a vector.
#pragma once

#include "rotate.cuh"
#include "sum.cuh"

namespace kakeya {

/// How many of 255 ascending bounds, eight an octave, lie below `g`; bound number `from + 8 e` is
/// the last that lies below 2^e for certain.
///
/// Rule: scale.byte.midpoint, fp8.scale.up
///
/// Between powers of two the pattern grows linearly and 8 log2 is at most 0.69 above it, so two
/// comparisons decide. `bounds[k]` is number k + 1; two infinities follow the last.
KAKEYA_FN Lane<u32> count_below(const u32* bounds, const Lane<float>& g, int from) {
  const Lane<int> linear = cast<int>(bits(g) >> 20) - 127 * 8 + from;
  const Lane<int> sure = select<int>(linear < 0, 0, select<int>(linear < 255, linear, 255));
  const Lane<i64> at = cast<i64>(sure);
  const Lane<float> next = real(lookup_global<u32>(bounds, at, true));
  const Lane<float> after = real(lookup_global<u32>(bounds + 1, at, true));
  return cast<u32>(sure) + select<u32>(g > next, 1u, 0u) + select<u32>(g > after, 1u, 0u);
}

/// The sum of squares of a vector's numbers.
KAKEYA_FN Lane<float> squares_of(Plan p, const Team& t, const Lane<float>* z, u8* scratch) {
  Lane<float> squares[8 * SLABS];
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) squares[i] = mul(z[i], z[i]);
  return halving_sum(p, t, squares, scratch);
}

// A rotated vector, ready to be quantised.
struct Scaled {
  Lane<u32> byte;     // 0 for a vector that is refused
  Lane<float> scale;  // what its coefficients are multiplied by
};

/// Read one vector a team, rotate it into `x` and choose its scale byte.
///
/// Rule: scale.rms, scale.byte.range, scale.byte.zero, num.input.finite
KAKEYA_FN Scaled analyse(Plan p, const Team& t, const Places& from, int turn,
                         const Rotation& rotation, const u32* table, u8* scratch, u64* status,
                         Lane<float>* x) {
  const Lane<int> token = token_of(p, t, turn);
  read_rotated(p, t, from, turn, rotation, x);
  const Lane<float> sum = squares_of(p, t, x, scratch);
  const Lane<float> gain =
      root(one_block(p) ? mul(sum, 1.0f / p.D) : div(sum, static_cast<float>(p.D)));
  const u32* bounds = table + BOUNDS;
  const Lane<bool> fits = gain <= real(lookup_global<u32>(bounds, i64(255), true));
  // An infinity or a NaN of the input reaches the gain through every operation, so the input
  // needs no test of its own before there is something to report.
  if (any(t.live & !fits)) {
    Lane<u32> largest = 0u;
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<float> y[8];
      read_numbers(p, from, turn, s, holds(p, t, s), y);
      largest = most(largest, largest_of(y));
    }
    report_input(p, t, token, t.live & !fits, team_most(p, largest), status);
  }
  Scaled out;
  out.byte = select<u32>(fits, count_below(bounds, gain, 128), 0u);
  out.scale = real(lookup_global<u32>(table + FORWARD, cast<i64>(out.byte), true));
  return out;
}

/// The scale byte under which a vector comes back as long, along itself, as it was.
///
/// `squares` are those of its numbers under `byte`; `along` is the sum of their products with the
/// values of their codes.
///
/// Rule: trellis.gain.unbiased
KAKEYA_FN Lane<u32> unbiased(const u32* table, const Lane<u32>& byte, const Lane<float>& squares,
                             const Lane<float>& along) {
  const Lane<bool> known = (byte > 0u) & (along > 0.0f);
  const Lane<float> size = real(lookup_global<u32>(table + BACKWARD, cast<i64>(byte), true));
  const Lane<float> gain = mul(size, div(squares, select<float>(known, along, 1.0f)));
  const Lane<u32> fitting = most(count_below(table + BOUNDS, gain, 128), 1u);
  const Lane<u32> top = select<u32>(byte < 247u, byte + 8u, 255u);
  return select<u32>(known, select<u32>(fitting < top, fitting, top), byte);
}

}  // namespace kakeya
