// Lattice indices between lanes and the planes of a page: the planes of 4, 2 and 1 bits.
//
// A row is the whole page, so a byte holds the fields of one octet at tokens P*w/8 apart. All of
// them are among the 8 tokens of a team: a lane puts together whole bytes by itself, w of them for
// each field.
#pragma once

#include "indices.cuh"

namespace kakeya {

template <int N>
struct NarrowPlanes {
  static constexpr int F = 8 / N;
  Lane<u32> four[F];  // the 4 bytes of a field in the plane of 4 bits
  Lane<u32> less[F];  // the 2 bytes in the plane of 2 bits, then the one of 1 bit
};

/// Where turn `m` of the 8 lies in the `w` bytes of a field: byte m % w, bits from m / w * w.
KAKEYA_FN constexpr int narrow_shift(int w, int m) { return m % w * 8 + m / w * w; }

/// Call `action(w, plane, shift, bytes, at)` for each plane an index has, in their order: its
/// bytes are those of `bytes` from bit `at` on.
template <int N, class Planes, class Action>
KAKEYA_FN void each_narrow(Plan p, Planes& n, Action action) {
  const int width = index_bits(p, N);
  i64 plane = p.P;
  KAKEYA_UNROLL
  for (int w = 32; w >= 8; w /= 2) {
    if (width & w) plane += aligned16(index_plane<N>(p, w));
  }
  // Spelt out: a pointer chosen in a loop would keep the bytes from living in registers.
  if (width & 4) action(4, plane, 0, n.four, 0);
  if (width & 4) plane += aligned16(index_plane<N>(p, 4));
  if (width & 2) action(2, plane, width & 4, n.less, 0);
  if (width & 2) plane += aligned16(index_plane<N>(p, 2));
  if (width & 1) action(1, plane, width & 6, n.less, 16);
}

template <int N>
KAKEYA_FN NarrowPlanes<N> no_bits() {
  NarrowPlanes<N> n;
  KAKEYA_UNROLL
  for (int f = 0; f < 8 / N; ++f) n.four[f] = n.less[f] = 0u;
  return n;
}

/// Take in the low bits `rest` of the indices of turn `m`.
template <int N>
KAKEYA_FN void put_narrow(Plan p, int m, const Lane<u32>* rest, NarrowPlanes<N>& n) {
  each_narrow<N>(p, n, [&](int w, i64, int shift, Lane<u32>* bytes, int at) {
    KAKEYA_UNROLL
    for (int f = 0; f < 8 / N; ++f) {
      bytes[f] |= ((rest[f] >> shift) & ((1u << w) - 1)) << (narrow_shift(w, m) + at);
    }
  });
}

/// Add the bits of turn `m` to its indices.
template <int N>
KAKEYA_FN void take_narrow(Plan p, int m, NarrowPlanes<N>& n, Fields<N>& v) {
  const int wide = index_bits(p, N) & ~7;
  each_narrow<N>(p, n, [&](int w, i64, int shift, Lane<u32>* bytes, int at) {
    KAKEYA_UNROLL
    for (int f = 0; f < 8 / N; ++f) {
      const Lane<u32> bits = (bytes[f] >> (narrow_shift(w, m) + at)) & ((1u << w) - 1);
      v.index[f] |= cast<u64>(bits) << (wide + shift);
    }
  });
}

/// Byte at which byte `i` of the fields of an octet is stored in a plane.
template <int N>
KAKEYA_FN Lane<i64> narrow_at(Plan p, const Team& t, i64 plane, int i, int s) {
  return t.body + plane + field_of(p, t, token_of(p, t, i), s) * i64(8 / N);
}

template <int N>
KAKEYA_FN void write_narrow(Plan p, const Team& t, int s, u8* pages, NarrowPlanes<N>& n) {
  const Lane<bool> on = holds(p, t, s);
  each_narrow<N>(p, n, [&](int w, i64 plane, int, Lane<u32>* bytes, int low) {
    KAKEYA_UNROLL
    for (int i = 0; i < w; ++i) {
      const Lane<i64> at = narrow_at<N>(p, t, plane, i, s);
      const Lane<u32> first = (bytes[0] >> (8 * i + low)) & 255u;
      if (N == 8) {
        write_small<u8>(pages, at, on, first);
      } else {
        write_small<u16>(pages, at, on, first | ((bytes[8 / N - 1] >> (8 * i + low)) & 255u) << 8);
      }
    }
  });
}

template <int N>
KAKEYA_FN NarrowPlanes<N> read_narrow(Plan p, const Team& t, int s, const u8* pages) {
  NarrowPlanes<N> n = no_bits<N>();
  const Lane<bool> on = holds(p, t, s);
  each_narrow<N>(p, n, [&](int w, i64 plane, int, Lane<u32>* bytes, int low) {
    KAKEYA_UNROLL
    for (int i = 0; i < w; ++i) {
      const Lane<i64> at = narrow_at<N>(p, t, plane, i, s);
      if (N == 8) {
        bytes[0] |= read_small<u8>(pages, at, on) << (8 * i + low);
      } else {
        const Lane<u32> both = read_small<u16>(pages, at, on);
        bytes[0] |= (both & 255u) << (8 * i + low);
        bytes[8 / N - 1] |= (both >> 8) << (8 * i + low);
      }
    }
  });
  return n;
}

/// Zeros after each plane that ends before a multiple of 16; the team of a page's first share.
///
/// Rule: page.padding.zero
template <int N>
KAKEYA_FN void write_padding(Plan p, const Team& t, u8* pages) {
  NarrowPlanes<N> n = no_bits<N>();
  each_narrow<N>(p, n, [&](int w, i64 plane, int, Lane<u32>*, int) {
    const i64 size = index_plane<N>(p, w), end = aligned16(size);
    KAKEYA_UNROLL
    for (int i = 0; i < end - size; i += lanes(p)) {
      const Lane<i64> at = cast<i64>(t.lane) + (size + i);
      write_small<u8>(pages, t.body + plane + at, t.live & (t.share == 0) & (at < end), 0u);
    }
  });
}

}  // namespace kakeya
