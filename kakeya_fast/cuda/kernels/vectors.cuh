// Octets between memory and registers.
#pragma once

#include "half.cuh"
#include "team.cuh"

namespace kakeya {

// Where the octets of a lane lie, in bytes: octet s at turn m is at first + m * turn + s * slab.
struct Places {
  void* data;
  Lane<i64> first;
  i64 turn, slab, element;
  bool rows;  // every octet is an aligned run of 16 (or 32) bytes
};

/// Places of a team's vectors, the first at `token`, then `step` tokens on each turn.
KAKEYA_FN Places make_places(Plan p, const Team& t, const Vectors& x, const Lane<int>& token,
                             int step) {
  const i64 size = p.kind == F32 ? 4 : 2;
  const i64 page = x.page * size, row = x.token * size, element = x.element * size;
  Places at;
  at.data = x.data;
  at.rows = x.element == 1 && ((page | row | reinterpret_cast<i64>(x.data)) & 15) == 0;
  at.first = keep(t.page * page + cast<i64>(token) * row + cast<i64>(t.lane) * (8 * element));
  at.turn = step * row;
  at.slab = 8 * lanes(p) * element;
  at.element = element;
  return at;
}

/// Patterns of an octet: 4 words of a 16-bit type, or 8.
KAKEYA_FN void read_octet(Plan p, const Places& x, int turn, int s, const Lane<bool>& on,
                          Lane<u32>* w) {
  const Lane<i64> at = x.first + (turn * x.turn + s * x.slab);
  if (p.kind == F32) {
    if (x.rows) {
      read_words<4>(x.data, at, on, w);
      read_words<4>(x.data, at + i64(16), on, w + 4);
    } else {
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) read_words<1>(x.data, at + r * x.element, on, w + r);
    }
  } else if (x.rows) {
    read_words<4>(x.data, at, on, w);
  } else {
    KAKEYA_UNROLL
    for (int r = 0; r < 4; ++r) {
      const Lane<i64> low = at + 2 * r * x.element;
      w[r] = read_small<u16>(x.data, low, on) |
             read_small<u16>(x.data, low + x.element, on) << 16;
    }
  }
}

/// An octet's patterns as fp32.
KAKEYA_FN void from_words(int kind, const Lane<u32>* w, Lane<float>* x) {
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) x[r] = kind == F32 ? real(w[r]) : half_of(kind, w[r / 2], r % 2);
}

/// Octet `s` of vectors, widened.
KAKEYA_FN void read_numbers(Plan p, const Places& in, int turn, int s, const Lane<bool>& on,
                            Lane<float>* x) {
  Lane<u32> w[8];
  read_octet(p, in, turn, s, on, w);
  from_words(p.kind, w, x);
}

/// An octet rounded to patterns of a type: 4 words, or 8 of fp32.
KAKEYA_FN void to_words(int kind, const Lane<float>* x, Lane<u32>* w) {
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) {
    if (kind == F32) w[r] = bits(x[r]);
    if (kind != F32 && r < 4) w[r] = pair_of(kind, x[2 * r], x[2 * r + 1]);
  }
}

/// Round an octet to the type of `out` and write it.
KAKEYA_FN void write_octet(Plan p, const Places& out, int turn, int s, const Lane<bool>& on,
                           const Lane<float>* x) {
  const Lane<i64> at = out.first + (turn * out.turn + s * out.slab);
  Lane<u32> w[8];
  to_words(p.kind, x, w);
  if (p.kind == F32) {
    if (out.rows) {
      write_words<4>(out.data, at, on, w);
      write_words<4>(out.data, at + i64(16), on, w + 4);
    } else {
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) write_words<1>(out.data, at + r * out.element, on, w + r);
    }
  } else if (out.rows) {
    write_words<4>(out.data, at, on, w);
  } else {
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) {
      write_small<u16>(out.data, at + r * out.element, on, w[r / 2] >> (r % 2 * 16));
    }
  }
}

/// Largest magnitude of an octet, as a pattern: not below INFINITE if a number is not finite.
KAKEYA_FN Lane<u32> largest_of(const Lane<float>* x) {
  Lane<u32> largest = bits(x[0]) & MAGNITUDE;
  KAKEYA_UNROLL
  for (int r = 1; r < 8; ++r) largest = most(largest, bits(x[r]) & MAGNITUDE);
  return largest;
}

/// Name the vectors of `bad` teams: those that are not finite, else those too large.
///
/// Rule: num.input.finite
KAKEYA_FN void report_input(Plan p, const Team& t, const Lane<int>& token, const Lane<bool>& bad,
                            const Lane<u32>& largest, u64* status) {
  const Lane<i64> vector = vector_number(p, t, token);
  report(status, bad & (largest >= INFINITE), vector);
  report(status + 1, bad & (largest < INFINITE), vector);
}

}  // namespace kakeya
