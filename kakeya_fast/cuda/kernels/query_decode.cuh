// Decoder of codec `query`.
#pragma once

#include "query_table.cuh"

namespace kakeya {

/// Coefficients of a lane's band. `newest` are, in lane 0, low bits of the last band of the slab before,
/// and are made those of this slab.
///
/// Rule: query.row.bits, query.decode.product, scale.byte.zero
KAKEYA_FN void read_band(Plan p, const Team& t, const Beside& b, const u32* words, const u8* pages,
                         const Lane<int>& token, Lane<u32>* newest, Lane<float>* y) {
  const Lane<bool> on = t.live & (b.width > 0u), wide = b.width > u32(WALKED);
  const Lane<i64> at = t.body + i64(p.P) + cast<i64>(token) * i64(words[HEAD]) + b.row;
  Lane<u64> row = u64(0);
  KAKEYA_UNROLL
  for (int k = 0; k < 7; ++k) {
    const Lane<bool> there = on & (u32(k) < b.width);
    const Lane<u32> byte = read_small<u8>(pages, at + i64(k), there);
    row = select<u64>(there, row << u64(8) | cast<u64>(byte), row);
  }
  Lane<u32> code[8], lows = 0u;
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) {
    code[r] = cast<u32>(row >> cast<u64>(b.width * u32(7 - r))) & ((Lane<u32>(1u) << b.width) - 1u);
    lows |= (code[r] & 1u) << u32(r);
  }
  // A walk begins behind the bands with more bits.
  lows = select<u32>(wide, 0u, lows);
  const Lane<u32> near = shuffle(lows, (lane_number() + 31) % 32);
  Lane<u32> labels[4];
  labels_of(lows << 8u | select<u32>(t.lane == 0, *newest, near), labels);
  *newest = near;
  const Lane<u32> byte = read_small<u8>(pages, t.body + cast<i64>(token), t.live);
  const Lane<float> gain = real(lookup_global<u32>(words + BACKWARD, cast<i64>(byte), true));
  const Lane<u32> base = select<u32>(wide, u32(CENTROIDS - 16) + (Lane<u32>(1u) << b.width),
                                     u32(VALUES - 16) + (Lane<u32>(8u) << b.width));
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) {
    const Lane<u32> walked = (code[r] / 2u) * 16u + label_at(labels, r);
    const Lane<u32> place = base + select<u32>(wide, code[r], walked);
    y[r] = mul_zero(real(lookup_global<u32>(words, cast<i64>(place), on)), gain);
  }
}

/// Numbers stay far inside of fp32: 1024 products of f16 numbers and coefficients of at most 2^18.
///
/// Rule: query.decode.synthesis
KAKEYA_FN void query_decode(Plan p, const Pages& pages, const Tables& tables, const Vectors& out,
                            i64 warp, u8* scratch) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  Beside b[SLABS];
  find_table(p, t, tables, pages, b);
  const Places to = make_places(p, t, out, t.share, shares(p));
  // Chains need no steps of coefficients without bits: those add zeros.
  Lane<u32> most_active = cast<u32>(b[0].active);
  KAKEYA_UNROLL
  for (int o = 1; o < WARP; o *= 2) most_active = most(most_active, shuffle_xor(most_active, o));
  const int count = 8 * static_cast<int>(same_in_all(most_active, 0));
  KAKEYA_ROLLED
  for (int turn = 0; turn < 8; turn += together(p)) {
    KAKEYA_ROLLED
    for (int v = 0; v < together(p); ++v) {
      Lane<u32> newest = 0u;
      KAKEYA_UNROLL
      for (int s = 0; s < slabs(p); ++s) {
        Lane<float> y[8];
        read_band(p, t, b[s], tables.words, pages.data, token_of(p, t, turn + v), &newest, y);
        if (p.vectors) {
          put_octet(p, b[s], v, y, scratch);
        } else {
          write_octet(p, to, turn + v, s, holds(p, t, s), y);
        }
      }
    }
    if (!p.vectors) continue;
    sync_warp();
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<float> x[8 * TOGETHER], mean[8];
      chains(p, b[s], tables.words, count, scratch, x);
      read_mean(p, b[s], tables.words, mean);
      KAKEYA_UNROLL
      for (int v = 0; v < together(p); ++v) {
        KAKEYA_UNROLL
        for (int r = 0; r < 8; ++r) x[8 * v + r] = add(x[8 * v + r], mean[r]);
        write_octet(p, to, turn + v, s, holds(p, t, s), x + 8 * v);
      }
    }
    sync_warp();
  }
}

}  // namespace kakeya
