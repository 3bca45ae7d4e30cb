// Encoder of codec `query`: components of calibrated tables, bits by band, Lloyd-Max codes and a walk
// of trellis codes. A band is an octet: its lane has all 8 codes and the whole bytes they fill.
#pragma once

#include "query_table.cuh"

namespace kakeya {

/// The sum of the squares of the first `count` numbers of a team's vector, by halving; `count`
/// differs from table to table.
///
/// Rule: num.sum.halving
KAKEYA_FN Lane<float> sum_of_squares(Plan p, const Team& t, const Lane<float>* y,
                                     const Lane<int>& count, u8* scratch) {
  const Lane<u32> begin = numbers_of(p, 0);
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    Lane<u32> w[8];
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) w[r] = bits(mul(y[8 * s + r], y[8 * s + r]));
    const Lane<u32> octet = begin + cast<u32>(octet_of(p, t, s)) * 32u;
    write_shared<4>(scratch, octet, octet_of(p, t, s) < octets(p), w);
    write_shared<4>(scratch, octet + 16u, octet_of(p, t, s) < octets(p), w + 4);
  }
  sync_warp();
  Lane<int> n = count;
  KAKEYA_UNROLL
  for (int most = p.D; most > 1; most = (most + 1) / 2) {
    const Lane<int> half = (n + 1) / 2;
    KAKEYA_UNROLL
    for (int i = 0; i < most / 2; i += lanes(p)) {
      const Lane<bool> on = t.lane + i < n - half;
      const Lane<u32> at = begin + cast<u32>(t.lane + i) * 4u;
      const Lane<float> upper = real(read_shared(scratch, at + cast<u32>(half) * 4u, on));
      const Lane<u32> both = bits(add(real(read_shared(scratch, at, on)), upper));
      write_shared<1>(scratch, at, on, &both);
    }
    sync_warp();
    n = half;
  }
  const Lane<float> sum = real(read_shared(scratch, begin, true));
  sync_warp();
  return sum;
}

/// Report the first fault: NaN and infinity, then by page a component (0) or a gain (1) that is too
/// large, then by token.
///
/// Rule: num.input.finite, query.value.range, scale.byte.range
KAKEYA_FN void report_tokens(Plan p, const Team& t, const Places& from, int turn,
                             const Lane<float>* y, const Lane<bool>& bad, u64* status) {
  Lane<u32> given = 0u, components = 0u;
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    Lane<float> x[8];
    read_numbers(p, from, turn, s, holds(p, t, s), x);
    given = most(given, largest_of(x));
    components = most(components, largest_of(y + 8 * s));
  }
  const Lane<bool> finite = team_most(p, given) < INFINITE;
  const Lane<int> fault =
      select<int>(team_most(p, components) >= INFINITE, Lane<int>(0), Lane<int>(1));
  const Lane<int> token = token_of(p, t, turn);
  report(status, bad & !finite, vector_number(p, t, token));
  const Lane<i64> place = t.page * i64(2) + cast<i64>(fault);
  report(status + 1, bad & finite, place * i64(p.P) + cast<i64>(token));
}

struct Branch {
  Lane<float> value[4];
  int count;
};

/// Values that the codes of a width have at a label.
KAKEYA_FN Branch branch_of(const float* values, int width, const Lane<u32>& label) {
  Branch b;
  b.count = 1 << (width - 1);
  const Lane<i64> at = cast<i64>(label) + i64((8 << width) - 16);
  KAKEYA_UNROLL
  for (int u = 0; u < 4; ++u) {
    b.value[u] = lookup_global<float>(values, at + i64(16 * u), Lane<bool>(u < b.count));
  }
  return b;
}

/// Rule: trellis.search.branch
KAKEYA_FN Lane<float> least_square(const Branch& b, const Lane<float>& z) {
  Lane<float> best = 0.0f;
  KAKEYA_UNROLL
  for (int u = 0; u < 4; ++u) {
    if (u >= b.count) continue;
    const Lane<float> off = sub(z, b.value[u]), square = mul(off, off);
    best = u == 0 ? square : select<float>(square < best, square, best);
  }
  return best;
}

