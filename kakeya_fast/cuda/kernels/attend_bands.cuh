// From the bytes of a calibrated key (`query`) to fragments of tensor cores: a lane has every fourth
// band of a token, so that the band before one of its own belongs to a lane beside it.
#pragma once

#include "attend_codes.cuh"

namespace kakeya {

// What is known of a band, 16 bytes: a word, then masks for codes that come apart in three steps.
// In the word: the first of its numbers, from bit 0; bits of a code, from bit 9; its first byte in
// the row of a token, from bit 16; in bit 31 whether its codes are counted, and no walk's. A band
// without bits has codes of one bit, whose numbers are zeros, at byte 0.
constexpr int WIDTH_AT = 9, BYTE_AT = 16;
constexpr int NIBBLE = 4;  // bits of the widest codes that come apart at once

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
  Lane<u32> w[4];
  read_words<4>(bands, cast<i64>(band + head * (p.D / 8)) * i64(16), on, w);
  write_shared<4>(shared + shared_bands(p), cast<u32>(band * 16), on, w);
}

/// Labels of 8 codes from their low bits and those of the 8 before; in nibbles, the newest lowest.
///
/// Rule: trellis.window.shift, trellis.label.linear
KAKEYA_FN Lane<u32> labels_of_band(const Lane<u32>& lows, const Lane<u32>& before) {
  Lane<u32> labels = lows * (COLUMNS & 15u);
  KAKEYA_UNROLL
  for (int j = 1; j < 8; ++j) {
    const Lane<u32> shifted = lows >> u32(4 * j) | before << u32(32 - 4 * j);
    labels = labels ^ shifted * (COLUMNS >> (4 * j) & 15u);
  }
  return labels;
}

/// The same, of a lane's band; `lows` become its newest.
KAKEYA_FN Lane<u32> walk_on(const Lane<u32>& lows, Band& b) {
  const Lane<int> lane = lane_number();
  const Lane<u32> lent = select<u32>(lane % 4 == 3, b.newest, lows);
  b.newest = lows;
  return labels_of_band(lows, shuffle(lent, lane / 4 * 4 + (lane + 3) % 4));
}

/// Numbers of codes of up to 4 bits; `row` has the bytes of the band, the first one highest.
KAKEYA_FN void expand_nibbles(const Values& v, const Lane<u32>* band, const Lane<u32>& row,
                              const Lane<u32>& counted, Band& b, Lane<u32>* w) {
  // 8 codes become two halves of 4, then four bytes of 2, then nibbles: the lower part of each stays.
  const u32 stay[3] = {0x0000ffffu, 0x00ff00ffu, 0x0f0f0f0fu};
  const Lane<u32> spare = u32(NIBBLE) - (band[0] >> u32(WIDTH_AT) & 7u);
  Lane<u32> codes = row >> (spare * 8u);
  KAKEYA_UNROLL
  for (int i = 0; i < 3; ++i) {
    const Lane<u32> moved = codes << (spare << u32(2 - i));
    codes = ((codes & stay[i]) | (moved & ~stay[i])) & band[1 + i];
  }
  const Lane<u32> labels = walk_on(codes & ~counted & 0x11111111u, b);
  const Lane<u32> low = (labels & ~counted) | (codes & counted);
  const Lane<u32> upper = codes >> 1u & ~counted & 0x33333333u;
  const Lane<u32> first = (band[0] & 255u) * 0x01010101u;
  const Lane<u32> even = ((low & 0x0f0f0f0fu) | (upper << 4u & 0xf0f0f0f0u)) + first;
  const Lane<u32> odd = ((low >> 4u & 0x0f0f0f0fu) | (upper & 0xf0f0f0f0u)) + first;
  expand_bytes(v, even, odd, w);
}

/// Code `r` of a band of any width; four codes are half of the bits.
KAKEYA_FN Lane<u32> wide_code(const Lane<u32>* row, const Lane<u32>& width, int r) {
  const Lane<u32> half = width * 4u;
  const Lane<u32> four = r < 4 ? row[0] : row[0] << half | (row[1] >> 1u) >> (31u - half);
  return four << (width * u32(r % 4)) >> (32u - width);
}

/// Numbers of codes of any width, one after the other.
KAKEYA_FN void expand_codes(const Values& v, const Lane<u32>* band, const Lane<u32>* row,
                            const Lane<u32>& counted, Band& b, Lane<u32>* w) {
  const Lane<u32> width = band[0] >> u32(WIDTH_AT) & 7u;
  Lane<u32> lows = 0u;
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) lows |= (wide_code(row, width, r) & 1u) << u32(28 - 4 * r);
  const Lane<u32> labels = walk_on(lows & ~counted, b) & ~counted;
  const Lane<u32> kept = counted | 254u, up = 3u & ~counted;
  KAKEYA_UNROLL
  for (int i = 0; i < 4; ++i) {
    Lane<u32> two[2];
    KAKEYA_UNROLL
    for (int j = 0; j < 2; ++j) {
      const int n = 2 * i + j;
      const Lane<u32> code = (wide_code(row, width, 7 - n) & kept) << up;
      const Lane<u32> number = code + (labels >> u32(4 * n) & 15u) + (band[0] & 511u);
      two[j] = shared_half(v.listed, number * 2u);
    }
    w[i] = two[0] | two[1] << 16u;
  }
}

/// The 8 numbers of the lane's band number `e`, two in a word, the last one first.
///
/// Rule: query.row.bits, query.decode.product, trellis.table.values
KAKEYA_FN void expand_band(const Values& v, const u8* codes, int e, Band& b, Lane<u32>* w) {
  Lane<u32> band[4], x[3];
  shared_words<4>(v.bands, cast<u32>(lane_number() % 4 * 16 + 64 * e), band);
  const Lane<u32> at = b.row + (band[0] >> u32(BYTE_AT) & 255u), from = at & ~3u;
  // The first byte becomes the highest.
  const Lane<u32> turn = (at & 3u) * 0x1111u + 0x0123u;
  KAKEYA_UNROLL
  for (int i = 0; i < 2; ++i) shared_words<1>(codes, from + u32(4 * i), x + i);
  Lane<u32> row[2] = {permute(x[0], x[1], turn), 0u};
  const Lane<u32> counted = cast<u32>(cast<int>(band[0]) >> 31);  // all bits or none
  if (!any((band[0] >> u32(WIDTH_AT) & 7u) > u32(NIBBLE))) {
    expand_nibbles(v, band, row[0], counted, b, w);
    return;
  }
  shared_words<1>(codes, from + 8u, x + 2);
  row[1] = permute(x[1], x[2], turn);
  expand_codes(v, band, row, counted, b, w);
}

}  // namespace kakeya
