// What a kernel is made for. On the device every number is a compile-time constant (macros from
// kakeya_fast/cuda/params.py), so loops unroll and tests vanish; on the host it is a run-time one.
#pragma once

#include "portable.cuh"

namespace kakeya {

enum Kind { F32 = 0, F16 = 1, BF16 = 2 };

#if defined(__CUDACC__)
#define KAKEYA_CONSTANT(name, value) static constexpr int name = value;
#else
#define KAKEYA_CONSTANT(name, value) int name;
#define KAKEYA_D 1016  // arrays have room for the longest vector
#endif

// Macros of other codecs are absent; their numbers are never looked at.
#ifndef KAKEYA_VECTORS
#define KAKEYA_VECTORS 0
#endif
#ifndef KAKEYA_B
#define KAKEYA_B 0
#endif
#ifndef KAKEYA_G
#define KAKEYA_G 8
#endif
#ifndef KAKEYA_CHANNEL
#define KAKEYA_CHANNEL 0
#endif
#ifndef KAKEYA_Q
#define KAKEYA_Q 1
#endif
#ifndef KAKEYA_STORED
#define KAKEYA_STORED 0
#endif
#ifndef KAKEYA_UNBIASED
#define KAKEYA_UNBIASED 0
#endif

struct Plan {
  KAKEYA_CONSTANT(D, KAKEYA_D)              // numbers of a vector
  KAKEYA_CONSTANT(P, KAKEYA_P)              // tokens of a page
  KAKEYA_CONSTANT(kind, KAKEYA_KIND)        // type of the vectors in memory
  KAKEYA_CONSTANT(vectors, KAKEYA_VECTORS)  // decode: rotate back
  KAKEYA_CONSTANT(b, KAKEYA_B)              // bits of a code
  KAKEYA_CONSTANT(g, KAKEYA_G)              // members of an int group
  KAKEYA_CONSTANT(channel, KAKEYA_CHANNEL)  // int groups run along tokens
  KAKEYA_CONSTANT(q, KAKEYA_Q)              // half the edge of the lattice cube
  KAKEYA_CONSTANT(stored, KAKEYA_STORED)    // type of raw numbers
  KAKEYA_CONSTANT(unbiased, KAKEYA_UNBIASED)  // trellis: the scale byte is chosen once more
};
#undef KAKEYA_CONSTANT

// A vector is cut into octets, 8 numbers next to each other: 16 bytes of a 16-bit type, a whole
// block of E8, and never across a Hadamard block, for D is a multiple of 8. Octet `o` lives in
// lane `o % lanes` of the team that owns the vector, in slab `o / lanes` of its registers.

KAKEYA_FN constexpr int octets(Plan p) { return p.D / 8; }

constexpr int lanes_for(int octets) {
  int n = 1;
  while (n < octets && n < WARP) n *= 2;
  return n;
}

constexpr int LANES = lanes_for(KAKEYA_D / 8);
constexpr int SLABS = (KAKEYA_D / 8 + LANES - 1) / LANES;

#if defined(__CUDACC__)
KAKEYA_FN constexpr int lanes(Plan) { return LANES; }
#else
constexpr int lanes(Plan p) { return lanes_for(octets(p)); }
#endif

KAKEYA_FN constexpr int slabs(Plan p) { return (octets(p) + lanes(p) - 1) / lanes(p); }
KAKEYA_FN constexpr int teams(Plan p) { return WARP / lanes(p); }

/// Whether D is a power of two: one Hadamard block, and every halving of a sum is even.
KAKEYA_FN constexpr bool one_block(Plan p) { return (p.D & (p.D - 1)) == 0; }

/// A plane's bytes, up to the start of the next.
KAKEYA_FN constexpr i64 aligned16(i64 bytes) { return (bytes + 15) & ~i64(15); }

// Words of the table that params.py makes for codecs with a scale byte.
constexpr int FORWARD = 0;     // 256: what an encoder multiplies by, by scale byte
constexpr int BACKWARD = 256;  // 256: what a decoder multiplies by
constexpr int BOUNDS = 512;    // 260: upper bounds of the scale bytes, then infinities
constexpr int NORMS = 772;     // 8: Hadamard constants of blocks of 2^3 .. 2^10
constexpr int FLIPS = 780;     // 32: sign flips, one bit a number
constexpr int CODEBOOK = 812;  // 2^b centroids, then 2^b thresholds in heap order

// Bytes of shared memory of an octet: 8 codes or two numbers, and 8 numbers where sums need it.
constexpr int OCTET_SCRATCH = KAKEYA_D & (KAKEYA_D - 1) ? 32 : 8;
constexpr int SCRATCH = SLABS * WARP * OCTET_SCRATCH;  // of a warp

}  // namespace kakeya
