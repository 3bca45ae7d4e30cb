// Codec `scalar`: rotation, scale byte, Lloyd-Max codes.
#pragma once

#include "gain.cuh"
#include "planes.cuh"

namespace kakeya {

/// Codes of an octet: how many thresholds lie strictly below each number.
///
/// Rule: scalar.code.boundary
KAKEYA_FN void quantise(Plan p, const Lane<float>* y, const Scaled& v, const float* heap,
                        Lane<u32>* codes) {
  codes[0] = 0u;
  codes[1] = 0u;
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) {
    const Lane<float> z = mul(y[r], v.scale);
    Lane<u32> node = 1u;
    KAKEYA_UNROLL
    for (int level = 0; level < p.b; ++level) {
      node = node * 2u + select<u32>(z > lookup<float>(heap, node), 1u, 0u);
    }
    codes[r / 4] |= (node - (1u << p.b)) << (r % 4 * 8);
  }
  codes[0] = select<u32>(v.byte == 0u, 0u, codes[0]);
  codes[1] = select<u32>(v.byte == 0u, 0u, codes[1]);
}

/// Rule: scalar.code.boundary, scale.rms, num.input.finite
KAKEYA_FN void scalar_encode(Plan p, const Vectors& x, const u32* table, const float* heap,
                             const Pages& pages, i64 warp, u8* scratch, u64* status,
                             bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Rotation rotation = make_rotation(p, t, table);
  const Places from = make_places(p, t, x, t.share, shares(p));
  for (int turn = 0; turn < 8; ++turn) {
    Lane<float> y[8 * SLABS];
    const Scaled v = analyse(p, t, from, turn, rotation, table, scratch, status, y);
    if (check) continue;
    const Lane<int> token = token_of(p, t, turn);
    write_small<u8>(pages.data, t.body + cast<i64>(token), t.live & (t.lane == 0), v.byte);
    Lane<u32> codes[2 * SLABS];
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) quantise(p, y + 8 * s, v, heap, codes + 2 * s);
    write_codes(p, t, codes, token, pages.data, p.P, scratch);
  }
}

/// Rule: scalar.decode.product, scale.byte.zero
KAKEYA_FN void scalar_decode(Plan p, const Pages& pages, const u32* table,
                             const float* centroids, const Vectors& out, i64 warp) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Rotation rotation = make_rotation(p, t, table);
  const Places to = make_places(p, t, out, t.share, shares(p));
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    const Lane<u32> byte = read_small<u8>(pages.data, t.body + cast<i64>(token), t.live);
    Lane<u32> codes[2 * SLABS];
    read_codes(p, t, pages.data, p.P, token, codes);
    const Lane<float> gain = real(lookup_global<u32>(table + BACKWARD, cast<i64>(byte), true));
    Lane<float> y[8 * SLABS];
    KAKEYA_UNROLL
    for (int i = 0; i < 8 * slabs(p); ++i) {
      const Lane<float> c = lookup<float>(centroids, code_of(codes + i / 8 * 2, i % 8));
      y[i] = mul_zero(c, gain);  // +0 for a -0, and nothing else changes
    }
    if (p.vectors) rotate_back(p, t, rotation, y);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) write_octet(p, to, turn, s, holds(p, t, s), y + 8 * s);
  }
}

}  // namespace kakeya
