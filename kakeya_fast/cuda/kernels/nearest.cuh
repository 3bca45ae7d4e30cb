// Nearest point of even sum with whole coordinates inside a cube.
#pragma once

#include "plan.cuh"

namespace kakeya {

/// The point nearest to `z - offset` with every coordinate in low .. high; its squared distance.
///
/// Rule: e8.nearest.inside, e8.nearest.tie, d4.nearest.inside, d4.nearest.tie, num.sum.halving
///
/// `c` is written. Small whole numbers are exact in fp32, so a block stays in one register type.
template <int N>
KAKEYA_FN Lane<float> nearest(const Lane<float>* z, float offset, float low, float high,
                              Lane<float>* c) {
  Lane<float> sum = 0.0f, best = -2.0f, step = 0.0f;
  Lane<u32> mover = 0u;  // one bit
  KAKEYA_UNROLL
  for (int i = 0; i < N; ++i) {
    const Lane<float> w = sub(z[i], offset);
    c[i] = round_small(clamp(w, low, high));  // whole bounds: the order does not matter
    sum = add(sum, c[i]);
    const Lane<float> e = sub(w, c[i]);
    const Lane<bool> up = e >= 0.0f;
    // A step up from the upper bound or down from the lower one would leave the cube.
    const Lane<bool> leaves = (w >= high) | (w < low);
    const Lane<float> size = real(bits(e) & 0x7fffffffu);
    const Lane<float> f = select<float>(leaves, sub(0.0f, size), size);
    const Lane<bool> better = f > best;
    best = select<float>(better, f, best);
    mover = select<u32>(better, 1u << i, mover);
    step = select<float>(better, select<float>(up != leaves, 1.0f, -1.0f), step);
  }
  const Lane<bool> odd = (bits(add(sum, ROUNDER)) & 1u) != 0u;
  mover = select<u32>(odd, mover, 0u);
  Lane<float> squares[N];
  KAKEYA_UNROLL
  for (int i = 0; i < N; ++i) {
    c[i] = select<float>((mover & (1u << i)) != 0u, add(c[i], step), c[i]);
    const Lane<float> e = sub(sub(z[i], offset), c[i]);
    squares[i] = mul(e, e);
  }
  KAKEYA_UNROLL
  for (int h = N / 2; h >= 1; h /= 2) {
    KAKEYA_UNROLL
    for (int i = 0; i < h; ++i) squares[i] = add(squares[i], squares[i + h]);
  }
  return squares[0];
}

/// The nearest point of D4 or E8 inside the cube: whole coordinates in `c`, and whether all of
/// them stand for a half more.
///
/// Rule: e8.coset.tie
template <int N>
KAKEYA_FN Lane<bool> nearest_point(Plan p, const Lane<float>* z, Lane<float>* c) {
  const float q = static_cast<float>(p.q);
  const Lane<float> cost = nearest<N>(z, 0.0f, -q, q, c);
  if (N == 4) return Lane<bool>(false);
  Lane<float> shifted[N];
  const Lane<bool> half = nearest<N>(z, 0.5f, -q, q - 1.0f, shifted) < cost;
  KAKEYA_UNROLL
  for (int i = 0; i < N; ++i) c[i] = select<float>(half, shifted[i], c[i]);
  return half;
}

}  // namespace kakeya