/// Windows of the walk of one of the vectors in `scratch`, as trace_walk leaves them.
///
/// Rule: query.code.trellis
KAKEYA_FN void search_bands(Plan p, const u32* table, const float* values, u32 numbers, u8* scratch,
                            int owner, Lane<u32>* windows) {
  const int last = static_cast<int>(table[0]), first = static_cast<int>(table[1]);
  if (first == last) return;
  const Lane<u32> label = label_of(cast<u32>(lane_number()) * 2u);
  Lane<float> cost[4];
  begin_walk(cost);
  KAKEYA_ROLLED
  for (int o = first; o < last; ++o) {
    const u32* band = table + BANDS + 4 * o;
    const Branch branch = branch_of(values, static_cast<int>(band[0]), label);
    const Lane<float> weight = real(Lane<u32>(band[2]));
    Lane<u32> word = 0u;
    KAKEYA_ROLLED
    for (int r = 0; r < 8; ++r) {
      const Lane<u32> at = numbers + u32((8 * o + r) * 4);
      const Lane<float> e = least_square(branch, real(read_shared(scratch, at, true)));
      word |= extend_walk(mul(e, weight), cost) << u32(4 * r);
    }
    keep_flags(scratch + HELD, o, word);
  }
  sync_warp();
  trace_walk(scratch + HELD, first, last, owner, slabs(p), end_walk(cost), windows);
  sync_warp();
}

/// Code of a number in a band of more than 3 bits: the thresholds below it.
///
/// Rule: query.code.boundary
KAKEYA_FN Lane<u32> wide_code(const u32* words, const Lane<u32>& width, const Lane<float>& z) {
  const float* heaps = reinterpret_cast<const float*>(words + HEAPS);
  const Lane<u32> size = Lane<u32>(1u) << width;
  Lane<u32> node = 1u;
  KAKEYA_UNROLL
  for (int level = 0; level < 7; ++level) {
    const Lane<bool> on = u32(level) < width;
    const Lane<float> threshold = lookup_global<float>(heaps, cast<i64>(size + node) - i64(16), on);
    node = select<u32>(on, node * 2u + select<u32>(z > threshold, 1u, 0u), node);
  }
  return node - size;
}

/// Code of a number in a band of 1 to 3 bits, from the window that the walk went through.
///
/// Rule: trellis.search.branch
KAKEYA_FN Lane<u32> walked_code(const u32* words, const Lane<u32>& width, const Lane<float>& z,
                                const Lane<u32>& window, const Lane<bool>& on) {
  const float* values = reinterpret_cast<const float*>(words + VALUES);
  const Lane<i64> at = cast<i64>((Lane<u32>(8u) << width) + label_of(window)) - i64(16);
  Lane<float> best = 0.0f;
  Lane<u32> pick = 0u;
  KAKEYA_UNROLL
  for (int u = 0; u < 4; ++u) {
    const Lane<bool> there = on & (u32(2 * u) < (Lane<u32>(1u) << width));
    const Lane<float> off = sub(z, lookup_global<float>(values, at + i64(16 * u), there));
    const Lane<float> square = mul(off, off);
    const Lane<bool> better = u == 0 ? there : there & (square < best);
    best = select<float>(better, square, best);
    pick = select<u32>(better, u32(u), pick);
  }
  return pick * 2u + (window & 1u);
}

/// Write the codes of a lane's band: its bytes, the first code's bits highest.
///
/// Rule: query.row.bits
KAKEYA_FN void write_band(const Lane<u64>& row, const Lane<u32>& width, const Lane<i64>& at,
                          const Lane<bool>& on, u8* pages) {
  KAKEYA_UNROLL
  for (int k = 0; k < 7; ++k) {
    const Lane<bool> there = on & (u32(k) < width);
    const Lane<u32> shift = select<u32>(there, (width - u32(k + 1)) * 8u, 0u);
    write_small<u8>(pages, at + i64(k), there, cast<u32>(row >> cast<u64>(shift)) & 255u);
  }
}

/// The least gain under which no number of a lane's band leaves its table, as a pattern; 0 of a band
/// of few bits. A quotient does not fall where its number grows, so the largest number has the
/// largest.
///
/// Rule: query.gain.reach
KAKEYA_FN Lane<u32> reach_of(const Beside& b, const u32* words, const Lane<float>* y) {
  const Lane<bool> wide = b.width > u32(WALKED);
  const float* centroids = reinterpret_cast<const float*>(words + CENTROIDS);
  const Lane<u32> size = Lane<u32>(2u) << select<u32>(wide, b.width, 4u);
  const Lane<float> last = lookup_global<float>(centroids, cast<i64>(size) - i64(17), true);
  const Lane<float> quotient = div(real(largest_of(y)), last);
  return select<u32>(wide, bits(quotient), 0u);
}

