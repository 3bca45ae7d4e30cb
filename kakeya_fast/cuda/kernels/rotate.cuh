// Sign flips and the orthonormal block Hadamard transform of the vectors of a warp.
#pragma once

#include "vectors.cuh"

namespace kakeya {

// What a lane needs to know about the blocks its octets lie in and the signs it flips.
struct Rotation {
  Lane<float> norm[8 * SLABS];  // constant of a number's block; negative where its sign flips
  Lane<u32> masks[8 * SLABS];   // sign bits to flip in the words of vectors in memory
};

// With K octets, the block of octet o has 2^floor(log2(o ^ K)) octets: blocks are the binary
// digits of K, largest first, and o ^ K keeps the digit where o first falls short of K.

// Short vectors leave registers to keep all this in; for long ones it is computed when needed.
KAKEYA_FN Lane<u32> keep_if_short(const Lane<u32>& x) { return SLABS == 1 ? keep(x) : x; }

KAKEYA_FN Rotation make_rotation(Plan p, const Team& t, const u32* table) {
  Rotation r;
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    const Lane<bool> on = holds(p, t, s);
    const Lane<i64> octet = cast<i64>(octet_of(p, t, s));
    const Lane<u32> size = log2_floor(cast<u32>(octet_of(p, t, s) ^ octets(p)) | 1u);
    const Lane<u32> norm = lookup_global<u32>(table + NORMS, cast<i64>(size), on);
    const Lane<u32> flips = read_small<u8>(table + FLIPS, octet, on);
    KAKEYA_UNROLL
    for (int i = 0; i < 8; ++i) {
      const Lane<u32> flip = (flips << (31 - i)) & 0x80000000u;
      r.norm[8 * s + i] = real(keep_if_short(norm | flip));
      if (p.kind == F32) {
        r.masks[8 * s + i] = keep_if_short(flip);
      } else if (i % 2) {
        r.masks[8 * s + i / 2] = keep_if_short(((flips << (16 - i)) & 0x8000u) | flip);
      }
    }
  }
  return r;
}

/// Strides 1, 2, 4, ... of every block.
///
/// Rule: hadamard.order.strides, hadamard.blocks.largest-first
KAKEYA_FN void butterflies(Plan p, const Team& t, Lane<float>* x) {
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
}

/// Read the vectors of a turn and rotate them.
///
/// Rule: rotation.order.forward, hadamard.scale.once
KAKEYA_FN void read_rotated(Plan p, const Team& t, const Places& from, int turn,
                            const Rotation& rotation, Lane<float>* x) {
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    Lane<u32> w[8];
    read_octet(p, from, turn, s, holds(p, t, s), w);
    KAKEYA_UNROLL
    for (int r = 0; r < (p.kind == F32 ? 8 : 4); ++r) w[r] = w[r] ^ rotation.masks[8 * s + r];
    from_words(p.kind, w, x + 8 * s);
  }
  butterflies(p, t, x);
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) {
    x[i] = mul(x[i], real(bits(rotation.norm[i / 8 * 8]) & 0x7fffffffu));
  }
}

/// Turn coefficients back. The sign rides on the constant: negating a factor negates the product.
///
/// Rule: rotation.order.inverse, hadamard.scale.once
KAKEYA_FN void rotate_back(Plan p, const Team& t, const Rotation& rotation, Lane<float>* x) {
  butterflies(p, t, x);
  KAKEYA_UNROLL
  for (int i = 0; i < 8 * slabs(p); ++i) x[i] = mul(x[i], rotation.norm[i]);
}

}  // namespace kakeya
