// The host side of portable.cuh: a lane is an array of the 32 values of a warp, every operation
// is a loop over it, and a shuffle is a permutation of it.
#pragma once

#include <cmath>
#include <cstring>

#include "races_host.cuh"

namespace kakeya {

template <class T>
struct Lane {
  T of[WARP];

  Lane() : of() {}
  Lane(T all) {  // implicit: a constant is the same in all lanes
    for (int i = 0; i < WARP; ++i) of[i] = all;
  }

#define KAKEYA_EACH(op)                                           \
  friend Lane operator op(const Lane& a, const Lane& b) {         \
    Lane c;                                                       \
    for (int i = 0; i < WARP; ++i) c.of[i] = a.of[i] op b.of[i];  \
    return c;                                                     \
  }
  KAKEYA_EACH(+)
  KAKEYA_EACH(-)
  KAKEYA_EACH(*)
  KAKEYA_EACH(&)
  KAKEYA_EACH(|)
  KAKEYA_EACH(^)
  KAKEYA_EACH(<<)
  KAKEYA_EACH(>>)
  KAKEYA_EACH(/)
  KAKEYA_EACH(%)
#undef KAKEYA_EACH

#define KAKEYA_TEST(op)                                           \
  friend Lane<bool> operator op(const Lane& a, const Lane& b) {   \
    Lane<bool> c;                                                 \
    for (int i = 0; i < WARP; ++i) c.of[i] = a.of[i] op b.of[i];  \
    return c;                                                     \
  }
  KAKEYA_TEST(==)
  KAKEYA_TEST(!=)
  KAKEYA_TEST(<)
  KAKEYA_TEST(<=)
  KAKEYA_TEST(>)
  KAKEYA_TEST(>=)
#undef KAKEYA_TEST

