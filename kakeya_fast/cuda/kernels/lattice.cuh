// Codecs `d4` and `e8`: rotation, scale byte, nearest lattice point, its index. N is 4 or 8.
#pragma once

#include "gain.cuh"
#include "narrow.cuh"
#include "nearest.cuh"

namespace kakeya {

/// Rule: d4.nearest.inside, e8.nearest.inside, e8.coset.tie, scale.rms, scale.byte.zero
template <int N>
KAKEYA_FN void lattice_encode(Plan p, const Vectors& x, const u32* table, const Pages& pages,
                              i64 warp, u8* scratch, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Rotation rotation = make_rotation(p, t, table);
  const Places from = make_places(p, t, x, t.share, shares(p));
  NarrowPlanes<N> narrow[SLABS];
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) narrow[s] = no_bits<N>();
  for (int turn = 0; turn < 8; ++turn) {
    Lane<float> y[8 * SLABS];
    const Scaled v = analyse(p, t, from, turn, rotation, table, scratch, status, y);
    if (check) continue;
    const Lane<int> token = token_of(p, t, turn);
    write_small<u8>(pages.data, t.body + cast<i64>(token), t.live & (t.lane == 0), v.byte);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Fields<N> fields;
      KAKEYA_UNROLL
      for (int f = 0; f < 8 / N; ++f) {
        Lane<float> z[N], c[N];
        KAKEYA_UNROLL
        for (int i = 0; i < N; ++i) z[i] = mul(y[8 * s + N * f + i], v.scale);
        const Lane<bool> half = nearest_point<N>(p, z, c);
        fields.index[f] = select<u64>(v.byte == 0u, 0, rank<N>(p, c, half));
      }
      Lane<u32> rest[8 / N];
      write_wide<N>(p, t, fields, token, s, pages.data, rest);
      put_narrow<N>(p, turn, rest, narrow[s]);
    }
  }
  if (check) return;
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) write_narrow<N>(p, t, s, pages.data, narrow[s]);
  write_padding<N>(p, t, pages.data);
}

/// Rule: d4.decode.product, e8.decode.product, d4.index.range, e8.index.range, scale.byte.zero
template <int N>
KAKEYA_FN void lattice_decode(Plan p, const Pages& pages, const u32* table, const Vectors& out,
                              i64 warp, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Rotation rotation = make_rotation(p, t, table);
  const Places to = make_places(p, t, out, t.share, shares(p));
  NarrowPlanes<N> narrow[SLABS];
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) narrow[s] = read_narrow<N>(p, t, s, pages.data);
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    const Lane<u32> byte = read_small<u8>(pages.data, t.body + cast<i64>(token), t.live);
    const Lane<float> step = real(lookup_global<u32>(table + BACKWARD, cast<i64>(byte), true));
    Lane<float> y[8 * SLABS];
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Fields<N> fields;
      read_wide<N>(p, t, token, s, pages.data, &fields);
      take_narrow<N>(p, turn, narrow[s], fields);
      KAKEYA_UNROLL
      for (int f = 0; f < 8 / N; ++f) {
        const Lane<bool> bad = fields.index[f] >= points(p, N);
        report(status + 1, holds(p, t, s) & bad, vector_number(p, t, token));
        if (check) continue;
        Lane<float> c[N];
        unrank<N>(p, select<u64>(bad, 0, fields.index[f]), c);
        const Lane<float> scale = select<float>(bad, 0.0f, step);
        KAKEYA_UNROLL
        for (int i = 0; i < N; ++i) {
          // +0 for a -0, and nothing else changes.
          y[8 * s + N * f + i] = mul_zero(c[i], scale);
        }
      }
    }
    if (check) continue;
    if (p.vectors) rotate_back(p, t, rotation, y);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) write_octet(p, to, turn, s, holds(p, t, s), y + 8 * s);
  }
}

}  // namespace kakeya
