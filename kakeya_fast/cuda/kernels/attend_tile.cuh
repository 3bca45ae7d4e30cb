// One tile: logits, online softmax, sum of values.
//
// Tiles stand for A of the tensor cores and queries for B, so that up to 8 query rows share every
// number that is unpacked: logits are (tokens x queries), outputs (numbers x queries).
#pragma once

#include "attend_walk.cuh"

namespace kakeya {

// Row q of lane 4 r + c is query 8 n + 2 c + q % 2 where q = 2 n or 2 n + 1.
struct Queries {
  Lane<u32> w[2 * K_OCTETS * TILES_N][2];
  Lane<float> factor[2 * TILES_N], bias[2 * TILES_N];
};

KAKEYA_FN Queries take_queries(Attend p, const Block& k) {
  Queries q;
  const Lane<u32> lane = cast<u32>(lane_number());
  KAKEYA_UNROLL
  for (int i = 0; i < p.D / 16 * p.NT; ++i) {
    shared_words<2>(k.shared + shared_queries(p), (lane + u32(i * WARP)) * 8u, q.w[i]);
  }
  KAKEYA_UNROLL
  for (int i = 0; i < 2 * p.NT; ++i) {
    const Lane<u32> at = (lane % 4u * 2u + u32(i / 2 * 8 + i % 2)) * 4u;
    const u8* rows = k.shared + shared_rows(p);
    q.factor[i] = real(read_shared(rows, at, true));
    q.bias[i] = p.bias ? real(read_shared(rows + 4 * rows_of(p), at, true)) : Lane<float>(0.0f);
  }
  return q;
}

// Logits of a tile: [16 tokens][8 queries][as a fragment of C].
using Logits = Lane<float>[TILES_M * TILES_N][4];

KAKEYA_FN void multiply_keys(Attend p, const u8* stage, const Values& values, const Queries& q,
                             Logits& y) {
  const Lane<int> lane = lane_number();
  const u8* codes = stage + codes_at(p, false);
  KAKEYA_UNROLL
  for (int m = 0; m < p.T / 16; ++m) {
    Lane<u32> upper[K_OCTETS], lower[K_OCTETS];
    const Lane<int> token = lane / 4 + 16 * m;
    key_octets(p, codes, token, lane % 4, upper);
    key_octets(p, codes, token + 8, lane % 4, lower);
    KAKEYA_UNROLL
    for (int n = 0; n < p.NT; ++n) {
      KAKEYA_UNROLL
      for (int r = 0; r < 4; ++r) y[m * p.NT + n][r] = 0.0f;
    }
    KAKEYA_UNROLL
    for (int e = 0; e < p.D / 32; ++e) {
      Lane<u32> a[4], b[4];
      expand(p.KB, values, upper[e], a);
      expand(p.KB, values, lower[e], b);
      KAKEYA_UNROLL
      for (int i = 0; i < 2; ++i) {
        KAKEYA_UNROLL
        for (int n = 0; n < p.NT; ++n) {
          const Lane<u32>* w = q.w[(2 * e + i) * p.NT + n];
          multiply<F16>(y[m * p.NT + n], a[2 * i], b[2 * i], a[2 * i + 1], b[2 * i + 1], w[0],
                        w[1]);
        }
      }
    }
  }
}

/// What no query of a row may see becomes minus infinity.
KAKEYA_FN void hide(Attend p, const Block& k, const u8* stage, Logits& y) {
  const AttendArgs& a = *k.a;
  const Lane<int> lane = lane_number();
  const int valid = shared_int(stage, 0), since = shared_int(stage, 4);
  const int start = shared_int(stage, 8), origin = origin_of(k);
  KAKEYA_UNROLL
  for (int m = 0; m < p.T / 16; ++m) {
    KAKEYA_UNROLL
    for (int n = 0; n < p.NT; ++n) {
      KAKEYA_UNROLL
      for (int r = 0; r < 4; ++r) {
        const Lane<int> token = lane / 4 + (16 * m + r / 2 * 8);
        const Lane<int> row = lane % 4 * 2 + (k.first_m + n * 8 + r % 2);
        const Lane<int> index = row % a.queries + origin;
        Lane<bool> seen = (token < valid) & (index >= since) & (token + start <= index);
        if (p.window) seen = seen & (token + start > index - a.window);
        Lane<float>& x = y[m * p.NT + n][r];
        x = select<float>(seen, x, real(Lane<u32>(MINUS_INFINITY)));
      }
    }
  }
}

/// Raise the largest exponents to those of this tile, and scale what was summed so far.
KAKEYA_FN void raise(Attend p, State& s, const Lane<float>* most_here) {
  KAKEYA_UNROLL
  for (int q = 0; q < 2 * p.NT; ++q) {
    Lane<float> x = most_here[q];
    KAKEYA_UNROLL
    for (int o = 4; o < WARP; o *= 2) x = greatest(x, shuffle_xor(x, o));
    x = greatest(x, s.largest[q]);
    const Lane<float> factor = power2(sub(s.largest[q], x));
    s.largest[q] = x;
    s.total[q] = mul(s.total[q], factor);
    KAKEYA_UNROLL
    for (int i = 0; i < p.DV / 16; ++i) {
      KAKEYA_UNROLL
      for (int r = 0; r < 2; ++r) {
        Lane<float>& sum = s.sums[(i * p.NT + q / 2) * 4 + 2 * r + q % 2];
        sum = mul(sum, factor);
      }
    }
  }
}

// Exponents may exceed the largest by this much before sums are scaled again: powers stay far
// from the limits of bf16 and fp32, and scaling is rare.
constexpr float SLACK = 8.0f;

/// Logits become probabilities, up to a common factor, times the gains of values.
KAKEYA_FN void soften(Attend p, const Block& k, const u8* stage, const Queries& q, State& s,
                      Logits& y) {
  const AttendArgs& a = *k.a;
  const Lane<int> lane = lane_number();
  const u8* gains = k.shared + shared_gains(p);
  const Lane<u32> mine = cast<u32>(lane % p.T);
  const Lane<u32> key_byte = read_shared_byte(stage + scales_at(p, false), mine, true);
  const Lane<u32> value_byte = read_shared_byte(stage + scales_at(p, true), mine, true);
  const Lane<float> key_gain = real(read_shared(gains, key_byte * 4u, true));
  const Lane<float> value_gain = real(read_shared(gains + 1024, value_byte * 4u, true));
  KAKEYA_UNROLL
  for (int i = 0; i < p.T / 8; ++i) {
    const Lane<float> gain = shuffle(key_gain, lane / 4 + 8 * i);
    KAKEYA_UNROLL
    for (int h = 0; h < 2 * p.NT; ++h) {
      Lane<float>& x = y[i / 2 * p.NT + h / 2][i % 2 * 2 + h % 2];
      x = fused(mul(x, gain), q.factor[h], q.bias[h]);
      if (p.softcap) x = mul(tanh_of(x), a.softcap * 1.44269504f);
    }
  }
  const int oldest = origin_of(k), newest = oldest + a.queries - 1, start = shared_int(stage, 8);
  bool whole = shared_int(stage, 0) == p.T && shared_int(stage, 4) <= oldest &&
               start + (p.T - 1) <= oldest;
  if (p.window) whole = whole && start > newest - a.window;
  if (!whole) hide(p, k, stage, y);
  Lane<float> most_here[2 * TILES_N];
  Lane<bool> grown = false;
  KAKEYA_UNROLL
  for (int h = 0; h < 2 * p.NT; ++h) {
    most_here[h] = y[h / 2][h % 2];
    KAKEYA_UNROLL
    for (int i = 1; i < p.T / 8; ++i) {
      most_here[h] = greatest(most_here[h], y[i / 2 * p.NT + h / 2][i % 2 * 2 + h % 2]);
    }
    grown = grown | (most_here[h] > add(s.largest[h], SLACK));
  }
  if (any(grown)) raise(p, s, most_here);
  KAKEYA_UNROLL
  for (int i = 0; i < p.T / 8; ++i) {
    const Lane<float> gain = shuffle(value_gain, lane / 4 + 8 * i);
    KAKEYA_UNROLL
    for (int h = 0; h < 2 * p.NT; ++h) {
      Lane<float>& x = y[i / 2 * p.NT + h / 2][i % 2 * 2 + h % 2];
      x = power2(sub(x, s.largest[h]));
      s.total[h] = add(s.total[h], x);
      x = mul(x, gain);
    }
  }
}

/// Add values times probabilities, 8 tokens at a time.
///
/// Numbers of a value that lie next to each other in a register are two rows of the result, so
/// the other factor is zero for one of them: twice the products, and no bytes to rearrange.
KAKEYA_FN void multiply_values(Attend p, const u8* stage, const Values& values, const Logits& y,
                               State& s) {
  const Lane<int> lane = lane_number(), c = lane % 4;
  const u8* codes = stage + codes_at(p, true);
  // Half of the lanes take their two tokens in the other order: no two rows of a load then lie
  // in one bank.
  const Lane<int> swap = c / 2;
  const Lane<bool> swapped = swap == 1;
  const Lane<u32> first_low = select<u32>(swapped, 0x4432u, 0x4410u);
  const Lane<u32> second_low = select<u32>(swapped, 0x4410u, 0x4432u);
  const Lane<u32> first_high = select<u32>(swapped, 0x3244u, 0x1044u);
  const Lane<u32> second_high = select<u32>(swapped, 0x1044u, 0x3244u);
  KAKEYA_UNROLL
  for (int i = 0; i < p.T / 8; ++i) {
    Lane<u32> b[TILES_N][4];
    KAKEYA_UNROLL
    for (int n = 0; n < p.NT; ++n) {
      const Lane<float>* x = y[i / 2 * p.NT + n] + i % 2 * 2;
      const Lane<u32> pair = transpose(pair_of(BF16, x[0], x[1]));
      b[n][0] = permute(pair, 0u, first_low);
      b[n][1] = permute(pair, 0u, second_low);
      b[n][2] = permute(pair, 0u, first_high);
      b[n][3] = permute(pair, 0u, second_high);
    }
    Lane<u32> first[V_OCTETS], second[V_OCTETS];
    const Lane<int> token = c * 2 + swap + 8 * i;
    value_octets(p, codes, token, lane / 4, first);
    value_octets(p, codes, token + 1 - swap * 2, lane / 4, second);
    KAKEYA_UNROLL
    for (int e = 0; e < p.DV / 64; ++e) {
      Lane<u32> u[4], v[4];
      expand(p.VB, values, first[e], u);
      expand(p.VB, values, second[e], v);
      KAKEYA_UNROLL
      for (int j = 0; j < 4; ++j) {
        const int at = j / 2 * 2;
        KAKEYA_UNROLL
        for (int n = 0; n < p.NT; ++n) {
          multiply<BF16>(s.sums + ((e * 4 + j) * p.NT + n) * 4, u[at], u[at + 1], v[at],
                         v[at + 1], b[n][j % 2 * 2], b[n][j % 2 * 2 + 1]);
        }
      }
    }
  }
}

}  // namespace kakeya
