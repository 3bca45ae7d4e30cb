// Codes of 1 to 8 bits between the octets of a token and its rows in the planes of a page.
#pragma once

#include "team.cuh"

namespace kakeya {

// A row of D fields in a plane of w bits has D*w/8 bytes; byte j holds fields j + m*D*w/8. A run
// of 4 fields lies in one word when 4 divides the row's bytes: for all D that 32 divides, and for
// wider planes more often. Other rows go byte by byte.

KAKEYA_FN constexpr u32 repeated(int w) { return ((1u << w) - 1) * 0x01010101u; }

/// Write a token's codes, given as 8 bytes for each octet. `scratch` is the warp's.
///
/// Rule: page.plane.strided, page.plane.split, page.plane.aligned
KAKEYA_FN void write_codes(Plan p, const Team& t, const Lane<u32>* codes, const Lane<int>& token,
                           u8* pages, i64 plane, u8* scratch) {
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    const Lane<int> octet = octet_of(p, t, s);
    write_shared<2>(scratch, t.base + cast<u32>(octet) * 8u, octet < octets(p), codes + 2 * s);
  }
  sync_warp();
  int shift = 0;
  KAKEYA_UNROLL
  for (int w = 8; w >= 1; w /= 2) {
    if (!(p.b & w)) continue;
    const int row = p.D * w / 8;
    const int unit = row % 4 ? 1 : 4;
    const u32 mask = unit == 4 ? repeated(w) : (1u << w) - 1;
    const Lane<i64> begin = t.body + plane + cast<i64>(token) * i64(row);
    KAKEYA_UNROLL
    for (int j = 0; j < row / unit; j += lanes(p)) {
      const Lane<int> at = (t.lane + j) * unit;
      const Lane<bool> on = at < row;
      Lane<u32> packed = 0u;
      KAKEYA_UNROLL
      for (int m = 0; m < 8 / w; ++m) {
        const Lane<u32> from = t.base + cast<u32>(at + m * row);
        const Lane<u32> four =
            unit == 4 ? read_shared(scratch, from, on) : read_shared_byte(scratch, from, on);
        packed |= ((four >> shift) & mask) << (m * w);
      }
      if (unit == 4) {
        write_words<1>(pages, begin + cast<i64>(at), on & t.live, &packed);
      } else {
        write_small<u8>(pages, begin + cast<i64>(at), on & t.live, packed);
      }
    }
    plane += i64(p.P) * row;  // a multiple of 16, for P is
    shift += w;
  }
  sync_warp();
}

/// Fields 4*quad .. 4*quad + 3 of a row of a plane, as bytes.
KAKEYA_FN Lane<u32> read_quad(Plan p, const u8* pages, const Lane<i64>& begin, int w,
                              const Lane<int>& quad, const Lane<bool>& on) {
  const int row = p.D * w / 8;
  if (row % 4 == 0) {
    const Lane<int> part = quad * 4 / row;
    Lane<u32> word;
    read_words<1>(pages, begin + cast<i64>(quad * 4 - part * row), on, &word);
    return (word >> cast<u32>(part * w)) & repeated(w);
  }
  Lane<u32> four = 0u;
  KAKEYA_UNROLL
  for (int k = 0; k < 4; ++k) {
    const Lane<int> field = quad * 4 + k;
    const Lane<int> part = field / row;
    const Lane<u32> byte = read_small<u8>(pages, begin + cast<i64>(field - part * row), on);
    four |= ((byte >> cast<u32>(part * w)) & ((1u << w) - 1)) << (8 * k);
  }
  return four;
}

/// Inverse of write_codes.
KAKEYA_FN void read_codes(Plan p, const Team& t, const u8* pages, i64 plane,
                          const Lane<int>& token, Lane<u32>* codes) {
  KAKEYA_UNROLL
  for (int i = 0; i < 2 * slabs(p); ++i) codes[i] = 0u;
  int shift = 0;
  KAKEYA_UNROLL
  for (int w = 8; w >= 1; w /= 2) {
    if (!(p.b & w)) continue;
    const int row = p.D * w / 8;
    const Lane<i64> begin = t.body + plane + cast<i64>(token) * i64(row);
    KAKEYA_UNROLL
    for (int i = 0; i < 2 * slabs(p); ++i) {
      const Lane<int> quad = octet_of(p, t, i / 2) * 2 + i % 2;
      codes[i] |= read_quad(p, pages, begin, w, quad, holds(p, t, i / 2)) << shift;
    }
    plane += i64(p.P) * row;
    shift += w;
  }
}

/// Code `r` of an octet.
KAKEYA_FN Lane<u32> code_of(const Lane<u32>* codes, int r) {
  return (codes[r / 4] >> (r % 4 * 8)) & 255u;
}

}  // namespace kakeya