/// The codes of a lane's band as its bytes, the first highest.
///
/// Rule: query.code.boundary, query.code.trellis
KAKEYA_FN Lane<u64> row_of(const Beside& b, const u32* words, const Lane<float>* y,
                           const Lane<u32>* windows) {
  const Lane<bool> has = b.width > 0u, wide = b.width > u32(WALKED);
  const bool counts = any(wide);
  Lane<u64> row = u64(0);
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) {
    Lane<u32> counted = 0u;
    if (counts) counted = wide_code(words, select<u32>(wide, b.width, 4u), y[r]);
    const Lane<u32> walked = walked_code(words, b.width, y[r], windows[r], has & !wide);
    row = row << cast<u64>(b.width) | cast<u64>(select<u32>(wide, counted, walked));
  }
  return row;
}

/// Choose scale byte and codes of a team's vector `v` of those in `scratch`, and write them.
///
/// Rule: query.gain.active, query.value.range, scale.byte.zero
KAKEYA_FN void encode_token(Plan p, const Team& t, const Beside* b, const u32* words,
                            const Places& from, int turn, int v, const Pages& pages, u8* scratch,
                            u64* status, bool check) {
  Lane<float> y[8 * SLABS];
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    take_octet(p, b[s], v, b[s].width > 0u, scratch, y + 8 * s);
  }
  const Lane<int> count = b[0].active * 8;
  const Lane<float> sum = sum_of_squares(p, t, y, count, scratch + HELD);
  Lane<u32> least = 0u;
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) least = most(least, reach_of(b[s], words, y + 8 * s));
  const Lane<float> mean = root(div(sum, cast<float>(count))), reach = real(team_most(p, least));
  const Lane<float> gain = select<float>(reach > mean, reach, mean);  // a NaN stays
  const Lane<bool> fits = gain <= real(lookup_global<u32>(words + BOUNDS, i64(255), true));
  if (any(t.live & !fits)) report_tokens(p, t, from, turn, y, t.live & !fits, status);
  if (check) return;
  const Lane<int> token = token_of(p, t, turn);
  const Lane<u32> byte = select<u32>(fits, count_below(words + BOUNDS, gain, 128), 0u);
  write_small<u8>(pages.data, t.body + cast<i64>(token), t.live & (t.lane == 0), byte);
  const Lane<float> scale = real(lookup_global<u32>(words + FORWARD, cast<i64>(byte), true));
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) y[i] = select<float>(fits, mul(y[i], scale), 0.0f);
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) put_octet(p, b[s], v, y + 8 * s, scratch);
  sync_warp();
  Lane<u32> windows[8 * SLABS];
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) windows[i] = 0u;
  const float* values = reinterpret_cast<const float*>(words + VALUES);
  KAKEYA_ROLLED
  for (int k = 0; k < teams(p); ++k) {
    const u32* table = words + same_in_all(b[0].table, k * lanes(p));
    const u32 numbers = u32((v * teams(p) + k) * p.D * 4);
    search_bands(p, table, values, numbers, scratch, k * lanes(p), windows);
  }
  const Lane<i64> begin = t.body + i64(p.P) + cast<i64>(token) * i64(words[HEAD]);
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    const Lane<u64> row = row_of(b[s], words, y + 8 * s, windows + 8 * s);
    write_band(select<u64>(byte == 0u, u64(0), row), b[s].width, begin + b[s].row,
               t.live & (b[s].width > 0u), pages.data);
  }
}

/// Rule: query.encode.project, num.input.finite
KAKEYA_FN void query_encode(Plan p, const Vectors& x, const Tables& tables, const Pages& pages,
                            i64 warp, u8* scratch, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  Beside b[SLABS];
  find_table(p, t, tables, pages, b);
  const Places from = make_places(p, t, x, t.share, shares(p));
  KAKEYA_ROLLED
  for (int turn = 0; turn < 8; turn += together(p)) {
    Lane<float> y[8 * TOGETHER];  // of vectors, or of the slabs of one
    KAKEYA_UNROLL
    for (int i = 0; i < together(p) * slabs(p); ++i) {
      const int v = i / slabs(p), s = i % slabs(p);
      Lane<float> mean[8];
      read_numbers(p, from, turn + v, s, holds(p, t, s), y);
      read_mean(p, b[s], tables.words, mean);
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) y[r] = sub(y[r], mean[r]);
      put_octet(p, b[s], v, y, scratch);
    }
    sync_warp();
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      chains(p, b[s], tables.words, p.D, scratch, y + 8 * s);
    }
    sync_warp();
    KAKEYA_UNROLL
    for (int i = 0; i < together(p) * slabs(p); ++i) {
      put_octet(p, b[i % slabs(p)], i / slabs(p), y + 8 * i, scratch);
    }
    sync_warp();
    KAKEYA_ROLLED
    for (int v = 0; v < together(p); ++v) {
      encode_token(p, t, b, tables.words, from, turn + v, v, pages, scratch, status, check);
    }
    sync_warp();
  }
}

}  // namespace kakeya
