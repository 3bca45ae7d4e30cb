// Codec `int` with groups along the channels of a token.
#pragma once

#include "groups.cuh"

namespace kakeya {

KAKEYA_FN constexpr int groups_of(int members, int g) { return (members + g - 1) / g; }

/// Octets of a group.
KAKEYA_FN constexpr int group_octets(Plan p) { return p.g / 8; }

/// The hull of every octet's whole group, in all the octet's lanes.
KAKEYA_FN void spread(Plan p, const Team& t, Range* range, u8* scratch) {
  const int n = group_octets(p);
  if (n >= octets(p)) {  // one group
    KAKEYA_UNROLL
    for (int s = 1; s < slabs(p); ++s) range[0] = hull(range[0], range[s]);
    KAKEYA_UNROLL
    for (int o = 1; o < lanes(p); o *= 2) {
      range[0] = hull(range[0], {shuffle_xor(range[0].low, o), shuffle_xor(range[0].high, o)});
    }
    KAKEYA_UNROLL
    for (int s = 1; s < slabs(p); ++s) range[s] = range[0];
  } else if ((n & (n - 1)) == 0 && n <= lanes(p)) {  // groups are aligned runs of lanes
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      KAKEYA_UNROLL
      for (int o = 1; o < n; o *= 2) {
        range[s] = hull(range[s], {shuffle_xor(range[s].low, o), shuffle_xor(range[s].high, o)});
      }
    }
  } else {  // any runs of octets: through shared memory
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      const Lane<u32> w[2] = {bits(range[s].low), bits(range[s].high)};
      const Lane<int> octet = octet_of(p, t, s);
      write_shared<2>(scratch, t.base + cast<u32>(octet) * 8u, octet < octets(p), w);
    }
    sync_warp();
    for (int k = 0; k < n; ++k) {
      KAKEYA_UNROLL
      for (int s = 0; s < slabs(p); ++s) {
        const Lane<int> octet = octet_of(p, t, s) / n * n + k;
        const Lane<bool> on = octet < octets(p);
        const Lane<u32> at = t.base + cast<u32>(octet) * 8u;
        const Range other = {real(read_shared(scratch, at, on)),
                             real(read_shared(scratch, at + 4u, on))};
        range[s].low = select<float>(on, least(range[s].low, other.low), range[s].low);
        range[s].high = select<float>(on, greatest(range[s].high, other.high), range[s].high);
      }
    }
    sync_warp();
  }
}

/// Byte at which `lo` of an octet's group is stored; `step` comes a plane later.
KAKEYA_FN Lane<i64> params_at(Plan p, const Team& t, const Lane<int>& token, int s) {
  const Lane<int> group = token * groups_of(p.D, p.g) + octet_of(p, t, s) / group_octets(p);
  return t.body + cast<i64>(group) * i64(2);
}

KAKEYA_FN constexpr i64 params_plane(Plan p) { return i64(2) * p.P * groups_of(p.D, p.g); }

/// Rule: int.group.axis, int.range.f16, int.code.clamp, num.input.finite
KAKEYA_FN void int_token_encode(Plan p, const Vectors& x, const Pages& pages, i64 warp,
                                u8* scratch, u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Places from = make_places(p, t, x, t.share, shares(p));
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    Lane<float> y[8 * SLABS];
    Range range[SLABS];
    Lane<u32> largest = 0u;
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      read_numbers(p, from, turn, s, holds(p, t, s), y + 8 * s);
      largest = most(largest, largest_of(y + 8 * s));
      const Range here = hull_of(y + 8 * s), none = nothing();
      const Lane<bool> on = octet_of(p, t, s) < octets(p);
      range[s].low = select<float>(on, here.low, none.low);
      range[s].high = select<float>(on, here.high, none.high);
    }
    largest = team_most(p, largest);
    const Lane<bool> finite = largest < INFINITE;
    spread(p, t, range, scratch);
    Lane<u32> codes[2 * SLABS];
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      const Group raw = make_group(p, range[s]);
      const Lane<bool> on = holds(p, t, s);
      report_input(p, t, token, on & !(fits(raw) & finite), largest, status);
      if (check) continue;
      const Group g = only_if(fits(raw) & finite, raw);
      const Lane<i64> at = params_at(p, t, token, s);
      const Lane<bool> first = on & (octet_of(p, t, s) % group_octets(p) == 0);
      write_small<u16>(pages.data, at, first, g.lo_bits);
      write_small<u16>(pages.data, at + params_plane(p), first, g.step_bits);
      codes[2 * s] = codes[2 * s + 1] = 0u;
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        codes[2 * s + r / 4] |= int_code(p, y[8 * s + r], g) << (r % 4 * 8);
      }
    }
    if (check) continue;
    write_codes(p, t, codes, token, pages.data, 2 * params_plane(p), scratch);
  }
}

/// Rule: int.decode.affine, int.params.finite
KAKEYA_FN void int_token_decode(Plan p, const Pages& pages, const Vectors& out, i64 warp,
                                u64* status, bool check) {
  const Team t = make_team(p, pages, warp, shares(p));
  if (!any(t.live)) return;
  const Places to = make_places(p, t, out, t.share, shares(p));
  for (int turn = 0; turn < 8; ++turn) {
    const Lane<int> token = token_of(p, t, turn);
    Lane<u32> codes[2 * SLABS];
    if (!check) read_codes(p, t, pages.data, 2 * params_plane(p), token, codes);
    KAKEYA_UNROLL
    for (int s = 0; s < slabs(p); ++s) {
      const Lane<bool> on = holds(p, t, s);
      const Lane<i64> at = params_at(p, t, token, s);
      const Group raw = read_group(read_small<u16>(pages.data, at, on),
                                   read_small<u16>(pages.data, at + params_plane(p), on));
      report(status + 1, on & !sound(raw), vector_number(p, t, token));
      if (check) continue;
      const Group g = only_if(sound(raw), raw);
      Lane<float> y[8];
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) y[r] = int_value(code_of(codes + 2 * s, r), g);
      write_octet(p, to, turn, s, on, y);
    }
  }
}

}  // namespace kakeya
