// Codec `trellis`: rotation, scale byte, a walk of least error.
#pragma once

#include "gain.cuh"
#include "planes.cuh"
#include "walk.cuh"

namespace kakeya {

// Shared memory of a warp beside its scratch: the numbers of its vectors, then the flags of a walk.
constexpr int NUMBERS = SLABS * WARP * 8 * 4;
constexpr int WALK = NUMBERS + KAKEYA_D / 8 * FLAGS;

struct Near {
  Lane<float> square;
  Lane<u32> pick;
};

/// Rule: trellis.search.branch
KAKEYA_FN Near nearest(Plan p, const float* values, const Lane<float>& z, const Lane<u32>& label) {
  Near best = {0.0f, 0u};
  KAKEYA_UNROLL
  for (int u = 0; u < 1 << (p.b - 1); ++u) {
    const Lane<float> v = lookup_global<float>(values, cast<i64>(label) + i64(16 * u), true);
    const Lane<float> off = sub(z, v), square = mul(off, off);
    const Lane<bool> better = u == 0 ? Lane<bool>(true) : square < best.square;
    best.square = select<float>(better, square, best.square);
    best.pick = select<u32>(better, u32(u), best.pick);
  }
  return best;
}

/// Windows of the walk of one vector, as trace_walk leaves them.
KAKEYA_FN void search(Plan p, const float* values, u8* walk, int vector, int owner,
                      Lane<u32>* windows) {
  const Lane<u32> label = label_of(cast<u32>(lane_number()) * 2u);
  Lane<float> cost[4];
  begin_walk(cost);
  Lane<u32> word = 0u;
  for (int i = 0; i < p.D; ++i) {
    const Lane<u32> at = u32(vector * p.D + i) * 4u;
    const Lane<float> e = nearest(p, values, real(read_shared(walk, at, true)), label).square;
    word |= extend_walk(e, cost) << u32(i % 8 * 4);
    if (i % 8 == 7) {
      keep_flags(walk + NUMBERS, i / 8, word);
      word = 0u;
    }
  }
  sync_warp();
  trace_walk(walk + NUMBERS, 0, p.D / 8, owner, slabs(p), end_walk(cost), windows);
  sync_warp();
}

/// Rule: trellis.search.branch, trellis.gain.unbiased, scale.rms, num.input.finite
KAKEYA_FN void trellis_encode(Plan p, const Vectors& x, const u32* table, const Pages& pages,
                              i64 warp, u8* scratch, u8* walk, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const float* values = reinterpret_cast<const float*>(table + CODEBOOK);
  const Rotation rotation = make_rotation(p, t, table);
  const Places from = make_places(p, t, x, t.share, shares(p));
  const Lane<u32> team = cast<u32>(lane_number() / lanes(p));
  for (int turn = 0; turn < 8; ++turn) {
    Lane<float> y[8 * SLABS];
    const Scaled v = analyse(p, t, from, turn, rotation, table, scratch, status, y);
    if (check) continue;
    const Lane<int> token = token_of(p, t, turn);
    KAKEYA_UNROLL
    for (int i = 0; i < 8 * slabs(p); ++i) {
      y[i] = mul(y[i], v.scale);
      const Lane<int> octet = octet_of(p, t, i / 8);
      const Lane<u32> number = bits(y[i]);
      const Lane<u32> at = team * u32(p.D) + cast<u32>(octet) * 8u + u32(i % 8);
      write_shared<1>(walk, at * 4u, octet < octets(p), &number);
    }
    sync_warp();
    Lane<u32> windows[8 * SLABS];
    KAKEYA_UNROLL
    for (int i = 0; i < 8 * slabs(p); ++i) windows[i] = 0u;
    for (int k = 0; k < teams(p); ++k) search(p, values, walk, k, k * lanes(p), windows);
    Lane<float> squares = 0.0f;
    if (p.unbiased) squares = squares_of(p, t, y, scratch);
    Lane<u32> codes[2 * SLABS];
    KAKEYA_UNROLL
    for (int i = 0; i < 8 * slabs(p); ++i) {
      const Lane<u32> label = label_of(windows[i]);
      const Lane<u32> pick = nearest(p, values, y[i], label).pick;
      const Lane<u32> code = select<u32>(v.byte == 0u, 0u, pick * 2u + (windows[i] & 1u));
      codes[i / 4] = i % 4 ? codes[i / 4] | code << u32(i % 4 * 8) : code;
      // Of no use from here on but in the product.
      y[i] = mul(y[i], lookup_global<float>(values, cast<i64>(pick * 16u + label), p.unbiased));
    }
    Lane<u32> byte = v.byte;
    if (p.unbiased) byte = unbiased(table, byte, squares, halving_sum(p, t, y, scratch));
    write_small<u8>(pages.data, t.body + cast<i64>(token), t.live & (t.lane == 0), byte);
    write_codes(p, t, codes, token, pages.data, p.P, scratch);
  }
}

/// Rule: trellis.decode.product, trellis.table.values, scale.byte.zero
KAKEYA_FN void trellis_decode(Plan p, const Pages& pages, const u32* table, const float* values,
                              const Vectors& out, i64 warp) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Rotation rotation = make_rotation(p, t, table);
  const Places to = make_places(p, t, out, t.share, shares(p));
  const Lane<int> before = (lane_number() + 31) % 32;
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    const Lane<u32> byte = read_small<u8>(pages.data, t.body + cast<i64>(token), t.live);
    Lane<u32> codes[2 * SLABS];
    read_codes(p, t, pages.data, p.P, token, codes);
    const Lane<float> gain = real(lookup_global<u32>(table + BACKWARD, cast<i64>(byte), true));
    Lane<float> y[8 * SLABS];
    Lane<u32> newest = 0u;  // low bits of the slab before, of its last octet in lane 0
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<u32> lows = 0u;
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) lows |= (code_of(codes + 2 * s, r) & 1u) << u32(r);
      const Lane<u32> near = shuffle(lows, before);
      Lane<u32> labels[4];
      labels_of(lows << 8u | select<u32>(t.lane == 0, newest, near), labels);
      newest = near;
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        const Lane<u32> at = (code_of(codes + 2 * s, r) / 2u) * 16u + label_at(labels, r);
        y[8 * s + r] = mul_zero(lookup<float>(values, at), gain);
      }
    }
    if (p.vectors) rotate_back(p, t, rotation, y);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) write_octet(p, to, turn, s, holds(p, t, s), y + 8 * s);
  }
}

}  // namespace kakeya
