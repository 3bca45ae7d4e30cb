// What an attention kernel is made for, what it is given, and where things lie in shared memory.
// As in plan.cuh, numbers are compile-time constants on the device and run-time ones on the host.
#pragma once

#include "tensor.cuh"

namespace kakeya {

#if defined(__CUDACC__)
#define KAKEYA_NUMBER(name, value) static constexpr int name = value;
#else
#define KAKEYA_NUMBER(name, value) int name;
#endif

struct Attend {
  KAKEYA_NUMBER(D, KAKEYA_D)             // numbers of a key
  KAKEYA_NUMBER(DV, KAKEYA_DV)           // numbers of a value
  KAKEYA_NUMBER(P, KAKEYA_P)             // tokens of a page
  KAKEYA_NUMBER(T, KAKEYA_T)             // tokens of a tile: 16 or 32, a divisor of P
  KAKEYA_NUMBER(kind, KAKEYA_KIND)       // type of the queries
  KAKEYA_NUMBER(KB, KAKEYA_KB)           // bits of a key's code: 2, 3 or 4; 0 if bands differ
  KAKEYA_NUMBER(VB, KAKEYA_VB)           // bits of a value's code
  KAKEYA_NUMBER(KC, KAKEYA_KC)           // how a key's codes become numbers, see Code
  KAKEYA_NUMBER(VC, KAKEYA_VC)           // the same for values
  KAKEYA_NUMBER(KR, KAKEYA_KR)           // bytes of the codes of a key
  KAKEYA_NUMBER(NT, KAKEYA_NT)           // query rows of a block, in eights
  KAKEYA_NUMBER(warps, KAKEYA_WARPS)     // of a block
  KAKEYA_NUMBER(stages, KAKEYA_STAGES)   // tiles on their way or in use, for each warp
  KAKEYA_NUMBER(softcap, KAKEYA_SOFTCAP)
  KAKEYA_NUMBER(window, KAKEYA_WINDOW)
  KAKEYA_NUMBER(bias, KAKEYA_BIAS)
  KAKEYA_NUMBER(framed, KAKEYA_FRAMED)   // each page has the queries of its frame
};
#undef KAKEYA_NUMBER

// How codes become numbers: 8 numbers are permuted from registers, or what a byte of codes names is
// looked up in shared memory, or codes of a walk (`trellis`) get labels first, or a table says how
// many bits each band of a key has (`query`).
enum Way { PERMUTED = 0, LOOKED_UP = 1, WALKED = 2, CALIBRATED = 3 };

struct Code {
  int d, b, way;
};

KAKEYA_FN constexpr Code code_of_stream(Attend p, bool v) {
  return v ? Code{p.DV, p.VB, p.VC} : Code{p.D, p.KB, p.KC};
}

/// Whether a byte names four numbers of 2 bits, and not two of a nibble each.
KAKEYA_FN constexpr bool names_four(Code c) { return c.b == 2 && c.way == LOOKED_UP; }

/// Whether a byte names one number, of all that the codec knows.
KAKEYA_FN constexpr bool one_by_one(Code c) {
  return c.way == CALIBRATED || (c.way == WALKED && c.b > 2);
}

// Room for registers. Products of NT with head dims are bounded: 256 in all.
#if defined(__CUDACC__)
constexpr int K_OCTETS = KAKEYA_D / 32;   // of a lane, for one key
constexpr int V_OCTETS = KAKEYA_DV / 64;  // of a lane, for one value
constexpr int TILES_M = KAKEYA_T / 16;
constexpr int TILES_N = KAKEYA_NT;
constexpr int STAGES = KAKEYA_STAGES;
#else
constexpr int K_OCTETS = 8, V_OCTETS = 4, TILES_M = 2, TILES_N = 4, STAGES = 1;
#endif

struct AttendArgs {
  const u8 *k_pool, *v_pool;
  i64 k_stride, v_stride;              // bytes from row to row of a pool
  const int* slots;                    // of page n of row b, head h: at b*slot_row + h*slot_head + n
  i64 slot_row, slot_head;
  const int *first, *length, *since;   // of page n of row b: at b*page_row + n
  i64 page_row;
  const int* count;                    // of row b: its pages; null: all of `pages`
  const i64* origin;                   // of row b: index of query token 0
  const void* q;                       // (B, H, F, M, D), of four strides and 1
  i64 q_stride[4];
  const float* bias;                   // (B, H, F, M), of four strides
  i64 bias_stride[4];
  const int* frame;                    // of page n of row b: at b*page_row + n
  int frames;                          // F; 1 unless framed
  u8* turned;                          // queries as stage_queries leaves them, of every frame
  const u32* bands;                    // (H, D / 8, 4): of a head's keys, see attend_bands.cuh
  const u32* tables;
  float scaling, softcap;
  int window, pages, heads, rows, queries;  // rows: M; row m is query token m % queries
  int splits;                          // blocks that share a head's pages
  float* work;                         // partial results of all blocks
  u32* tickets;                        // one for each head and block of rows, zero between calls
  const float *other, *other_lse;      // (B, H, M, DV) and (B, H, M): a partial to merge, or null
  float* out;                          // (B, H, M, DV)
  float* lse;                          // (B, H, M)
};

// Words of the table, for K and then V: 16 numbers (of a walk, those of the lower half), the low and
// the high bytes of 8 of them, and the exponent that a scale byte of 0 would stand for, as a float;
// then, two in a word, the numbers of which each has a name, and those of wide codes of keys.
constexpr int NUMBERS = 0, BYTES = 32, EXPONENTS = 40, LISTED = 42;

// Numbers of bands: of walks of 1 to 3 bits, of codes of 4 bits, zeros; then of codes of 5 to 7 bits.
constexpr int NAMED_NUMBERS = 16 + 32 + 64 + 16 + 16;
constexpr int BAND_NUMBERS = NAMED_NUMBERS + 32 + 64 + 128;

KAKEYA_FN constexpr int base_bits(int b) { return b == 3 ? 2 : b; }
KAKEYA_FN constexpr int rows_of(Attend p) { return 8 * p.NT; }

// Queries as the tensor cores take them: fragments, then a factor and a bias of each row.
KAKEYA_FN constexpr int factors_at(Attend p) { return p.D * rows_of(p) * 2; }
KAKEYA_FN constexpr int queries_bytes(Attend p) { return factors_at(p) + rows_of(p) * 8; }

// A stage: 16 bytes about the tile, scale bytes of K and of V, their planes, and where each page
// has queries of its own, these.
KAKEYA_FN constexpr int scales_at(Attend p, bool v) { return 16 + (v ? p.T : 0); }
KAKEYA_FN constexpr int plane_bytes(int tokens, int d, int w) { return tokens * d * w / 8; }
KAKEYA_FN constexpr int codes_at(Attend p, bool v) {
  return 16 + 2 * p.T + (v ? p.T * p.KR : 0);
}
KAKEYA_FN constexpr int turned_at(Attend p) {
  return codes_at(p, true) + plane_bytes(p.T, p.DV, p.VB);
}
KAKEYA_FN constexpr int stage_bytes(Attend p) {
  return turned_at(p) + (p.framed ? queries_bytes(p) : 0);
}

// Shared memory of a block: the stages of each warp, where partial results lie afterwards; then
// what all warps share.
KAKEYA_FN constexpr int larger(int a, int b) { return a > b ? a : b; }
KAKEYA_FN constexpr int shared_queries(Attend p) {
  return larger(p.warps * p.stages * stage_bytes(p), p.warps * p.DV * rows_of(p) * 4);
}
KAKEYA_FN constexpr int shared_indices(Attend p) { return shared_queries(p) + queries_bytes(p); }
KAKEYA_FN constexpr int shared_stats(Attend p) { return shared_indices(p) + rows_of(p) * 4; }
KAKEYA_FN constexpr int shared_flag(Attend p) {
  return shared_stats(p) + (p.warps + 1) * rows_of(p) * 8;
}
// What bytes name: 256 bytes a byte, half of them for K, in copies for all banks.
KAKEYA_FN constexpr int named_bytes(Code c) {
  if (one_by_one(c)) return c.way == CALIBRATED ? NAMED_NUMBERS : 8 << c.b;
  return c.way == PERMUTED ? 0 : c.b == 3 ? 0x78 : 256;
}
KAKEYA_FN constexpr int shared_named(Attend p) { return shared_flag(p) + 16; }
// All numbers of bands, 2 bytes each, and 16 bytes about each band.
KAKEYA_FN constexpr int shared_listed(Attend p) {
  return shared_named(p) + 256 * larger(named_bytes(code_of_stream(p, false)),
                                        named_bytes(code_of_stream(p, true)));
}
KAKEYA_FN constexpr int shared_bands(Attend p) {
  return shared_listed(p) + (p.KC == CALIBRATED ? 2 * BAND_NUMBERS : 0);
}
KAKEYA_FN constexpr int shared_bytes(Attend p) {
  return shared_bands(p) + (p.KC == CALIBRATED ? p.D / 8 * 16 : 0);
}

// A partial result in the work space: numbers [slot][row], then [largest exponent, sum][row].
KAKEYA_FN constexpr i64 partial_floats(Attend p) { return i64(p.DV + 2) * rows_of(p); }

}  // namespace kakeya
