// Lattice indices between lanes and the planes of a page: the planes of 8 bits and more.
#pragma once

#include "enumeration.cuh"
#include "team.cuh"

namespace kakeya {

// An octet has F fields: one index of E8, two of D4.

template <int N>
struct Fields {
  static constexpr int F = 8 / N;
  Lane<u64> index[F];  // of one token
};

/// Bytes of a plane of `w` bits.
template <int N>
KAKEYA_FN constexpr i64 index_plane(Plan p, int w) {
  return i64(p.P) * (p.D / N) * w / 8;
}

/// Field of a token's octet, in units of F fields.
KAKEYA_FN Lane<i64> field_of(Plan p, const Team& t, const Lane<int>& token, int s) {
  return cast<i64>(token * octets(p) + octet_of(p, t, s));
}

/// Write the widths of 8 bits and more of one token's indices; the rest, right-aligned, to `rest`.
///
/// Rule: page.plane.split, page.byte.little-endian
template <int N>
KAKEYA_FN void write_wide(Plan p, const Team& t, const Fields<N>& v, const Lane<int>& token,
                          int s, u8* pages, Lane<u32>* rest) {
  constexpr int F = Fields<N>::F;
  const int width = index_bits(p, N);
  const Lane<bool> on = holds(p, t, s);
  const Lane<i64> field = field_of(p, t, token, s) * i64(F);
  i64 plane = p.P;
  int shift = 0;
  if (width & 32) {  // never for D4
    const Lane<u32> w = cast<u32>(v.index[0]);
    write_words<1>(pages, t.body + plane + field * i64(4), on, &w);
    plane += aligned16(index_plane<N>(p, 32));
    shift += 32;
  }
  if (width & 16) {
    const Lane<i64> at = t.body + plane + field * i64(2);
    const Lane<u32> low = cast<u32>(v.index[0] >> shift) & 0xffffu;
    if (F == 2) {
      const Lane<u32> both = low | cast<u32>(v.index[F - 1]) << 16;
      write_words<1>(pages, at, on, &both);
    } else {
      write_small<u16>(pages, at, on, low);
    }
    plane += aligned16(index_plane<N>(p, 16));
    shift += 16;
  }
  if (width & 8) {
    const Lane<i64> at = t.body + plane + field;
    const Lane<u32> low = cast<u32>(v.index[0] >> shift) & 0xffu;
    if (F == 2) {
      write_small<u16>(pages, at, on, low | (cast<u32>(v.index[F - 1] >> shift) & 0xffu) << 8);
    } else {
      write_small<u8>(pages, at, on, low);
    }
    shift += 8;
  }
  KAKEYA_UNROLL
  for (int f = 0; f < F; ++f) rest[f] = cast<u32>(v.index[f] >> shift);
}

/// Inverse of write_wide, without the rest.
template <int N>
KAKEYA_FN void read_wide(Plan p, const Team& t, const Lane<int>& token, int s, const u8* pages,
                         Fields<N>* v) {
  constexpr int F = Fields<N>::F;
  const int width = index_bits(p, N);
  const Lane<bool> on = holds(p, t, s);
  const Lane<i64> field = field_of(p, t, token, s) * i64(F);
  i64 plane = p.P;
  int shift = 0;
  v->index[0] = u64(0);
  v->index[F - 1] = u64(0);
  if (width & 32) {
    Lane<u32> w;
    read_words<1>(pages, t.body + plane + field * i64(4), on, &w);
    v->index[0] = cast<u64>(w);
    plane += aligned16(index_plane<N>(p, 32));
    shift += 32;
  }
  if (width & 16) {
    const Lane<i64> at = t.body + plane + field * i64(2);
    if (F == 2) {
      Lane<u32> both;
      read_words<1>(pages, at, on, &both);
      v->index[0] = cast<u64>(both & 0xffffu);
      v->index[F - 1] = cast<u64>(both >> 16);
    } else {
      v->index[0] |= cast<u64>(read_small<u16>(pages, at, on)) << shift;
    }
    plane += aligned16(index_plane<N>(p, 16));
    shift += 16;
  }
  if (width & 8) {
    const Lane<i64> at = t.body + plane + field;
    if (F == 2) {
      const Lane<u32> both = read_small<u16>(pages, at, on);
      v->index[0] |= cast<u64>(both & 0xffu) << shift;
      v->index[F - 1] |= cast<u64>(both >> 8) << shift;
    } else {
      v->index[0] |= cast<u64>(read_small<u8>(pages, at, on)) << shift;
    }
  }
}

}  // namespace kakeya
