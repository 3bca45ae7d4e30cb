// The host side of tensor.cuh: fragments of a warp as PTX lays them out, element by element.
#pragma once

namespace kakeya {

inline Lane<u32> permute(const Lane<u32>& a, const Lane<u32>& b, const Lane<u32>& selector) {
  Lane<u32> c;
  for (int i = 0; i < WARP; ++i) {
    const u64 both = a.of[i] | static_cast<u64>(b.of[i]) << 32;
    for (int k = 0; k < 4; ++k) {
      const u32 s = selector.of[i] >> (4 * k);
      u32 byte = static_cast<u32>(both >> (8 * (s & 7u))) & 255u;
      if (s & 8u) byte = byte & 128u ? 255u : 0u;
      c.of[i] |= byte << (8 * k);
    }
  }
  return c;
}

template <int KIND>
inline void multiply(Lane<float>* c, const Lane<u32>& a0, const Lane<u32>& a1,
                     const Lane<u32>& a2, const Lane<u32>& a3, const Lane<u32>& b0,
                     const Lane<u32>& b1) {
  float a[16][16], b[16][8];
  const Lane<u32>*as[4] = {&a0, &a1, &a2, &a3}, *bs[2] = {&b0, &b1};
  for (int half = 0; half < 2; ++half) {
    for (int r = 0; r < 4; ++r) {
      const Lane<float> x = half_of(KIND, *as[r], half);
      for (int i = 0; i < WARP; ++i) a[i / 4 + r % 2 * 8][i % 4 * 2 + half + r / 2 * 8] = x.of[i];
    }
    for (int r = 0; r < 2; ++r) {
      const Lane<float> x = half_of(KIND, *bs[r], half);
      for (int i = 0; i < WARP; ++i) b[i % 4 * 2 + half + r * 8][i / 4] = x.of[i];
    }
  }
  for (int r = 0; r < 4; ++r) {
    for (int i = 0; i < WARP; ++i) {
      float sum = c[r].of[i];
      for (int k = 0; k < 16; ++k) sum += a[i / 4 + r / 2 * 8][k] * b[k][i % 4 * 2 + r % 2];
      c[r].of[i] = sum;
    }
  }
}

inline Lane<u32> transpose(const Lane<u32>& a) {
  Lane<u32> b;
  for (int r = 0; r < 8; ++r) {
    for (int c = 0; c < 8; ++c) {
      const u32 number = a.of[4 * c + r / 2] >> (16 * (r % 2)) & 0xffffu;
      b.of[4 * r + c / 2] |= number << (16 * (c % 2));
    }
  }
  return b;
}

inline Lane<float> power2(const Lane<float>& x) {
  Lane<float> y;
  for (int i = 0; i < WARP; ++i) y.of[i] = std::exp2(x.of[i]);
  return y;
}

inline Lane<float> log2_of(const Lane<float>& x) {
  Lane<float> y;
  for (int i = 0; i < WARP; ++i) y.of[i] = std::log2(x.of[i]);
  return y;
}

inline Lane<float> tanh_of(const Lane<float>& x) {
  Lane<float> y;
  for (int i = 0; i < WARP; ++i) y.of[i] = std::tanh(x.of[i]);
  return y;
}

inline Lane<float> fused(const Lane<float>& a, const Lane<float>& b, const Lane<float>& c) {
  return add(mul(a, b), c);
}

template <class T>
inline T broadcast(const Lane<T>& a, int from) {
  return a.of[from & (WARP - 1)];
}

inline void copy16(u8* shared, const Lane<u32>& to, const u8* global, const Lane<i64>& from,
                   const Lane<bool>& on) {
  for (int i = 0; i < WARP; ++i) {
    u8* at = shared + to.of[i];
    if (on.of[i]) races.copy(at, 16, i), std::memcpy(at, global + from.of[i], 16);
  }
}

inline void copies_end() { races.copies_end(); }
template <int>
inline void copies_wait(int left) {
  races.copies_wait(left);
}

template <int WORDS>
inline void shared_words(const u8* base, const Lane<u32>& at, Lane<u32>* w) {
  read_words<WORDS>(base, cast<i64>(at), true, w);
}

inline Lane<u32> shared_half(const u8* base, const Lane<u32>& at) {
  return read_small<u16>(base, cast<i64>(at), true);
}

inline void put_shared_small(u8* base, const Lane<u32>& at, const Lane<bool>& on,
                             const Lane<u32>& value) {
  write_small<u16>(base, cast<i64>(at), on, value);
}

inline int shared_int(const u8* base, int at) {
  int value;
  for (int i = 0; i < WARP; ++i) races.read(base + at, sizeof value, i);
  std::memcpy(&value, base + at, sizeof value);
  return value;
}

inline Lane<float> read_fresh(const float* base, const Lane<i64>& at, const Lane<bool>& on) {
  return lookup_global<float>(base, at, on);
}

inline float real_of(u32 word) { return same_bits<float>(word); }

inline void fence() {}

inline u32 take_ticket(u32* ticket, u32 last) {
  const u32 before = *ticket;
  *ticket = before >= last ? 0 : before + 1;
  return before;
}

}  // namespace kakeya
