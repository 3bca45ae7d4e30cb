// Octets between memory and registers.
#pragma once

#include "half.cuh"
#include "team.cuh"

namespace kakeya {

/// Whether every octet is one aligned row of 16 (or 32) bytes.
KAKEYA_FN bool in_rows(Plan p, const Vectors& x) {
  const i64 size = p.kind == F32 ? 4 : 2;
  const i64 strides = x.page * size | x.token * size | static_cast<i64>(
                                                           reinterpret_cast<unsigned long long>(x.data));
  return x.element == 1 && (strides & 15) == 0;
}

KAKEYA_FN Lane<i64> place_of(const Vectors& x, const Lane<i64>& page, const Lane<int>& token,
                             const Lane<int>& octet) {
  return page * x.page + cast<i64>(token) * x.token + cast<i64>(octet) * (8 * x.element);
}

/// Patterns of the octet that starts at element `at`: 4 words of a 16-bit type, or 8.
KAKEYA_FN void read_octet(Plan p, const Vectors& x, bool rows, const Lane<i64>& at,
                          const Lane<bool>& on, Lane<u32>* w) {
  if (p.kind == F32) {
    if (rows) {
      read_words<4>(x.data, at * i64(4), on, w);
      read_words<4>(x.data, at * i64(4) + i64(16), on, w + 4);
    } else {
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) read_words<1>(x.data, (at + r * x.element) * i64(4), on, w + r);
    }
  } else if (rows) {
    read_words<4>(x.data, at * i64(2), on, w);
  } else {
    KAKEYA_UNROLL
    for (int r = 0; r < 4; ++r) {
      const Lane<i64> first = at + 2 * r * x.element;
      w[r] = read_small<u16>(x.data, first * i64(2), on) |
             read_small<u16>(x.data, (first + x.element) * i64(2), on) << 16;
    }
  }
}

/// An octet's patterns as fp32.
KAKEYA_FN void from_words(int kind, const Lane<u32>* w, Lane<float>* x) {
  KAKEYA_UNROLL
  for (int r = 0; r < 8; ++r) x[r] = kind == F32 ? real(w[r]) : half_of(kind, w[r / 2], r % 2);
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
KAKEYA_FN void write_octet(Plan p, const Vectors& out, bool rows, const Lane<i64>& at,
                           const Lane<bool>& on, const Lane<float>* x) {
  Lane<u32> w[8];
  to_words(p.kind, x, w);
  if (p.kind == F32) {
    if (rows) {
      write_words<4>(out.data, at * i64(4), on, w);
      write_words<4>(out.data, at * i64(4) + i64(16), on, w + 4);
    } else {
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        write_words<1>(out.data, (at + r * out.element) * i64(4), on, w + r);
      }
    }
  } else if (rows) {
    write_words<4>(out.data, at * i64(2), on, w);
  } else {
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) {
      write_small<u16>(out.data, (at + r * out.element) * i64(2), on, w[r / 2] >> (r % 2 * 16));
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
