// Who does what: the team of lanes that owns a vector, and where its vectors and bytes lie.
#pragma once

#include "plan.cuh"

namespace kakeya {

// Vectors in memory: any strides, in elements. Encoders read, decoders write.
struct Vectors {
  void* data;
  i64 page, token, element;
};

// Page bodies in memory: `stride` bytes apart, page n in row slots[n] if there are slots.
struct Pages {
  u8* data;
  i64 stride;
  const i64* slots;
  i64 count;
};

// Constants of a layout and, behind them, the tables of codecs that have any. Page n is read with
// number which[n] of these; with number n, counted round, where there is no list.
struct Tables {
  const u32* words;
  const i64* which;
};

struct Team {
  Lane<int> lane;   // in the team
  Lane<u32> base;   // of the team's bytes in the warp's scratch
  Lane<i64> page;   // number in this call
  Lane<i64> body;   // byte offset of its page body
  Lane<int> share;  // which share of the page
  Lane<bool> live;  // page and share exist
};

/// The teams of warp number `warp`, when a page is cut into `per_page` shares.
KAKEYA_FN Team make_team(Plan p, const Pages& pages, i64 warp, int per_page) {
  Team t;
  const Lane<int> in_warp = lane_number();
  t.lane = in_warp & (lanes(p) - 1);
  const Lane<int> number = in_warp / lanes(p);
  t.base = cast<u32>(number) * u32(SCRATCH / WARP * lanes(p));
  const Lane<i64> id = cast<i64>(number) + warp * teams(p);
  t.page = id / i64(per_page);
  t.share = cast<int>(id - t.page * i64(per_page));
  t.live = t.page < pages.count;
  Lane<i64> row = t.page;
  if (pages.slots) {
    row = lookup_global<i64>(pages.slots, t.page, t.live);
    t.live = t.live & (row >= i64(0));
  }
  t.body = row * pages.stride;
  return t;
}

// Most codecs give a team the 8 tokens t0, t0 + P/8, t0 + 2P/8, ...: whatever a plane of 1, 2 or 4
// bits puts together in a byte belongs to one team, for codes of any row length.

KAKEYA_FN constexpr int shares(Plan p) { return p.P / 8; }

KAKEYA_FN Lane<int> token_of(Plan p, const Team& t, int turn) {
  return t.share + turn * (p.P / 8);
}

KAKEYA_FN Lane<i64> vector_number(Plan p, const Team& t, const Lane<int>& token) {
  return t.page * i64(p.P) + cast<i64>(token);
}

/// The octet of a lane in slab `s`, and whether there is one.
KAKEYA_FN Lane<int> octet_of(Plan p, const Team& t, int s) { return t.lane + s * lanes(p); }

KAKEYA_FN Lane<bool> holds(Plan p, const Team& t, int s) {
  return t.live & (octet_of(p, t, s) < octets(p));
}

/// The largest of all lanes of a team.
KAKEYA_FN Lane<u32> team_most(Plan p, Lane<u32> x) {
  KAKEYA_UNROLL
  for (int o = 1; o < lanes(p); o *= 2) x = most(x, shuffle_xor(x, o));
  return x;
}

}  // namespace kakeya
