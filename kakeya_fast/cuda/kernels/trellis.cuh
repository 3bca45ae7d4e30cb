// Codec `trellis`: rotation, scale byte, a walk of least error. D is at most 256: a vector is one
// slab, and the flags of a walk fit beside it.
#pragma once

#include "gain.cuh"
#include "planes.cuh"

namespace kakeya {

// Column j of the labels in bits 4j .. 4j + 3; a test holds them to spec/trellis.json.
constexpr u32 COLUMNS = 0x8d14c6d8u;

// Shared memory of a warp beside its scratch: the numbers of its vectors, then 4 flags of each
// lane and step, 8 steps a word.
constexpr int NUMBERS = WARP * 8 * 4;
constexpr int LONGEST = 256;
constexpr int WALK = NUMBERS + (KAKEYA_D < LONGEST ? KAKEYA_D : LONGEST) * 16;

/// Rule: trellis.label.linear
KAKEYA_FN Lane<u32> label_of(const Lane<u32>& window) {
  Lane<u32> label = 0u;
  KAKEYA_UNROLL
  for (int j = 0; j < 8; ++j) {
    const u32 column = (COLUMNS >> (4 * j)) & 15u;
    label = label ^ select<u32>(((window >> u32(j)) & 1u) != 0u, column, 0u);
  }
  return label;
}

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

/// Windows of the walk of one vector, left with the lanes from `owner` on: window r of lane
/// owner + o is that of number 8 o + r.
///
/// State t is register t / 32 of lane t % 32, so that states s and s + 64 lie in one lane. A lane
/// computes the branch of the label of window 2 * lane; labels are linear, so that the other
/// three it needs are those of lanes at fixed distances.
///
/// Rule: trellis.search.start, trellis.search.step, trellis.search.end
KAKEYA_FN void search(Plan p, const float* values, u8* walk, int vector, int owner,
                      Lane<u32>* windows) {
  const Lane<int> lane = lane_number();
  const Lane<u32> label = label_of(cast<u32>(lane) * 2u);
  const Lane<float> infinity = real(Lane<u32>(0x7f800000u));
  Lane<float> cost[4] = {infinity, infinity, infinity, infinity};
  cost[0] = select<float>(lane == 0, 0.0f, infinity);
  const Lane<u32> place = cast<u32>(lane) * 4u + u32(NUMBERS);
  Lane<u32> word = 0u;
  for (int i = 0; i < p.D; ++i) {
    const Lane<u32> at = u32(vector * p.D + i) * 4u;
    const Lane<float> e = nearest(p, values, real(read_shared(walk, at, true)), label).square;
    // Lanes 12, 1 and 13 away hold labels that differ by 8, by 13 (window 64) and by both.
    const Lane<float> one[2] = {e, shuffle_xor(e, 1)};
    const Lane<float> two[2] = {shuffle_xor(e, 12), shuffle_xor(e, 13)};
    Lane<float> even[2], odd[2];
    Lane<u32> flags = 0u;
    KAKEYA_UNROLL
    for (int r = 0; r < 2; ++r) {
      const Lane<float> a = add(cost[r], one[r]), b = add(cost[r + 2], two[r]);
      const Lane<float> c = add(cost[r], two[r]), d = add(cost[r + 2], one[r]);
      even[r] = select<float>(b < a, b, a);
      odd[r] = select<float>(d < c, d, c);
      flags |= select<u32>(b < a, 1u << (2 * r), 0u) | select<u32>(d < c, 2u << (2 * r), 0u);
    }
    word |= flags << u32(i % 8 * 4);
    if (i % 8 == 7) {
      write_shared<1>(walk, place + u32(i / 8 * WARP * 4), true, &word);
      word = 0u;
    }
    KAKEYA_UNROLL
    for (int r = 0; r < 4; ++r) {
      const Lane<int> from = lane / 2 + 16 * (r % 2);
      const Lane<float> x = shuffle(even[r / 2], from), y = shuffle(odd[r / 2], from);
      cost[r] = select<float>((lane & 1) != 0, y, x);
    }
  }
  sync_warp();
  Lane<float> least = cost[0];
  Lane<u32> state = cast<u32>(lane);
  KAKEYA_UNROLL
  for (int r = 1; r < 4; ++r) {
    state = select<u32>(cost[r] < least, cast<u32>(lane) + u32(32 * r), state);
    least = select<float>(cost[r] < least, cost[r], least);
  }
  KAKEYA_UNROLL
  for (int o = 1; o < WARP; o *= 2) {
    const Lane<float> other = shuffle_xor(least, o);
    const Lane<u32> theirs = shuffle_xor(state, o);
    const Lane<bool> take = (other < least) | ((other == least) & (theirs < state));
    state = select<u32>(take, theirs, state);
    least = select<float>(take, other, least);
  }
  for (int o = p.D / 8 - 1; o >= 0; --o) {
    const Lane<bool> mine = lane == owner + o;
    KAKEYA_UNROLL
    for (int r = 7; r >= 0; --r) {
      const Lane<u32> low = state / 2u;
      const Lane<u32> at = u32(NUMBERS + o * WARP * 4) + (low & 31u) * 4u;
      const Lane<u32> shift = u32(4 * r) + (low >> 5u) * 2u + (state & 1u);
      const Lane<u32> upper = (read_shared(walk, at, true) >> shift) & 1u;
      const Lane<u32> window = state + upper * 128u;
      windows[r] = select<u32>(mine, window, windows[r]);
      state = window / 2u;
    }
  }
  sync_warp();
}

/// Rule: trellis.search.branch, scale.rms, num.input.finite
KAKEYA_FN void trellis_encode(Plan p, const Vectors& x, const u32* table, const Pages& pages,
                              i64 warp, u8* scratch, u8* walk, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const float* values = reinterpret_cast<const float*>(table + CODEBOOK);
  const Rotation rotation = make_rotation(p, t, table);
  const Places from = make_places(p, t, x, t.share, shares(p));
  const Lane<bool> on = t.lane < octets(p);
  const Lane<u32> team = cast<u32>(lane_number() / lanes(p));
  for (int turn = 0; turn < 8; ++turn) {
    Lane<float> y[8 * SLABS];
    const Scaled v = analyse(p, t, from, turn, rotation, table, scratch, status, y);
    if (check) continue;
    const Lane<int> token = token_of(p, t, turn);
    write_small<u8>(pages.data, t.body + cast<i64>(token), t.live & (t.lane == 0), v.byte);
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) {
      y[r] = mul(y[r], v.scale);
      const Lane<u32> number = bits(y[r]);
      const Lane<u32> at = team * u32(p.D) + cast<u32>(t.lane) * 8u + u32(r);
      write_shared<1>(walk, at * 4u, on, &number);
    }
    sync_warp();
    Lane<u32> windows[8] = {0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u};
    for (int k = 0; k < teams(p); ++k) search(p, values, walk, k, k * lanes(p), windows);
    Lane<u32> codes[2 * SLABS];
    codes[0] = 0u;
    codes[1] = 0u;
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) {
      const Lane<u32> pick = nearest(p, values, y[r], label_of(windows[r])).pick;
      codes[r / 4] |= (pick * 2u + (windows[r] & 1u)) << u32(r % 4 * 8);
    }
    codes[0] = select<u32>(v.byte == 0u, 0u, codes[0]);
    codes[1] = select<u32>(v.byte == 0u, 0u, codes[1]);
    write_codes(p, t, codes, token, pages.data, p.P, scratch);
  }
}

