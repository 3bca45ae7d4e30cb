// The device side of tensor.cuh: one instruction each.
#pragma once

namespace kakeya {

// Spelt out: the intrinsic would clear the upper bit of each selector first.
KAKEYA_FN u32 permute(u32 a, u32 b, u32 selector) {
  u32 c;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(c) : "r"(a), "r"(b), "r"(selector));
  return c;
}

/// c += A * B: A is 16 x 16, B is 16 x 8, fp16 or bf16, sums in fp32.
template <int KIND>
KAKEYA_FN void multiply(float* c, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  if constexpr (KIND == F16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}

/// The transpose of 8 x 8 numbers of 16 bits: lane 4 r + c holds columns 2 c, 2 c + 1 of row r.
KAKEYA_FN u32 transpose(u32 a) {
  u32 b;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(b) : "r"(a));
  return b;
}

KAKEYA_FN float power2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

KAKEYA_FN float log2_of(float x) {
  float y;
  asm("lg2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

KAKEYA_FN float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
KAKEYA_FN float tanh_of(float x) {
  // 1 - 2 / (e^2x + 1): the hardware's tanh is too coarse.
  return 1.0f - __fdividef(2.0f, power2(2.885390082f * x) + 1.0f);
}

/// The value of one lane, the same for all.
template <class T>
KAKEYA_FN T broadcast(T a, int from) {
  return __shfl_sync(0xffffffffu, a, from);
}

/// Begin copying 16 bytes from global to shared memory.
KAKEYA_FN void copy16(u8* shared, u32 to, const u8* global, i64 from, bool on) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(shared)) + to;
  if (on) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global + from)
                 : "memory");
  }
}

KAKEYA_FN void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Wait until at most `LEFT` groups of copies of this lane are on their way; the argument says the
/// same to the host, where it is no constant.
template <int LEFT>
KAKEYA_FN void copies_wait(int) {
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

template <int WORDS>
KAKEYA_FN void shared_words(const u8* base, u32 at, u32* w) {
  if constexpr (WORDS == 4) {
    const uint4 v = *reinterpret_cast<const uint4*>(base + at);
    w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
  } else if constexpr (WORDS == 2) {
    const uint2 v = *reinterpret_cast<const uint2*>(base + at);
    w[0] = v.x, w[1] = v.y;
  } else {
    w[0] = *reinterpret_cast<const u32*>(base + at);
  }
}

KAKEYA_FN u32 shared_half(const u8* base, u32 at) {
  return *reinterpret_cast<const u16*>(base + at);
}

KAKEYA_FN void put_shared_small(u8* base, u32 at, bool on, u32 value) {
  if (on) *reinterpret_cast<u16*>(base + at) = static_cast<u16>(value);
}

// One value for the whole warp.
KAKEYA_FN int shared_int(const u8* base, int at) {
  return *reinterpret_cast<const int*>(base + at);
}

/// What another block may have written while this kernel runs.
KAKEYA_FN float read_fresh(const float* base, i64 at, bool on) {
  return on ? __ldcg(base + at) : 0.0f;
}

KAKEYA_FN float real_of(u32 word) { return __uint_as_float(word); }

KAKEYA_FN void fence() { __threadfence(); }

/// Count up to `last`, then start again at 0; the count before.
KAKEYA_FN u32 take_ticket(u32* ticket, u32 last) { return atomicInc(ticket, last); }

}  // namespace kakeya
