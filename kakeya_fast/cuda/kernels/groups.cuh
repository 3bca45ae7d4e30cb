// Groups of codec `int`: their parameters and their codes.
#pragma once

#include "planes.cuh"
#include "vectors.cuh"

namespace kakeya {

struct Range {
  Lane<float> low, high;
};

KAKEYA_FN Range nothing() {
  return {real(Lane<u32>(INFINITE)), real(Lane<u32>(INFINITE | 0x80000000u))};
}

KAKEYA_FN Range hull(const Range& a, const Range& b) {
  return {least(a.low, b.low), greatest(a.high, b.high)};
}

KAKEYA_FN Range hull_of(const Lane<float>* x) {
  Range r = {x[0], x[0]};
  KAKEYA_UNROLL
  for (int i = 1; i < 8; ++i) r = hull(r, {x[i], x[i]});
  return r;
}

struct Group {
  Lane<u32> lo_bits, step_bits;  // fp16
  Lane<float> lo, step;
};

constexpr u32 HALF_INFINITE = 0x7c00u;

/// Parameters of a group. Zeros are stored as +0, so that bytes depend on values alone.
///
/// Rule: int.lo.positive-zero, int.step.rounded
KAKEYA_FN Group make_group(Plan p, const Range& range) {
  Group g;
  const float levels = static_cast<float>((1 << p.b) - 1);
  const Lane<u32> lo = to_f16(range.low);
  const Lane<u32> step = to_f16(div(sub(range.high, range.low), levels));
  g.lo_bits = select<u32>(lo == 0x8000u, 0u, lo);
  g.step_bits = select<u32>(step == 0x8000u, 0u, step);
  g.lo = from_f16(g.lo_bits);
  g.step = from_f16(g.step_bits);
  return g;
}

/// Whether fp16 carries the parameters.
///
/// Rule: int.range.f16
KAKEYA_FN Lane<bool> fits(const Group& g) {
  return ((g.lo_bits & 0x7fffu) < HALF_INFINITE) & (g.step_bits < HALF_INFINITE);
}

/// Keep the group where `keep` is true; elsewhere make it one that codes nothing but zeros.
KAKEYA_FN Group only_if(const Lane<bool>& keep, const Group& g) {
  return {select<u32>(keep, g.lo_bits, 0u), select<u32>(keep, g.step_bits, 0u),
          select<float>(keep, g.lo, 0.0f), select<float>(keep, g.step, 0.0f)};
}

/// Rule: int.code.clamp
KAKEYA_FN Lane<u32> int_code(Plan p, const Lane<float>& x, const Group& g) {
  const float levels = static_cast<float>((1 << p.b) - 1);
  const Lane<bool> flat = g.step == 0.0f;
  const Lane<float> c = div(sub(x, g.lo), select<float>(flat, 1.0f, g.step));
  // The bounds are whole numbers: clamping first changes no rounding.
  return select<u32>(flat, 0u, small_whole(clamp(c, 0.0f, levels)));
}

KAKEYA_FN Group read_group(const Lane<u32>& lo, const Lane<u32>& step) {
  return {lo, step, from_f16(lo), from_f16(step)};
}

/// Whether the stored parameters mean something; a set sign bit makes a step look large.
///
/// Rule: int.params.finite
KAKEYA_FN Lane<bool> sound(const Group& g) { return fits(g) & (g.step_bits < 0x8000u); }

/// Rule: int.decode.affine
KAKEYA_FN Lane<float> int_value(const Lane<u32>& code, const Group& g) {
  return add(g.lo, mul(small_float(code), g.step));
}

}  // namespace kakeya
