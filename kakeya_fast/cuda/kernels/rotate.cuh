// Sign flips and the orthonormal block Hadamard transform of the vectors of a warp.
#pragma once

#include "vectors.cuh"

namespace kakeya {

// What a lane needs to know about the blocks its octets lie in.
struct Rotation {
  Lane<float> norm[SLABS];  // constant of the octet's Hadamard block
  Lane<u32> flips;          // signs to flip, a bit for each number of the lane
};

// With K octets, the block of octet o has 2^floor(log2(o ^ K)) octets: blocks are the binary
// digits of K, largest first, and o ^ K keeps the digit where o first falls short of K.

KAKEYA_FN Rotation make_rotation(Plan p, const Team& t, const u32* table) {
  Rotation r;
  r.flips = 0u;
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    const Lane<bool> on = holds(p, t, s);
    const Lane<i64> octet = cast<i64>(octet_of(p, t, s));
    const Lane<u32> size = log2_floor(cast<u32>(octet_of(p, t, s) ^ octets(p)) | 1u);
    r.norm[s] = real(lookup_global<u32>(table + NORMS, cast<i64>(size), on));
    r.flips |= read_small<u8>(table + FLIPS, octet, on) << (8 * s);
  }
  return r;
}

KAKEYA_FN Lane<float> flipped(const Lane<float>& x, const Lane<u32>& flips, int i) {
  return real(bits(x) ^ ((flips << (31 - i)) & 0x80000000u));
}

/// Strides 1, 2, 4, ... of every block, then the block's constant.
///
/// Rule: hadamard.order.strides, hadamard.blocks.largest-first, hadamard.scale.once
KAKEYA_FN void transform(Plan p, const Team& t, const Rotation& rotation, Lane<float>* x) {
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    Lane<float>* y = x + 8 * s;
    KAKEYA_UNROLL
    for (int stride = 1; stride < 8; stride *= 2) {
      KAKEYA_UNROLL
      for (int r = 0; r < 8; ++r) {
        if (r & stride) continue;
        const Lane<float> a = y[r], b = y[r + stride];
        y[r] = add(a, b);
        y[r + stride] = sub(a, b);
      }
    }
  }
  KAKEYA_UNROLL
  for (int o = 1; 2 * o <= octets(p); o *= 2) {
    if (o < lanes(p)) {
      const Lane<float> side = select<float>((t.lane & o) != 0, -1.0f, 1.0f);
      KAKEYA_UNROLL
      for (int s = 0; s < slabs(p); ++s) {
        const int first = s * lanes(p) ^ octets(p);
        const bool all = first >= lanes(p);  // the whole slab lies in one block
        const Lane<bool> inside = (octet_of(p, t, s) ^ octets(p)) >= 2 * o;
        KAKEYA_UNROLL
        for (int r = 0; r < 8; ++r) {
          const Lane<float> mine = x[8 * s + r];
          const Lane<float> both = add_side(shuffle_xor(mine, o), mine, side);
          x[8 * s + r] = all ? both : select<float>(inside, both, mine);
        }
      }
    } else {
      KAKEYA_UNROLL
      for (int s = 0; s < slabs(p); ++s) {
        const int other = s + o / lanes(p);
        if ((s & (o / lanes(p))) || (s * lanes(p) ^ octets(p)) < 2 * o) continue;
        KAKEYA_UNROLL
        for (int r = 0; r < 8; ++r) {
          const Lane<float> a = x[8 * s + r], b = x[8 * other + r];
          x[8 * s + r] = add(a, b);
          x[8 * other + r] = sub(a, b);
        }
      }
    }
  }
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) x[i] = mul(x[i], rotation.norm[i / 8]);
}

/// Rule: rotation.order.forward
KAKEYA_FN void rotate(Plan p, const Team& t, const Rotation& rotation, Lane<float>* x) {
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) x[i] = flipped(x[i], rotation.flips, i);
  transform(p, t, rotation, x);
}

/// Rule: rotation.order.inverse
KAKEYA_FN void rotate_back(Plan p, const Team& t, const Rotation& rotation, Lane<float>* x) {
  transform(p, t, rotation, x);
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) x[i] = flipped(x[i], rotation.flips, i);
}

}  // namespace kakeya
