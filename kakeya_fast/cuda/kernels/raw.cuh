// Codec `raw`: the numbers themselves.
#pragma once

#include "vectors.cuh"

namespace kakeya {

/// Byte at which an octet is stored.
KAKEYA_FN Lane<i64> stored_at(Plan p, const Team& t, const Lane<int>& token, int s) {
  const Lane<int> octet = token * octets(p) + octet_of(p, t, s);
  return t.body + cast<i64>(octet) * i64(p.stored == F32 ? 32 : 16);
}

/// Rule: raw.encode.nearest, raw.range, num.input.finite
KAKEYA_FN void raw_encode(Plan p, const Vectors& x, const Pages& pages, i64 warp, u64* status,
                          bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Places from = make_places(p, t, x, t.share, shares(p));
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    Lane<u32> stored[8 * SLABS];
    Lane<u32> largest = 0u, kept = 0u;
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<float> y[8];
      read_numbers(p, from, turn, s, holds(p, t, s), y);
      largest = most(largest, largest_of(y));
      to_words(p.stored, y, stored + 8 * s);
      from_words(p.stored, stored + 8 * s, y);
      kept = most(kept, largest_of(y));
    }
    largest = team_most(p, largest);
    const Lane<bool> bad = most(largest, team_most(p, kept)) >= INFINITE;
    report_input(p, t, token, t.live & bad, largest, status);
    if (check) continue;
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<u32>* w = stored + 8 * s;
      KAKEYA_UNROLL
      for (int i = 0; i < (p.stored == F32 ? 8 : 4); ++i) w[i] = select<u32>(bad, 0u, w[i]);
      const Lane<i64> at = stored_at(p, t, token, s);
      write_words<4>(pages.data, at, holds(p, t, s), w);
      if (p.stored == F32) write_words<4>(pages.data, at + i64(16), holds(p, t, s), w + 4);
    }
  }
}

/// Rule: raw.decode.exact, raw.code.finite
KAKEYA_FN void raw_decode(Plan p, const Pages& pages, const Vectors& out, i64 warp, u64* status,
                          bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Places to = make_places(p, t, out, t.share, shares(p));
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      const Lane<bool> on = holds(p, t, s);
      const Lane<i64> at = stored_at(p, t, token, s);
      Lane<u32> w[8];
      Lane<float> y[8];
      read_words<4>(pages.data, at, on, w);
      if (p.stored == F32) read_words<4>(pages.data, at + i64(16), on, w + 4);
      from_words(p.stored, w, y);
      const Lane<bool> bad = largest_of(y) >= INFINITE;
      report(status + 1, on & bad, vector_number(p, t, token));
      if (check) continue;
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) y[r] = select<float>(bad, 0.0f, y[r]);
      write_octet(p, to, turn, s, on, y);
    }
  }
}

}  // namespace kakeya
