// Codec `query`: tables in device memory, and products of vectors with them. A band is an octet: its
// lane has all 8 of its numbers.
#pragma once

#include "gain.cuh"
#include "walk.cuh"

namespace kakeya {

// Words behind those of a scale byte. A code of n bits is one of the trellis up to 3 bits, a
// Lloyd-Max code above.
constexpr int WALKED = 3;
constexpr int VALUES = CODEBOOK;         // of trellis codes: 8 * 2^n numbers from 8 * 2^n - 16 on
constexpr int CENTROIDS = VALUES + 112;  // 2^n numbers from 2^n - 16 on
constexpr int HEAPS = CENTROIDS + 240;   // thresholds, each width's in heap order, at the same places
constexpr int HEAD = HEAPS + 240;        // bytes of a row of codes, words of a table, tables
constexpr int FIRST = HEAD + 4;          // the first table

// Words of a table: bands with bits, bands with more than 3; then 4 words of each band: its bits,
// the first byte of its codes in a row, its weight; then the mean; then the steps of the chains, D
// numbers each: columns of the analysis for an encoder, rows of the basis for a decoder.
constexpr int BANDS = 4;

KAKEYA_FN constexpr int mean_at(Plan p) { return BANDS + 4 * octets(p); }
KAKEYA_FN constexpr int steps_at(Plan p) { return mean_at(p) + p.D; }

// Vectors that a team takes through a product together: each step of a chain is loaded once for all.
// Of longer vectors it is one, slab by slab.
KAKEYA_FN constexpr int together(Plan p) { return p.D > 256 ? 1 : p.D > 128 ? 2 : 4; }
constexpr int TOGETHER = 4;

// Shared memory of a warp: the numbers of these vectors, then squares to be summed or flags.
constexpr int HELD = (SLABS > 1 ? SLABS : KAKEYA_D > 128 ? 2 : 4) * WARP * 8 * 4;
constexpr int WALKS = KAKEYA_D / 8 * FLAGS;
constexpr int SEARCH = HELD + (WALKS < WARP * 8 * 4 ? WARP * 8 * 4 : WALKS);

// What a lane knows of the table of its team, and of its band in a slab.
struct Beside {
  Lane<i64> table;   // first word
  Lane<int> active;  // bands with bits
  Lane<int> band;    // number of its band
  Lane<u32> width;   // bits of the codes of its band; 0 without
  Lane<i64> row;     // first byte of its codes in a row
  Lane<bool> on;     // whether it has a band
};

/// Of every slab.
KAKEYA_FN void find_table(Plan p, const Team& t, const Tables& tables, const Pages& pages,
                          Beside* b) {
  const u32* head = tables.words + HEAD;
  Lane<i64> number = cast<i64>(cast<u32>(t.page) % Lane<u32>(head[2]));
  if (tables.which) number = lookup_global<i64>(tables.which, t.page, t.page < pages.count);
  const Lane<i64> table = number * i64(head[1]) + i64(FIRST);
  const Lane<int> active = cast<int>(lookup_global<u32>(tables.words, table, true));
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    b[s].table = table;
    b[s].active = active;
    b[s].band = octet_of(p, t, s);
    b[s].on = b[s].band < octets(p);
    Lane<u32> words[4];
    const Lane<i64> at = (table + cast<i64>(b[s].band * 4 + BANDS)) * i64(4);
    read_words<4>(tables.words, at, b[s].on, words);
    b[s].width = words[0];
    b[s].row = cast<i64>(words[1]);
  }
}

/// Byte of a team's vector `v` in the warp's numbers.
KAKEYA_FN Lane<u32> numbers_of(Plan p, int v) {
  return (cast<u32>(lane_number() / lanes(p)) + u32(v * teams(p))) * u32(p.D * 4);
}

KAKEYA_FN void put_octet(Plan p, const Beside& b, int v, const Lane<float>* x, u8* scratch) {
  Lane<u32> w[8];
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) w[r] = bits(x[r]);
  const Lane<u32> at = numbers_of(p, v) + cast<u32>(b.band) * 32u;
  write_shared<4>(scratch, at, b.on, w);
  write_shared<4>(scratch, at + 16u, b.on, w + 4);
}

KAKEYA_FN void take_octet(Plan p, const Beside& b, int v, const Lane<bool>& on, const u8* scratch,
                          Lane<float>* x) {
  Lane<u32> w[8];
  const Lane<u32> at = numbers_of(p, v) + cast<u32>(b.band) * 32u;
  read_shared_words<4>(scratch, at, on, w);
  read_shared_words<4>(scratch, at + 16u, on, w + 4);
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) x[r] = real(w[r]);
}

/// Chains of the vectors in `scratch` with a table's first `count` steps: sums of 8 columns, those of
/// the lane's band, for each vector.
///
/// Rule: num.chain.order, num.fp32.no-fma
KAKEYA_FN void chains(Plan p, const Beside& b, const u32* words, int count, const u8* scratch,
                      Lane<float>* sums) {
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * together(p); ++i) sums[i] = 0.0f;
  Lane<i64> at = (b.table + cast<i64>(b.band * 8 + steps_at(p))) * i64(4);
  KAKEYA_ROLLED
  for (int i = 0; i < count; i += 2) {
    Lane<u32> x[2 * TOGETHER];
    KAKEYA_UNROLL
    for (int v = 0; v < together(p); ++v) {
      read_shared_words<2>(scratch, numbers_of(p, v) + u32(4 * i), true, x + 2 * v);
    }
    KAKEYA_UNROLL
    for (int k = 0; k < 2; ++k) {
      Lane<u32> step[8];
      read_words<4>(words, at, b.on, step);
      read_words<4>(words, at + i64(16), b.on, step + 4);
      at += i64(4 * p.D);
      KAKEYA_UNROLL
      for (int v = 0; v < together(p); ++v) {
        KAKEYA_UNROLL
        for (int r = 0; r < 8; ++r) {
          sums[8 * v + r] = add(sums[8 * v + r], mul(real(x[2 * v + k]), real(step[r])));
        }
      }
    }
  }
}

KAKEYA_FN void read_mean(Plan p, const Beside& b, const u32* words, Lane<float>* mean) {
  Lane<u32> w[8];
  const Lane<i64> at = (b.table + cast<i64>(b.band * 8 + mean_at(p))) * i64(4);
  read_words<4>(words, at, b.on, w);
  read_words<4>(words, at + i64(16), b.on, w + 4);
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) mean[r] = real(w[r]);
}

}  // namespace kakeya
