// From the bytes of a calibrated key (`query`) to fragments of tensor cores: a lane has every fourth
// band of a token, so that the band before one of its own belongs to a lane beside it.
#pragma once

#include "attend_codes.cuh"

namespace kakeya {

// A word of a band: bits of its codes; 8 if these are not a walk's; its first number among those
// that are looked up, from bit 4 on; its first byte in the row of a token, from bit 16 on. A band
// without bits is one of one bit, whose numbers are zeros, at byte 0.
constexpr u32 COUNTED = 8u;
constexpr int NUMBER_AT = 4, BYTE_AT = 16;

// Where a lane is in the row of a token.
struct Band {
  Lane<u32> row;     // first byte of the row
  Lane<u32> newest;  // low bits of its newest band, one in each nibble
};

KAKEYA_FN Band first_band(Attend p, const Lane<int>& token) {
  return {cast<u32>(token * p.KR), 0u};
}

/// The bands of a KV head into shared memory.
KAKEYA_FN void stage_bands(Attend p, int head, const u32* bands, u8* shared) {
  const Lane<int> band = lane_number();
  const Lane<bool> on = band < p.D / 8;
  const Lane<u32> w = lookup_global<u32>(bands, cast<i64>(band + head * (p.D / 8)), on);
  write_shared<1>(shared + shared_bands(p), cast<u32>(band * 4), on, &w);
}

/// Labels of 8 codes, one in each nibble; low bits of these codes and of the 8 before likewise.
///
/// Rule: trellis.window.shift, trellis.label.linear
KAKEYA_FN Lane<u32> labels_of_band(const Lane<u32>& lows, const Lane<u32>& before) {
  Lane<u32> labels = lows * (COLUMNS & 15u);
  KAKEYA_UNROLL
  for (int j = 1; j < 8; ++j) {
    const Lane<u32> shifted = lows << u32(4 * j) | before >> u32(32 - 4 * j);
    labels = labels ^ shifted * (COLUMNS >> (4 * j) & 15u);
  }
  return labels;
}

/// The 8 numbers of the lane's band number `e`, two in a word.
///
/// Rule: query.row.bits, query.decode.product, trellis.table.values
KAKEYA_FN void expand_band(const Values& v, const u8* codes, int e, Band& b, Lane<u32>* w) {
  const Lane<int> lane = lane_number();
  const Lane<u32> band = read_shared(v.bands, cast<u32>(lane % 4 * 4 + 16 * e), true);
  const Lane<u32> width = band & 7u;
  const Lane<bool> counted = (band & COUNTED) != 0u;
  const Lane<u32> at = b.row + (band >> u32(BYTE_AT));
  Lane<u32> x[3];
  KAKEYA_UNROLL
  for (int i = 0; i < 3; ++i) shared_words<1>(codes, (at & ~3u) + u32(4 * i), x + i);
  // The first byte becomes the highest.
  const Lane<u32> turn = (at & 3u) * 0x1111u + 0x0123u;
  const Lane<u32> first = permute(x[0], x[1], turn), second = permute(x[1], x[2], turn);
  // Four codes are half of the bits.
  const Lane<u32> half = width * 4u;
  Lane<u32> row[2] = {first, first << half | (second >> 1u) >> (31u - half)};
  Lane<u32> code[8], lows = 0u;
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) {
    code[r] = row[r / 4] >> (32u - width);
    row[r / 4] = row[r / 4] << width;
    lows |= (code[r] & 1u) << u32(4 * r);
  }
  // A walk begins behind the bands that are none.
  lows = select<u32>(counted, 0u, lows);
  const Lane<u32> lent = select<u32>(lane % 4 == 3, b.newest, lows);
  const Lane<u32> before = shuffle(lent, lane / 4 * 4 + (lane + 3) % 4);
  b.newest = lows;
  const Lane<u32> labels = labels_of_band(lows, before);
  const Lane<u32> base = (band >> u32(NUMBER_AT)) & 0xfffu;
  const Lane<u32> kept = select<u32>(counted, 255u, 254u), up = select<u32>(counted, 0u, 3u);
  KAKEYA_UNROLL
  for (int i = 0; i < 4; ++i) {
    Lane<u32> two[2];
    KAKEYA_UNROLL
    for (int j = 0; j < 2; ++j) {
      const int r = 2 * i + j;
      const Lane<u32> number = base + ((code[r] & kept) << up) + ((labels >> u32(4 * r)) & 15u);
      two[j] = shared_half(v.listed, number * 2u);
    }
    w[i] = two[0] | two[1] << 16u;
  }
}

}  // namespace kakeya
