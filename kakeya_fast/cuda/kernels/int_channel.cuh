// Codec `int` with groups along the tokens of a channel. A team takes all channels of one group of
// tokens and reads them twice: for their ranges, then, from the cache, for their codes.
#pragma once

#include "int_token.cuh"

namespace kakeya {

KAKEYA_FN constexpr int channel_shares(Plan p) { return groups_of(p.P, p.g); }
KAKEYA_FN constexpr i64 channel_plane(Plan p) { return i64(2) * p.D * channel_shares(p); }

/// Byte at which `lo` of the channels of an octet is stored; `step` comes a plane later.
KAKEYA_FN Lane<i64> channels_at(Plan p, const Team& t, int s) {
  return t.body + cast<i64>(t.share * octets(p) + octet_of(p, t, s)) * i64(16);
}

/// The team at one token of its group; past the end of the page it does nothing.
KAKEYA_FN Team at_token(Plan p, const Team& t, int turn, Lane<int>* token) {
  Team now = t;
  *token = t.share * p.g + turn;
  now.live = t.live & (*token < p.P);
  return now;
}

/// Rule: int.group.axis, int.range.f16, int.code.clamp, num.input.finite
KAKEYA_FN void int_channel_encode(Plan p, const Vectors& x, const Pages& pages, i64 warp,
                                  u8* scratch, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, channel_shares(p));
  if (!any(t.live)) return;
  const Places from = make_places(p, t, x, t.share * p.g, 1);
  const int turns = p.g < p.P ? p.g : p.P;
  Range range[8 * SLABS];
  Lane<bool> finite[SLABS];
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) range[i] = nothing();
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) finite[s] = true;
  for (int turn = 0; turn < turns; ++turn) {
    Lane<int> token;
    const Team now = at_token(p, t, turn, &token);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      const Lane<bool> on = holds(p, now, s);
      Lane<float> y[8];
      read_numbers(p, from, turn, s, on, y);
      const Lane<bool> good = largest_of(y) < INFINITE;
      report(status, on & !good, vector_number(p, t, token));
      finite[s] = finite[s] & good;
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        Range& c = range[8 * s + r];
        c.low = select<float>(on, least(c.low, y[r]), c.low);
        c.high = select<float>(on, greatest(c.high, y[r]), c.high);
      }
    }
  }
  Group groups[8 * SLABS];
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    const Lane<bool> on = holds(p, t, s);
    Lane<u32> lo[4], step[4];
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) {
      const Group raw = make_group(p, range[8 * s + r]);
      report(status + 1, on & finite[s] & !fits(raw), vector_number(p, t, t.share * p.g));
      const Group g = only_if(fits(raw) & finite[s], raw);
      groups[8 * s + r] = g;
      lo[r / 2] = r % 2 ? lo[r / 2] | g.lo_bits << 16 : g.lo_bits;
      step[r / 2] = r % 2 ? step[r / 2] | g.step_bits << 16 : g.step_bits;
    }
    if (check) continue;
    write_words<4>(pages.data, channels_at(p, t, s), on, lo);
    write_words<4>(pages.data, channels_at(p, t, s) + channel_plane(p), on, step);
  }
  if (check) return;
  for (int turn = 0; turn < turns; ++turn) {
    Lane<int> token;
    const Team now = at_token(p, t, turn, &token);
    Lane<u32> codes[2 * SLABS];
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<float> y[8];
      read_numbers(p, from, turn, s, holds(p, now, s), y);
      codes[2 * s] = codes[2 * s + 1] = 0u;
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        codes[2 * s + r / 4] |= int_code(p, y[r], groups[8 * s + r]) << (r % 4 * 8);
      }
    }
    write_codes(p, now, codes, token, pages.data, 2 * channel_plane(p), scratch);
  }
}

/// Rule: int.decode.affine, int.params.finite
KAKEYA_FN void int_channel_decode(Plan p, const Pages& pages, const Vectors& out, i64 warp,
                                  u64* status, bool check) {
  const Team t = make_team(p, pages, warp, channel_shares(p));
  if (!any(t.live)) return;
  const Places to = make_places(p, t, out, t.share * p.g, 1);
  Group groups[8 * SLABS];
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    const Lane<bool> on = holds(p, t, s);
    Lane<u32> lo[4], step[4];
    read_words<4>(pages.data, channels_at(p, t, s), on, lo);
    read_words<4>(pages.data, channels_at(p, t, s) + channel_plane(p), on, step);
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) {
      const int up = r % 2 * 16;
      const Group raw = read_group((lo[r / 2] >> up) & 0xffffu, (step[r / 2] >> up) & 0xffffu);
      report(status + 1, on & !sound(raw), vector_number(p, t, t.share * p.g));
      groups[8 * s + r] = only_if(sound(raw), raw);
    }
  }
  if (check) return;
  const int turns = p.g < p.P ? p.g : p.P;
  for (int turn = 0; turn < turns; ++turn) {
    Lane<int> token;
    const Team now = at_token(p, t, turn, &token);
    Lane<u32> codes[2 * SLABS];
    read_codes(p, now, pages.data, 2 * channel_plane(p), token, codes);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      Lane<float> y[8];
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) y[r] = int_value(code_of(codes + 2 * s, r), groups[8 * s + r]);
      write_octet(p, to, turn, s, holds(p, now, s), y);
    }
  }
}

}  // namespace kakeya
