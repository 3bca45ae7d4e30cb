// Codec `fp8`: e4m3 numbers under one scale byte.
#pragma once

#include "gain.cuh"

namespace kakeya {

constexpr u32 PEAK = 0x3b124925u;  // fp32(1/448)

/// Byte at which the codes of an octet are stored.
KAKEYA_FN Lane<i64> codes_at(Plan p, const Team& t, const Lane<int>& token, int s) {
  return t.body + i64(p.P) + cast<i64>(token * octets(p) + octet_of(p, t, s)) * i64(8);
}

/// Rule: fp8.scale.up, fp8.code.round, scale.byte.zero, num.input.finite
KAKEYA_FN void fp8_encode(Plan p, const Vectors& x, const u32* table, const Pages& pages,
                          i64 warp, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Places from = make_places(p, t, x, t.share, shares(p));
  const u32* bounds = table + BOUNDS;
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    Lane<float> y[8 * SLABS];
    Lane<u32> largest = 0u;
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      read_numbers(p, from, turn, s, holds(p, t, s), y + 8 * s);
      largest = most(largest, largest_of(y + 8 * s));
    }
    largest = team_most(p, largest);
    const Lane<float> gain = mul(real(largest), real(Lane<u32>(PEAK)));
    const Lane<bool> fits = gain <= real(lookup_global<u32>(bounds, i64(254), true));
    report_input(p, t, token, t.live & !fits, largest, status);
    if (check) continue;
    const Lane<bool> zero = (!fits) | (largest == 0u);
    const Lane<u32> byte = select<u32>(zero, 0u, count_below(bounds, gain, 127) + 1u);
    write_small<u8>(pages.data, t.body + cast<i64>(token), t.live & (t.lane == 0), byte);
    const Lane<float> scale = real(lookup_global<u32>(table + FORWARD, cast<i64>(byte), true));
    // A -0 in a zero vector must not leave its sign bit.
    const Lane<u32> keep = select<u32>(zero, 0u, ~0u);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<u32> codes[2] = {0u, 0u};
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        codes[r / 4] |= to_e4m3(mul(y[8 * s + r], scale)) << (r % 4 * 8);
      }
      codes[0] = codes[0] & keep;
      codes[1] = codes[1] & keep;
      write_words<2>(pages.data, codes_at(p, t, token, s), holds(p, t, s), codes);
    }
  }
}

/// Bit 7 of each byte whose code is a NaN.
KAKEYA_FN Lane<u32> nan_codes(const Lane<u32>& codes) {
  return ((codes & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
}

/// Rule: fp8.decode.product, fp8.code.nan, scale.byte.zero
KAKEYA_FN void fp8_decode(Plan p, const Pages& pages, const u32* table, const Vectors& out,
                          i64 warp, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Places to = make_places(p, t, out, t.share, shares(p));
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    const Lane<u32> byte = read_small<u8>(pages.data, t.body + cast<i64>(token), t.live);
    const Lane<float> gain = real(lookup_global<u32>(table + BACKWARD, cast<i64>(byte), true));
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      const Lane<bool> on = holds(p, t, s);
      Lane<u32> codes[2];
      read_words<2>(pages.data, codes_at(p, t, token, s), on, codes);
      const Lane<bool> bad = (nan_codes(codes[0]) | nan_codes(codes[1])) != 0u;
      report(status + 1, on & bad, vector_number(p, t, token));
      if (check) continue;
      Lane<float> y[8];
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        const Lane<u32> code = select<u32>(bad, 0u, codes[r / 4] >> (r % 4 * 8));
        y[r] = mul(from_e4m3(code), gain);
        y[r] = select<float>(byte == 0u, 0.0f, y[r]);
      }
      write_octet(p, to, turn, s, on, y);
    }
  }
}

}  // namespace kakeya