  friend Lane operator!(const Lane& a) {
    Lane c;
    for (int i = 0; i < WARP; ++i) c.of[i] = !a.of[i];
    return c;
  }
  friend Lane operator~(const Lane& a) {
    Lane c;
    for (int i = 0; i < WARP; ++i) c.of[i] = ~a.of[i];
    return c;
  }
  Lane& operator+=(const Lane& b) { return *this = *this + b; }
  Lane& operator|=(const Lane& b) { return *this = *this | b; }
};

#define KAKEYA_MAP1(R, name, A, value)                \
  inline Lane<R> name(const Lane<A>& x) {             \
    Lane<R> c;                                        \
    for (int i = 0; i < WARP; ++i) {                  \
      const A a = x.of[i];                            \
      c.of[i] = value;                                \
    }                                                 \
    return c;                                         \
  }
#define KAKEYA_MAP2(T, name, value)                            \
  inline Lane<T> name(const Lane<T>& x, const Lane<T>& y) {    \
    Lane<T> c;                                                 \
    for (int i = 0; i < WARP; ++i) {                           \
      const T a = x.of[i], b = y.of[i];                        \
      c.of[i] = value;                                         \
    }                                                          \
    return c;                                                  \
  }

template <class To, class From>
inline To same_bits(From a) {
  To b;
  std::memcpy(&b, &a, sizeof b);
  return b;
}

KAKEYA_MAP2(float, add, a + b)
KAKEYA_MAP2(float, sub, a - b)
KAKEYA_MAP2(float, mul, a* b)
KAKEYA_MAP2(float, div, a / b)
KAKEYA_MAP2(float, least, a < b ? a : b)
KAKEYA_MAP2(float, greatest, a > b ? a : b)
KAKEYA_MAP2(u32, most, a > b ? a : b)
KAKEYA_MAP2(u32, high_product, static_cast<u32>(static_cast<u64>(a) * b >> 32))
KAKEYA_MAP2(u64, high_product, static_cast<u64>(static_cast<unsigned __int128>(a) * b >> 64))
KAKEYA_MAP1(float, root, float, std::sqrt(a))
KAKEYA_MAP1(u32, bits, float, same_bits<u32>(a))
KAKEYA_MAP1(float, real, u32, same_bits<float>(a))
KAKEYA_MAP1(u32, log2_floor, u32, static_cast<u32>(31 - __builtin_clz(a | 1u)))
#undef KAKEYA_MAP1
#undef KAKEYA_MAP2

inline Lane<float> add_side(const Lane<float>& a, const Lane<float>& b, const Lane<float>& side) {
  return add(a, mul(b, side));
}

inline Lane<float> mul_zero(const Lane<float>& a, const Lane<float>& b) {
  return add(mul(a, b), 0.0f);
}

template <class T>
inline const Lane<T>& keep(const Lane<T>& a) {
  return a;
}

inline Lane<int> lane_number() {
  Lane<int> c;
  for (int i = 0; i < WARP; ++i) c.of[i] = i;
  return c;
}

template <class T>
inline Lane<T> select(const Lane<bool>& take, const Lane<T>& a, const Lane<T>& b) {
  Lane<T> c;
  for (int i = 0; i < WARP; ++i) c.of[i] = take.of[i] ? a.of[i] : b.of[i];
  return c;
}

template <class To, class From>
inline Lane<To> cast(const Lane<From>& a) {
  Lane<To> c;
  for (int i = 0; i < WARP; ++i) c.of[i] = static_cast<To>(a.of[i]);
  return c;
}

template <class T>
inline Lane<T> shuffle_xor(const Lane<T>& a, int mask) {
  Lane<T> c;
  for (int i = 0; i < WARP; ++i) c.of[i] = a.of[i ^ mask];
  return c;
}

template <class T>
inline Lane<T> shuffle(const Lane<T>& a, const Lane<int>& from) {
  Lane<T> c;
  for (int i = 0; i < WARP; ++i) c.of[i] = a.of[from.of[i] & (WARP - 1)];
  return c;
}

template <class T>
inline T same_in_all(const Lane<T>& a, int from) {
  return a.of[from];
}

inline bool any(const Lane<bool>& a) {
  bool found = false;
  for (int i = 0; i < WARP; ++i) found |= a.of[i];
  return found;
}

inline void sync_warp() { races.warp_barrier(); }

template <class T>
inline Lane<T> lookup(const T* table, const Lane<u32>& at) {
  Lane<T> c;
  for (int i = 0; i < WARP; ++i) c.of[i] = table[at.of[i]];
  return c;
}

template <class T>
inline Lane<T> lookup_global(const T* table, const Lane<i64>& at, const Lane<bool>& on) {
  Lane<T> c;
  for (int i = 0; i < WARP; ++i) c.of[i] = on.of[i] ? table[at.of[i]] : T(0);
  return c;
}

template <int WORDS>
inline void read_words(const void* base, const Lane<i64>& at, const Lane<bool>& on,
                       Lane<u32>* w) {
  for (int i = 0; i < WARP; ++i) {
    u32 v[WORDS] = {};
    const char* from = static_cast<const char*>(base) + at.of[i];
    if (on.of[i]) races.read(from, sizeof v, i), std::memcpy(v, from, sizeof v);
    for (int k = 0; k < WORDS; ++k) w[k].of[i] = v[k];
  }
}

template <int WORDS>
inline void write_words(void* base, const Lane<i64>& at, const Lane<bool>& on,
                        const Lane<u32>* w) {
  for (int i = 0; i < WARP; ++i) {
    u32 v[WORDS];
    for (int k = 0; k < WORDS; ++k) v[k] = w[k].of[i];
    char* to = static_cast<char*>(base) + at.of[i];
    if (on.of[i]) races.write(to, sizeof v, i), std::memcpy(to, v, sizeof v);
  }
}

template <class T>
inline Lane<u32> read_small(const void* base, const Lane<i64>& at, const Lane<bool>& on) {
  Lane<u32> c;
  for (int i = 0; i < WARP; ++i) {
    T v = 0;
    const char* from = static_cast<const char*>(base) + at.of[i];
    if (on.of[i]) races.read(from, sizeof v, i), std::memcpy(&v, from, sizeof v);
    c.of[i] = v;
  }
  return c;
}

template <class T>
inline void write_small(void* base, const Lane<i64>& at, const Lane<bool>& on,
                        const Lane<u32>& value) {
  for (int i = 0; i < WARP; ++i) {
    const T v = static_cast<T>(value.of[i]);
    char* to = static_cast<char*>(base) + at.of[i];
    if (on.of[i]) races.write(to, sizeof v, i), std::memcpy(to, &v, sizeof v);
  }
}

inline Lane<u32> read_shared(const u8* base, const Lane<u32>& at, const Lane<bool>& on) {
  return read_small<u32>(base, cast<i64>(at), on);
}

template <int WORDS>
inline void read_shared_words(const u8* base, const Lane<u32>& at, const Lane<bool>& on,
                              Lane<u32>* w) {
  read_words<WORDS>(base, cast<i64>(at), on, w);
}

inline Lane<u32> read_shared_byte(const u8* base, const Lane<u32>& at, const Lane<bool>& on) {
  return read_small<u8>(base, cast<i64>(at), on);
}

template <int WORDS>
inline void write_shared(u8* base, const Lane<u32>& at, const Lane<bool>& on,
                         const Lane<u32>* w) {
  write_words<WORDS>(base, cast<i64>(at), on, w);
}

inline void report(u64* status, const Lane<bool>& bad, const Lane<i64>& vector) {
  for (int i = 0; i < WARP; ++i) {
    const u64 v = static_cast<u64>(vector.of[i]);
    if (bad.of[i] && v < *status) *status = v;
  }
}

}  // namespace kakeya
