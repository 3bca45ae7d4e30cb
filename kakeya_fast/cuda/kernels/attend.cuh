// The steps of a block of attention, each done by all of its warps before the next begins.
#pragma once

#include "attend_queries.cuh"
#include "attend_tile.cuh"

namespace kakeya {

constexpr float LN2 = 0.693147181f;
constexpr int AT_ONCE = 16;  // partials that a lane asks for before it waits
constexpr int SHARE = 4;  // partials of a lane: with one over other tokens, 127 at most

/// What the bytes of a stream name into shared memory, once for each bank or pair of banks.
KAKEYA_FN void stage_named(Attend p, const Block& k, int warp, bool v,
                           const Lane<u32>& number) {
  const Code c = code_of_stream(p, v);
  const bool four = names_four(c);
  const Lane<int> lane = lane_number();
  KAKEYA_ROLLED
  for (int i = warp; i < named_bytes(c); i += p.warps) {
    // A byte names two numbers of 4 bits each, or four of 2 bits in a pair of words.
    const Lane<int> part = four ? select<int>(lane % 2 == 1, i / 16, i % 16) : Lane<int>(i);
    const int base = four ? 4 : 16;
    const Lane<u32> first = shuffle(number, part % base);
    const Lane<u32> second = shuffle(number, part / base);
    const Lane<u32> w = first | second << 16;
    const int to = shared_named(p) + 256 * i + (v ? 128 : 0);
    write_shared<1>(k.shared, cast<u32>(lane * 4 + to), true, &w);
  }
}

/// Numbers that have a name each: word `i` of the list has two of them.
KAKEYA_FN void stage_numbers(Attend p, const Block& k, int warp, bool v) {
  const int keys = p.KC == CALIBRATED ? BAND_NUMBERS : named_bytes(code_of_stream(p, false));
  const int from = LISTED + (v && one_by_one(code_of_stream(p, false)) ? keys / 2 : 0);
  KAKEYA_ROLLED
  for (int i = warp; i < named_bytes(code_of_stream(p, v)); i += p.warps) {
    const Lane<u32> both = lookup_global<u32>(k.a->tables, i64(from + i / 2), true);
    const Lane<u32> w = both >> u32(i % 2 * 16) & 0xffffu;
    const int to = shared_named(p) + 256 * i + (v ? 128 : 0);
    write_shared<1>(k.shared, cast<u32>(lane_number() * 4 + to), true, &w);
  }
}

/// All numbers of bands, two in a word.
KAKEYA_FN void stage_list(Attend p, const Block& k, int warp) {
  KAKEYA_ROLLED
  for (int i = warp * WARP; i < BAND_NUMBERS / 2; i += p.warps * WARP) {
    const Lane<int> at = lane_number() + i;
    const Lane<bool> on = at < BAND_NUMBERS / 2;
    const Lane<u32> w = lookup_global<u32>(k.a->tables, cast<i64>(at + LISTED), on);
    write_shared<1>(k.shared, cast<u32>(at * 4 + shared_listed(p)), on, &w);
  }
}

/// Step 1: begin the first copies; put tables and queries into shared memory.
KAKEYA_FN void attend_begin(Attend p, const Block& k, int warp, State& s) {
  if (warp == 0) stage_indices(p, k);
  find_tiles(p, k, warp, s);
  // Everything that is read at the start is asked for before anything is waited for.
  const Lane<i64> at = cast<i64>(lane_number() % 16) + i64(NUMBERS);
  const Lane<u32> keys = lookup_global<u32>(k.a->tables, at, p.KC != PERMUTED);
  const Lane<u32> values = lookup_global<u32>(k.a->tables, at + i64(16), p.VC != PERMUTED);
  QueryRow q;
  if (!p.framed) q = read_query(p, k, 0, warp);
  look_up(p, k, 0, s);
  KAKEYA_ROLLED
  for (int i = 0; i < p.stages - 1; ++i) issue(p, k, stages_of(p, k, warp), i, s);
  u8* queries = k.shared + shared_queries(p);
  if (!p.framed && warp < rows_of(p)) stage_query(p, k, 0, warp, q, queries);
  KAKEYA_ROLLED
  for (int row = warp + p.warps; row < rows_of(p) && !p.framed; row += p.warps) {
    stage_query(p, k, 0, row, read_query(p, k, 0, row), queries);
  }
  if (one_by_one(code_of_stream(p, false))) {
    stage_numbers(p, k, warp, false);
  } else if (p.KC != PERMUTED) {
    stage_named(p, k, warp, false, keys);
  }
  if (one_by_one(code_of_stream(p, true))) {
    stage_numbers(p, k, warp, true);
  } else if (p.VC != PERMUTED) {
    stage_named(p, k, warp, true, values);
  }
  if (p.KC != CALIBRATED) return;
  stage_list(p, k, warp);
  if (warp == 0) stage_bands(p, k.head, k.a->bands, k.shared);
}

/// Step 2: all tiles of the warp.
KAKEYA_FN void attend_run(Attend p, const Block& k, int warp, State& s) {
  const AttendArgs& a = *k.a;
  const u8* queries = k.shared + shared_queries(p);
  Queries q;
  if (!p.framed) q = take_queries(p, queries);
  const Values keys = make_values(p, false, a.tables, k.shared);
  const Values values = make_values(p, true, a.tables, k.shared);
  KAKEYA_UNROLL
  for (int i = 0; i < p.DV * p.NT / 4; ++i) s.sums[i] = 0.0f;
  KAKEYA_UNROLL
  for (int h = 0; h < 2 * p.NT; ++h) {
    s.largest[h] = NEVER;
    s.total[h] = 0.0f;
  }
  s.exponents[0] = real_of(a.tables[EXPONENTS]);
  s.exponents[1] = real_of(a.tables[EXPONENTS + 1]);
  u8* stages = stages_of(p, k, warp);
  KAKEYA_ROLLED
  for (int i = 0; i < s.tiles; ++i) {
    copies_wait<STAGES - 2>(p.stages - 2);
    sync_warp();  // what other lanes have copied is here as well, and the oldest stage is free
    const int next = i + p.stages - 1;
    if (next % WARP == 0) look_up(p, k, next, s);
    issue(p, k, stages, next, s);
    const u8* stage = stages + i % p.stages * stage_bytes(p);
    if (shared_int(stage, 0) <= 0) continue;
    if (p.framed) q = take_rows(p, stage + turned_at(p));
    Logits y[TILES_M];
    KAKEYA_UNROLL
    for (int m = 0; m < p.T / 16; ++m) {
      if (p.KC == CALIBRATED) {
        const u8* given = p.framed ? stage + turned_at(p) : queries;
        multiply_bands(p, stage, given, 16 * m, keys, y[m]);
      } else {
        multiply_keys(p, stage, 16 * m, keys, q, y[m]);
      }
    }
    soften(p, k, stage, q, s, y);
    KAKEYA_UNROLL
    for (int m = 0; m < p.T / 16; ++m) multiply_values(p, stage, 16 * m, values, y[m], s);
  }
  copies_wait<0>(0);
  KAKEYA_UNROLL
  for (int h = 0; h < 2 * p.NT; ++h) {
    KAKEYA_UNROLL
    for (int o = 4; o < WARP; o *= 2) s.total[h] = add(s.total[h], shuffle_xor(s.total[h], o));
    const Lane<u32> both[2] = {bits(s.largest[h]), bits(s.total[h])};
    const Lane<int> row = lane_number() % 4 * 2 + (h / 2 * 8 + h % 2 + warp * rows_of(p));
    write_shared<2>(k.shared + shared_stats(p), cast<u32>(row * 8), lane_number() < 4, both);
  }
}

/// Step 3: the sums of a warp, on the scale of the block, to where its stages were.
KAKEYA_FN void attend_share(Attend p, const Block& k, int warp, State& s) {
  const Lane<int> lane = lane_number();
  const u8* stats = k.shared + shared_stats(p);
  u8* parts = k.shared + warp * p.DV * rows_of(p) * 4;
  KAKEYA_UNROLL
  for (int n = 0; n < p.NT; ++n) {
    Lane<float> factor[2];
    KAKEYA_UNROLL
    for (int c = 0; c < 2; ++c) {
      const Lane<int> row = lane % 4 * 2 + (n * 8 + c);
      Lane<float> largest = NEVER, total = 0.0f;
      KAKEYA_UNROLL
      for (int w = 0; w < p.warps; ++w) {
        largest = greatest(largest, real(read_shared(stats, cast<u32>((row + w * rows_of(p)) * 8), true)));
      }
      factor[c] = power2(sub(s.largest[2 * n + c], largest));
      if (warp > 0) continue;
      KAKEYA_UNROLL_SOME
      for (int w = 0; w < p.warps; ++w) {
        Lane<u32> both[2];
        shared_words<2>(stats, cast<u32>((row + w * rows_of(p)) * 8), both);
        total = fused(real(both[1]), power2(sub(real(both[0]), largest)), total);
      }
      const Lane<u32> block[2] = {bits(largest), bits(total)};
      write_shared<2>(k.shared + shared_stats(p), cast<u32>((row + p.warps * rows_of(p)) * 8),
                      lane < 4, block);
    }
    KAKEYA_UNROLL
    for (int i = 0; i < p.DV / 16; ++i) {
      KAKEYA_UNROLL
      for (int r = 0; r < 2; ++r) {
        const Lane<float>* x = s.sums + (i * p.NT + n) * 4 + 2 * r;
        const Lane<u32> two[2] = {bits(mul(x[0], factor[0])), bits(mul(x[1], factor[1]))};
        const Lane<int> slot = lane / 4 + (2 * i + r) * 8;
        write_shared<2>(parts, cast<u32>((slot * rows_of(p) + lane % 4 * 2 + n * 8) * 4), true,
                        two);
      }
    }
  }
}

/// Step 4: the block's partial result, to the work space.
KAKEYA_FN void attend_store(Attend p, const Block& k, int warp) {
  const int size = p.DV * rows_of(p);
  float* part = k.a->work + (i64(k.number) * k.a->splits + k.split) * partial_floats(p);
  KAKEYA_ROLLED
  for (int i = warp * WARP; i < size; i += p.warps * WARP) {
    const Lane<int> at = lane_number() + i;
    Lane<float> sum = 0.0f;
    for (int w = 0; w < p.warps; ++w) {
      sum = add(sum, real(read_shared(k.shared, cast<u32>((at + w * size) * 4), true)));
    }
    const Lane<u32> word = bits(sum);
    write_words<1>(part, cast<i64>(at) * i64(4), true, &word);
  }
  if (warp == 0) {
    for (int i = 0; i < 2 * rows_of(p); i += WARP) {
      const Lane<int> at = lane_number() + i, row = at % rows_of(p), which = at / rows_of(p);
      const Lane<bool> on = at < 2 * rows_of(p);
      const Lane<u32> word = read_shared(
          k.shared + shared_stats(p),
          cast<u32>((row + p.warps * rows_of(p)) * 8 + which * 4), on);
      write_words<1>(part + size, cast<i64>(at) * i64(4), on, &word);
    }
  }
  fence();
}

/// Step 5, by the first warp: whether this block is the last of its head.
KAKEYA_FN void attend_ticket(Attend p, const Block& k) {
  const u32 before = take_ticket(k.a->tickets + k.number, k.a->splits - 1);
  const Lane<u32> last = before == u32(k.a->splits - 1) ? 1u : 0u;
  write_shared<1>(k.shared + shared_flag(p), 0u, lane_number() == 0, &last);
}

/// Step 6, by the last block: how much each partial result counts, and the log-sum-exp.
KAKEYA_FN void attend_weigh(Attend p, const Block& k, int warp) {
  const AttendArgs& a = *k.a;
  const float* part = a.work + i64(k.number) * a.splits * partial_floats(p) + p.DV * rows_of(p);
  fence();
  KAKEYA_ROLLED
  for (int row = warp; row < rows_of(p) && k.first_m + row < a.rows; row += p.warps) {
    const i64 at = (i64(k.row) * a.heads + k.head) * a.rows + k.first_m + row;
    // A lane has up to SHARE partials; the one after the last is that over other tokens.
    Lane<float> exponent[SHARE], sum[SHARE];
    Lane<float> largest = NEVER, total = 0.0f;
    KAKEYA_UNROLL
    for (int i = 0; i < SHARE; ++i) {
      const Lane<int> split = lane_number() + i * WARP;
      const Lane<bool> on = split < a.splits;
      const Lane<i64> from = cast<i64>(split) * partial_floats(p) + i64(row);
      exponent[i] = select<float>(on, read_fresh(part, from, on), NEVER);
      sum[i] = read_fresh(part, from + i64(rows_of(p)), on);
      if (a.other) {
        const Lane<bool> last = split == a.splits;
        const Lane<float> lse = lookup_global<float>(a.other_lse, i64(at), last);
        exponent[i] = select<float>(last, mul(lse, LOG2E), exponent[i]);
        sum[i] = select<float>(last, 1.0f, sum[i]);
      }
      largest = greatest(largest, exponent[i]);
    }
    KAKEYA_UNROLL
    for (int o = 1; o < WARP; o *= 2) largest = greatest(largest, shuffle_xor(largest, o));
    KAKEYA_UNROLL
    for (int i = 0; i < SHARE; ++i) {
      exponent[i] = power2(sub(exponent[i], largest));
      total = fused(exponent[i], sum[i], total);
    }
    KAKEYA_UNROLL
    for (int o = 1; o < WARP; o *= 2) total = add(total, shuffle_xor(total, o));
    const Lane<u32> lse = bits(select<float>(total > 0.0f,
                                             mul(add(largest, log2_of(total)), LN2),
                                             real(Lane<u32>(MINUS_INFINITY))));
    write_words<1>(a.lse, i64(at * 4), lane_number() == 0, &lse);
    // Nothing was visible: sums are zero, and so is the result.
    const Lane<float> inverse = div(1.0f, select<float>(total > 0.0f, total, 1.0f));
    KAKEYA_UNROLL
    for (int i = 0; i < SHARE; ++i) {
      const Lane<int> split = lane_number() + i * WARP;
      const Lane<u32> word = bits(mul(exponent[i], inverse));
      write_shared<1>(k.shared, cast<u32>((split * rows_of(p) + row) * 4), split <= a.splits,
                      &word);
    }
  }
}

/// Step 7, by the last block: the merged result, its numbers in the order of the basis.
KAKEYA_FN void attend_merge(Attend p, const Block& k, int warp) {
  const AttendArgs& a = *k.a;
  const int size = p.DV * rows_of(p);
  const float* part = a.work + i64(k.number) * a.splits * partial_floats(p);
  KAKEYA_PAIRED
  for (int i = warp * WARP; i < size; i += p.warps * WARP) {
    const Lane<int> at = lane_number() + i, slot = at / rows_of(p), row = at % rows_of(p);
    const Lane<bool> on = row + k.first_m < a.rows;
    // slot = ((octet * 2 + pair) * 2 + side) * 16 + lower * 8 + lane / 4
    const Lane<int> octet = slot % 8 * (p.DV / 64) + slot / 64;
    const Lane<int> nibble = slot / 32 % 2 * 4 + slot / 8 % 2 * 2 + slot / 16 % 2;
    const Lane<int> field = field_of(code_of_stream(p, true), octet, nibble);
    const Lane<i64> out =
        (cast<i64>(row) + ((i64(k.row) * a.heads + k.head) * a.rows + k.first_m)) * i64(p.DV) +
        cast<i64>(field);
    Lane<float> sum = 0.0f;
    if (a.other) {
      const Lane<u32> from = cast<u32>((row + a.splits * rows_of(p)) * 4);
      sum = mul(real(read_shared(k.shared, from, true)), read_number(F32, a.other, out, on));
    }
    const Lane<u32> weights = cast<u32>(row * 4);
    KAKEYA_ROLLED
    for (int split = 0; split < a.splits; split += AT_ONCE) {
      Lane<float> x[AT_ONCE];
      KAKEYA_UNROLL
      for (int j = 0; j < AT_ONCE; ++j) {
        x[j] = read_fresh(part, cast<i64>(at) + i64(split + j) * partial_floats(p),
                          split + j < a.splits);
      }
      KAKEYA_UNROLL
      for (int j = 0; j < AT_ONCE; ++j) {
        if (split + j >= a.splits) break;
        const u32 from = u32((split + j) * rows_of(p) * 4);
        sum = fused(x[j], real(read_shared(k.shared, weights + from, true)), sum);
      }
    }
    const Lane<u32> word = bits(sum);
    write_words<1>(a.out, out * i64(4), on, &word);
  }
}

}  // namespace kakeya
