// One tile: logits, online softmax, sum of values.
//
// Tiles stand for A of the tensor cores and queries for B, so that up to 8 query rows share every
// number that is unpacked: logits are (tokens x queries), outputs (numbers x queries).
#pragma once

#include "attend_bands.cuh"
#include "attend_walk.cuh"

namespace kakeya {

// Queries of a lane, as fragments of B, and what belongs to its rows: row h of lane 4 r + c is row
// 8 n + 2 c + h % 2 of the block, where h = 2 n or 2 n + 1.
struct Queries {
  Lane<u32> w[2 * K_OCTETS * TILES_N][2];
  Lane<float> factor[2 * TILES_N], bias[2 * TILES_N];
};

KAKEYA_FN Lane<u32> row_of(int h) {
  return cast<u32>(lane_number()) % 4u * 2u + u32(h / 2 * 8 + h % 2);
}

/// Factor and bias of the rows of staged queries.
KAKEYA_FN Queries take_rows(Attend p, const u8* staged) {
  Queries q;
  const u8 *rows = staged + factors_at(p), *bias = rows + 4 * rows_of(p);
  KAKEYA_UNROLL
  for (int h = 0; h < 2 * p.NT; ++h) {
    q.factor[h] = real(read_shared(rows, row_of(h) * 4u, true));
    q.bias[h] = p.bias ? real(read_shared(bias, row_of(h) * 4u, true)) : Lane<float>(0.0f);
  }
  return q;
}

/// Fragment `i` of staged queries.
KAKEYA_FN void take_fragment(const u8* staged, int i, Lane<u32>* w) {
  shared_words<2>(staged, cast<u32>(lane_number() + i * WARP) * 8u, w);
}

KAKEYA_FN Queries take_queries(Attend p, const u8* staged) {
  Queries q = take_rows(p, staged);
  KAKEYA_UNROLL
  for (int i = 0; i < p.D / 16 * p.NT; ++i) take_fragment(staged, i, q.w[i]);
  return q;
}

// Logits of 16 tokens, for every eight of queries: numbers 0 and 1 of token lane / 4, then 2 and 3
// of the token 8 after it.
using Logits = Lane<float>[TILES_N][4];

/// Keys by bands: rolled, so that few registers hold what is on its way; so queries are read again.
KAKEYA_FN void multiply_bands(Attend p, const u8* stage, const u8* queries, int token,
                              const Values& values, Logits& y) {
  const Lane<int> row = lane_number() / 4 + token;
  Band upper = first_band(p, row), lower = first_band(p, row + 8);
  KAKEYA_UNROLL
  for (int n = 0; n < p.NT; ++n) {
    KAKEYA_UNROLL
    for (int r = 0; r < 4; ++r) y[n][r] = 0.0f;
  }
  KAKEYA_ROLLED
  for (int e = 0; e < p.D / 32; ++e) {
    Lane<u32> a[4], b[4];
    expand_band(values, stage + codes_at(p, false), e, upper, a);
    expand_band(values, stage + codes_at(p, false), e, lower, b);
    KAKEYA_UNROLL
    for (int n = 0; n < p.NT; ++n) {
      KAKEYA_UNROLL
      for (int i = 0; i < 2; ++i) {
        Lane<u32> w[2];
        take_fragment(queries, (2 * e + i) * p.NT + n, w);
        multiply<F16>(y[n], a[2 * i], b[2 * i], a[2 * i + 1], b[2 * i + 1], w[0], w[1]);
      }
    }
  }
}

KAKEYA_FN void multiply_keys(Attend p, const u8* stage, int token, const Values& values,
                             const Queries& q, Logits& y) {
  const Lane<int> lane = lane_number();
  const u8* codes = stage + codes_at(p, false);
  const Code c = code_of_stream(p, false);
  const Lane<int> part = lane % 4;
  Codes<K_OCTETS> upper, lower;
  take_codes(c, p.T, codes, lane / 4 + token, part, part / 2, p.D / 32, upper);
  take_codes(c, p.T, codes, lane / 4 + (token + 8), part, part / 2, p.D / 32, lower);
  Logits odd;
  KAKEYA_UNROLL
  for (int n = 0; n < p.NT; ++n) {
    KAKEYA_UNROLL
    for (int r = 0; r < 4; ++r) y[n][r] = odd[n][r] = 0.0f;
  }
  KAKEYA_UNROLL
  for (int e = 0; e < p.D / 32; ++e) {
    Lane<u32> a[4], b[4];
    expand(c, values, upper, e, a);
    expand(c, values, lower, e, b);
    KAKEYA_UNROLL
    for (int n = 0; n < p.NT; ++n) {
      const int even_tile = 2 * e * p.NT + n, odd_tile = even_tile + p.NT;
      Lane<u32> w[2], x[2];
      if (p.framed) {
        take_fragment(stage + turned_at(p), even_tile, w);
        take_fragment(stage + turned_at(p), odd_tile, x);
      } else {
        w[0] = q.w[even_tile][0], w[1] = q.w[even_tile][1];
        x[0] = q.w[odd_tile][0], x[1] = q.w[odd_tile][1];
      }
      // Two sums, so that one product need not wait for the other.
      multiply<F16>(y[n], a[0], b[0], a[1], b[1], w[0], w[1]);
      multiply<F16>(odd[n], a[2], b[2], a[3], b[3], x[0], x[1]);
    }
  }
  KAKEYA_UNROLL
  for (int n = 0; n < p.NT; ++n) {
    KAKEYA_UNROLL
    for (int r = 0; r < 4; ++r) y[n][r] = add(y[n][r], odd[n][r]);
  }
}

/// What no query of a row may see becomes minus infinity.
KAKEYA_FN void hide(Attend p, const Block& k, const u8* stage, int first, Logits& y) {
  const int valid = shared_int(stage, 0), since = shared_int(stage, 4);
  const int start = shared_int(stage, 8);
  const u8* indices = k.shared + shared_indices(p);
  KAKEYA_UNROLL
  for (int h = 0; h < 2 * p.NT; ++h) {
    const Lane<int> index = cast<int>(read_shared(indices, row_of(h) * 4u, true));
    KAKEYA_UNROLL
    for (int i = 0; i < 2; ++i) {
      const Lane<int> token = lane_number() / 4 + (first + 8 * i);
      Lane<bool> seen = (token < valid) & (index >= since) & (token + start <= index);
      if (p.window) seen = seen & (token + start > index - k.a->window);
      Lane<float>& x = y[h / 2][2 * i + h % 2];
      x = select<float>(seen, x, real(Lane<u32>(MINUS_INFINITY)));
    }
  }
}

/// Raise the largest exponents to those of these tokens, and scale what was summed so far.
KAKEYA_FN void raise(Attend p, State& s, const Lane<float>* most_here) {
  KAKEYA_UNROLL
  for (int h = 0; h < 2 * p.NT; ++h) {
    Lane<float> x = most_here[h];
    KAKEYA_UNROLL
    for (int o = 4; o < WARP; o *= 2) x = greatest(x, shuffle_xor(x, o));
    x = greatest(x, s.largest[h]);
    const Lane<float> factor = power2(sub(s.largest[h], x));
    s.largest[h] = x;
    s.total[h] = mul(s.total[h], factor);
    KAKEYA_UNROLL
    for (int i = 0; i < p.DV / 16; ++i) {
      KAKEYA_UNROLL
      for (int r = 0; r < 2; ++r) {
        Lane<float>& sum = s.sums[(i * p.NT + h / 2) * 4 + 2 * r + h % 2];
        sum = mul(sum, factor);
      }
    }
  }
}

/// The gain of a scale byte, over the constant that codes' values are kept times; of all tokens of
/// the tile, one in a lane.
///
/// Rule: scale.byte.grid, scale.byte.zero
KAKEYA_FN Lane<float> gains_of(Attend p, const u8* bytes, float exponent) {
  const Lane<u32> byte = read_shared_byte(bytes, cast<u32>(lane_number() % p.T), true);
  const Lane<float> gain = power2(fused(small_float(byte), 0.125f, exponent));
  return select<float>(byte == 0u, 0.0f, gain);
}

// Exponents may exceed the largest by this much before sums are scaled again: powers stay far
// from the limits of bf16 and fp32, and scaling is rare.
constexpr float SLACK = 8.0f;

/// Logits become probabilities, up to a common factor, times the gains of values.
KAKEYA_FN void soften(Attend p, const Block& k, const u8* stage, const Queries& q, State& s,
                      Logits* y) {
  const Lane<int> quarter = lane_number() / 4;
  const Lane<float> key_gain = gains_of(p, stage + scales_at(p, false), s.exponents[0]);
  const Lane<float> value_gain = gains_of(p, stage + scales_at(p, true), s.exponents[1]);
  KAKEYA_UNROLL
  for (int i = 0; i < p.T / 8; ++i) {
    const Lane<float> gain = shuffle(key_gain, quarter + 8 * i);
    KAKEYA_UNROLL
    for (int h = 0; h < 2 * p.NT; ++h) {
      Lane<float>& x = y[i / 2][h / 2][i % 2 * 2 + h % 2];
      x = fused(mul(x, gain), q.factor[h], q.bias[h]);
      if (p.softcap) x = mul(tanh_of(x), k.a->softcap * 1.44269504f);
    }
  }
  const int oldest = k.origin, newest = oldest + k.a->queries - 1, start = shared_int(stage, 8);
  bool whole = shared_int(stage, 0) == p.T && shared_int(stage, 4) <= oldest &&
               start + (p.T - 1) <= oldest;
  if (p.window) whole = whole && start > newest - k.a->window;
  if (!whole) {
    KAKEYA_UNROLL
    for (int m = 0; m < p.T / 16; ++m) hide(p, k, stage, 16 * m, y[m]);
  }
  Lane<float> most_here[2 * TILES_N];
  Lane<bool> grown = false;
  KAKEYA_UNROLL
  for (int h = 0; h < 2 * p.NT; ++h) {
    most_here[h] = y[0][h / 2][h % 2];
    KAKEYA_UNROLL
    for (int i = 1; i < p.T / 8; ++i) {
      most_here[h] = greatest(most_here[h], y[i / 2][h / 2][i % 2 * 2 + h % 2]);
    }
    grown = grown | (most_here[h] > add(s.largest[h], SLACK));
  }
  if (any(grown)) raise(p, s, most_here);
  KAKEYA_UNROLL
  for (int i = 0; i < p.T / 8; ++i) {
    const Lane<float> gain = shuffle(value_gain, quarter + 8 * i);
    KAKEYA_UNROLL
    for (int h = 0; h < 2 * p.NT; ++h) {
      Lane<float>& x = y[i / 2][h / 2][i % 2 * 2 + h % 2];
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
KAKEYA_FN void multiply_values(Attend p, const u8* stage, int first_token, const Values& values,
                               const Logits& y, State& s) {
  const Lane<int> lane = lane_number(), column = lane % 4;
  const Code c = code_of_stream(p, true);
  const u8* codes = stage + codes_at(p, true);
  // Half of the lanes take their two tokens in the other order: no two rows of a load then lie
  // in one bank.
  const Lane<int> swap = column / 2;
  const Lane<bool> swapped = swap == 1;
  const Lane<u32> first_low = select<u32>(swapped, 0x4432u, 0x4410u);
  const Lane<u32> second_low = select<u32>(swapped, 0x4410u, 0x4432u);
  const Lane<u32> first_high = select<u32>(swapped, 0x3244u, 0x1044u);
  const Lane<u32> second_high = select<u32>(swapped, 0x1044u, 0x3244u);
  KAKEYA_UNROLL
  for (int i = 0; i < 2; ++i) {
    Lane<u32> b[TILES_N][4];
    KAKEYA_UNROLL
    for (int n = 0; n < p.NT; ++n) {
      const Lane<u32> pair = transpose(pair_of(BF16, y[n][2 * i], y[n][2 * i + 1]));
      b[n][0] = permute(pair, 0u, first_low);
      b[n][1] = permute(pair, 0u, second_low);
      b[n][2] = permute(pair, 0u, first_high);
      b[n][3] = permute(pair, 0u, second_high);
    }
    Codes<V_OCTETS> first, second;
    const Lane<int> token = column * 2 + swap + (first_token + 8 * i), part = lane / 4;
    const Lane<int> next = token + 1 - swap * 2;
    take_codes(c, p.T, codes, token, part, part / 4, p.DV / 64, first);
    take_codes(c, p.T, codes, next, part, part / 4, p.DV / 64, second);
    KAKEYA_UNROLL
    for (int e = 0; e < p.DV / 64; ++e) {
      Lane<u32> u[4], v[4];
      expand(c, values, first, e, u);
      expand(c, values, second, e, v);
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