/// Labels of an octet from the low bits of 16 codes, the octet's the upper 8: bit r of word q is
/// bit q of the label of code r. Labels are linear, so that eight of them cost little more than one.
///
/// Rule: trellis.window.shift, trellis.label.linear
KAKEYA_FN void labels_of(const Lane<u32>& lows, Lane<u32>* labels) {
  KAKEYA_UNROLL
  for (int q = 0; q < 4; ++q) {
    labels[q] = 0u;
    KAKEYA_UNROLL
    for (int j = 0; j < 8; ++j) {
      if ((COLUMNS >> (4 * j + q)) & 1u) labels[q] = labels[q] ^ (lows >> u32(8 - j));
    }
  }
}

/// Rule: trellis.decode.product, trellis.table.values, scale.byte.zero
KAKEYA_FN void trellis_decode(Plan p, const Pages& pages, const u32* table, const Vectors& out,
                              i64 warp) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const float* values = reinterpret_cast<const float*>(table + CODEBOOK);
  const Rotation rotation = make_rotation(p, t, table);
  const Places to = make_places(p, t, out, t.share, shares(p));
  const Lane<int> before = (lane_number() + 31) % 32;
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    const Lane<u32> byte = read_small<u8>(pages.data, t.body + cast<i64>(token), t.live);
    Lane<u32> codes[2 * SLABS];
    read_codes(p, t, pages.data, p.P, token, codes);
    const Lane<float> gain = real(lookup_global<u32>(table + BACKWARD, cast<i64>(byte), true));
    Lane<u32> lows = 0u;
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) lows |= (code_of(codes, r) & 1u) << u32(r);
    lows = lows << 8u | select<u32>(t.lane == 0, 0u, shuffle(lows, before));
    Lane<u32> labels[4];
    labels_of(lows, labels);
    Lane<float> y[8 * SLABS];
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) {
      Lane<u32> at = (code_of(codes, r) / 2u) * 16u;
      KAKEYA_UNROLL
      for (int q = 0; q < 4; ++q) at |= ((labels[q] >> u32(r)) & 1u) << u32(q);
      y[r] = mul_zero(lookup_global<float>(values, cast<i64>(at), true), gain);
    }
    if (p.vectors) rotate_back(p, t, rotation, y);
    write_octet(p, to, turn, 0, holds(p, t, 0), y);
  }
}

}  // namespace kakeya
