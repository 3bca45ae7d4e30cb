// A warp's way through its tiles: which they are, and their bytes on the way to shared memory.
#pragma once

#include "attend_codes.cuh"

namespace kakeya {

// The block: one share of the pages of one KV head, for up to 8 NT of its query rows.
struct Block {
  const AttendArgs* a;
  u8* shared;
  int split, head, row, first_m, number;  // number: of its ticket and its partials
  int origin;                             // cache index of query token 0
};

constexpr float NEVER = -1e30f;  // below every logit, and yet finite
constexpr u32 MINUS_INFINITY = 0xff800000u;

// What a warp keeps in registers from one step of the block to the next.
struct State {
  int first_tile, tiles;                 // of the warp: first_tile, then every `warps`-th
  Lane<int> slot, valid, since, start, frame;  // of the 32 tiles from which the next is taken
  Lane<float> sums[16 * V_OCTETS * TILES_N];
  Lane<float> largest[2 * TILES_N], total[2 * TILES_N];
  float exponents[2];                    // of K and V: what a scale byte of 0 would stand for
};

KAKEYA_FN u8* stages_of(Attend p, const Block& k, int warp) {
  return k.shared + warp * p.stages * stage_bytes(p);
}

/// Share the tiles among blocks, in runs, and among the warps of a block, in turn.
KAKEYA_FN void find_tiles(Attend p, const Block& k, int warp, State& s) {
  const AttendArgs& a = *k.a;
  const int all = (a.count ? a.count[k.row] : a.pages) * (p.P / p.T);
  const int each = (all + a.splits - 1) / a.splits;
  const int begin = k.split * each, end = begin + each < all ? begin + each : all;
  s.first_tile = begin + warp;
  s.tiles = end > s.first_tile ? (end - s.first_tile + p.warps - 1) / p.warps : 0;
}

/// What the page table says about 32 tiles of the warp, from number `i` on.
///
/// A tile nobody sees has no valid tokens.
KAKEYA_FN void look_up(Attend p, const Block& k, int i, State& s) {
  const AttendArgs& a = *k.a;
  const int oldest = k.origin, newest = oldest + a.queries - 1;
  const Lane<int> tile = (lane_number() + i) * p.warps + s.first_tile;
  const Lane<bool> on = lane_number() + i < s.tiles;
  const Lane<int> part = tile % (p.P / p.T);
  const Lane<i64> page = cast<i64>(tile / (p.P / p.T));
  const Lane<i64> at = page + k.row * a.page_row;
  s.slot = lookup_global<int>(a.slots, page + (k.row * a.slot_row + k.head * a.slot_head), on);
  s.since = lookup_global<int>(a.since, at, on);
  const Lane<int> left = lookup_global<int>(a.length, at, on) - part * p.T;
  s.start = lookup_global<int>(a.first, at, on) + part * p.T;
  Lane<bool> seen = on & (s.slot >= 0) & (left > 0) & (s.since <= newest) & (s.start <= newest);
  if (p.window) seen = seen & (s.start + (p.T - 1) > oldest - a.window);
  s.valid = select<int>(seen, select<int>(left < p.T, left, p.T), 0);
  if (p.framed) s.frame = lookup_global<int>(a.frame, at, on);
}

KAKEYA_FN void copy_run(u8* shared, int to, const u8* global, int bytes) {
  const Lane<int> lane = lane_number();
  KAKEYA_UNROLL
  for (int i = 0; i * 512 < bytes; ++i) {
    const Lane<int> at = (lane + 32 * i) * 16;
    copy16(shared, cast<u32>(at + to), global, cast<i64>(at),
           (i + 1) * 512 <= bytes ? Lane<bool>(true) : at < bytes);
  }
}

/// Begin copying codes of a stream: rows of bytes, or one plane, or two.
KAKEYA_FN void copy_codes(Attend p, bool v, u8* shared, const u8* body, int part) {
  const int to = codes_at(p, v), d = v ? p.DV : p.D, b = v ? p.VB : p.KB;
  const bool rows = code_of_stream(p, v).way == CALIBRATED;
  const int low = base_bits(b), size = rows ? p.T * p.KR : plane_bytes(p.T, d, low);
  copy_run(shared, to, body + p.P + part * size, size);
  if (b != 3) return;
  const int more = plane_bytes(p.T, d, 1);
  copy_run(shared, to + size, body + p.P + plane_bytes(p.P, d, 2) + part * more, more);
}

/// Begin copying tile number `i` of the warp.
KAKEYA_FN void issue(Attend p, const Block& k, u8* stages, int i, State& s) {
  const AttendArgs& a = *k.a;
  if (i < s.tiles) {
    const int from = i % WARP;
    const int valid = broadcast(s.valid, from), since = broadcast(s.since, from);
    const int start = broadcast(s.start, from);
    u8* stage = stages + i % p.stages * stage_bytes(p);
    const Lane<u32> about[4] = {static_cast<u32>(valid), static_cast<u32>(since),
                                static_cast<u32>(start), 0u};
    write_shared<4>(stage, 0u, lane_number() == 0, about);
    if (valid > 0) {
      const i64 slot = broadcast(s.slot, from);
      const int part = (s.first_tile + i * p.warps) % (p.P / p.T);
      const u8 *key = a.k_pool + slot * a.k_stride, *value = a.v_pool + slot * a.v_stride;
      copy_run(stage, scales_at(p, false), key + part * p.T, p.T);
      copy_run(stage, scales_at(p, true), value + part * p.T, p.T);
      copy_codes(p, false, stage, key, part);
      copy_codes(p, true, stage, value, part);
      if (p.framed) {
        const i64 frame = broadcast(s.frame, from);
        const u8* turned = a.turned + (k.number * i64(a.frames) + frame) * queries_bytes(p);
        copy_run(stage, turned_at(p), turned, queries_bytes(p));
      }
    }
  }
  copies_end();  // an empty group too: groups are counted
}

}  // namespace kakeya
