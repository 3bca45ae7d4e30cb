// The device side of portable.cuh: a lane is a register, and shuffles are instructions.
#pragma once

namespace kakeya {

template <class T>
using Lane = T;

KAKEYA_FN int lane_number() { return static_cast<int>(threadIdx.x) & (WARP - 1); }

// Round-to-nearest forms: the compiler contracts none of them into a fused multiply-add.
KAKEYA_FN float add(float a, float b) { return __fadd_rn(a, b); }
KAKEYA_FN float sub(float a, float b) { return __fsub_rn(a, b); }
KAKEYA_FN float mul(float a, float b) { return __fmul_rn(a, b); }
KAKEYA_FN float div(float a, float b) { return __fdiv_rn(a, b); }
KAKEYA_FN float root(float a) { return __fsqrt_rn(a); }

// `a + side * b` for side = +1 or -1: the product is exact, so one instruction rounds once.
KAKEYA_FN float add_side(float a, float b, float side) { return __fmaf_rn(b, side, a); }

// `a * b`, and +0 for a zero: the same as adding +0 to the product, unless a product other than
// zero rounds to zero.
KAKEYA_FN float mul_zero(float a, float b) { return __fmaf_rn(a, b, 0.0f); }

// Hide where a number comes from: the compiler keeps it instead of computing it again.
KAKEYA_FN i64 keep(i64 a) {
  asm("" : "+l"(a));
  return a;
}

KAKEYA_FN u32 keep(u32 a) {
  asm("" : "+r"(a));
  return a;
}

KAKEYA_FN u32 bits(float a) { return __float_as_uint(a); }
KAKEYA_FN float real(u32 a) { return __uint_as_float(a); }
KAKEYA_FN float least(float a, float b) { return fminf(a, b); }
KAKEYA_FN float greatest(float a, float b) { return fmaxf(a, b); }
KAKEYA_FN u32 most(u32 a, u32 b) { return a > b ? a : b; }
KAKEYA_FN u32 high_product(u32 a, u32 b) { return __umulhi(a, b); }
KAKEYA_FN u64 high_product(u64 a, u64 b) { return __umul64hi(a, b); }
KAKEYA_FN u32 log2_floor(u32 a) { return 31 - __clz(static_cast<int>(a)); }

template <class T>
KAKEYA_FN T select(bool take, T a, T b) {
  return take ? a : b;
}

template <class To, class From>
KAKEYA_FN To cast(From a) {
  return static_cast<To>(a);
}

template <class T>
KAKEYA_FN T shuffle_xor(T a, int mask) {
  return __shfl_xor_sync(0xffffffffu, a, mask);
}

template <class T>
KAKEYA_FN T shuffle(T a, int from) {
  return __shfl_sync(0xffffffffu, a, from);
}

/// The value of one lane, the same in all.
template <class T>
KAKEYA_FN T same_in_all(T a, int from) {
  return shuffle(a, from);
}

KAKEYA_FN bool any(bool a) { return __any_sync(0xffffffffu, a); }
KAKEYA_FN void sync_warp() { __syncwarp(); }

template <class T>
KAKEYA_FN T lookup(const T* table, u32 at) {
  return table[at];
}

// Constant while the kernel runs: goes through the read-only cache.
template <class T>
KAKEYA_FN T lookup_global(const T* table, i64 at, bool on) {
  return on ? __ldg(table + at) : T(0);
}

// Memory, in bytes from `base`; lanes that are off read zeros and write nothing. Addresses are
// multiples of the width.

template <int WORDS>
KAKEYA_FN void read_words(const void* base, i64 at, bool on, u32* w) {
  const char* from = static_cast<const char*>(base) + at;
  if constexpr (WORDS == 4) {
    const uint4 v = on ? __ldg(reinterpret_cast<const uint4*>(from)) : make_uint4(0, 0, 0, 0);
    w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
  } else if constexpr (WORDS == 2) {
    const uint2 v = on ? __ldg(reinterpret_cast<const uint2*>(from)) : make_uint2(0, 0);
    w[0] = v.x, w[1] = v.y;
  } else {
    w[0] = on ? __ldg(reinterpret_cast<const unsigned int*>(from)) : 0u;
  }
}

template <int WORDS>
KAKEYA_FN void write_words(void* base, i64 at, bool on, const u32* w) {
  char* to = static_cast<char*>(base) + at;
  if (!on) return;
  if constexpr (WORDS == 4) {
    *reinterpret_cast<uint4*>(to) = make_uint4(w[0], w[1], w[2], w[3]);
  } else if constexpr (WORDS == 2) {
    *reinterpret_cast<uint2*>(to) = make_uint2(w[0], w[1]);
  } else {
    *reinterpret_cast<unsigned int*>(to) = w[0];
  }
}

template <class T>
KAKEYA_FN u32 read_small(const void* base, i64 at, bool on) {
  return on ? static_cast<u32>(__ldg(
                  reinterpret_cast<const T*>(static_cast<const char*>(base) + at)))
            : 0u;
}

template <class T>
KAKEYA_FN void write_small(void* base, i64 at, bool on, u32 value) {
  if (on) *reinterpret_cast<T*>(static_cast<char*>(base) + at) = static_cast<T>(value);
}

// Shared memory of the warp.

KAKEYA_FN u32 read_shared(const u8* base, u32 at, bool on) {
  return on ? *reinterpret_cast<const u32*>(base + at) : 0u;
}

template <int WORDS>
KAKEYA_FN void read_shared_words(const u8* base, u32 at, bool on, u32* w) {
  if constexpr (WORDS == 4) {
    const uint4 v = on ? *reinterpret_cast<const uint4*>(base + at) : make_uint4(0, 0, 0, 0);
    w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
  } else {
    const uint2 v = on ? *reinterpret_cast<const uint2*>(base + at) : make_uint2(0, 0);
    w[0] = v.x, w[1] = v.y;
  }
}

KAKEYA_FN u32 read_shared_byte(const u8* base, u32 at, bool on) { return on ? base[at] : 0u; }

template <int WORDS>
KAKEYA_FN void write_shared(u8* base, u32 at, bool on, const u32* w) {
  write_words<WORDS>(base, at, on, w);
}

KAKEYA_FN void report(u64* status, bool bad, i64 vector) {
  if (bad) atomicMin(status, static_cast<u64>(vector));
}

}  // namespace kakeya
