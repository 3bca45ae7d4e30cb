// What every .cu file shares: the arguments of its entries and the block's shared memory.
#pragma once

#include "team.cuh"

namespace kakeya {

#ifndef KAKEYA_WARPS
#define KAKEYA_WARPS 8
#endif
constexpr int WARPS = KAKEYA_WARPS;  // of a block, as in params.py

KAKEYA_FN i64 warp_number() { return i64(blockIdx.x) * WARPS + threadIdx.x / WARP; }

/// Copy words of a table to shared memory.
KAKEYA_FN void stage(u32* to, const u32* from, int count) {
  for (int i = threadIdx.x; i < count; i += WARPS * WARP) to[i] = from[i];
  __syncthreads();
}

}  // namespace kakeya

// Strides of vectors are in elements, the distance of pages in bytes; slots and which may be null.
#define KAKEYA_ENCODE_ARGUMENTS                                                             \
  const void *x, long long x_page, long long x_token, long long x_elem,                     \
      const unsigned int *tables, const long long *which, unsigned char *out,               \
      long long out_page, const long long *slots, long long n_pages,                        \
      unsigned long long *status

#define KAKEYA_DECODE_ARGUMENTS                                                             \
  const unsigned char *pages, long long pages_page, const long long *slots,                 \
      const unsigned int *tables, const long long *which, void *out, long long out_page,    \
      long long out_token, long long out_elem, long long n_pages, unsigned long long *status

// Registers a thread may have: 64 where a vector is one slab, so that 32 warps fit a multiprocessor;
// more for longer vectors, rather than spill.
#ifndef KAKEYA_BLOCKS
#define KAKEYA_BLOCKS (kakeya::SLABS == 1 ? 4 : kakeya::SLABS == 2 ? 3 : 2)
#endif
#define KAKEYA_ENTRY extern "C" __global__ void __launch_bounds__(kakeya::WARPS * kakeya::WARP, KAKEYA_BLOCKS)

// Two entries of a direction: the second looks for refusals and writes nothing else. A file has a
// function `encode(x, tables, pages, status, check)`, and one `decode(pages, tables, out, status,
// check)`, both inlined into their entries.
#define KAKEYA_ENCODE_ENTRY(name, check)                                                    \
  KAKEYA_ENTRY name(KAKEYA_ENCODE_ARGUMENTS) {                                              \
    if (n_pages <= 0) return;                                                               \
    encode({const_cast<void*>(x), x_page, x_token, x_elem}, {tables, which},                \
           {out, out_page, slots, n_pages}, status, check);                                 \
  }
#define KAKEYA_ENCODE_ENTRIES                    \
  KAKEYA_ENCODE_ENTRY(kakeya_encode, false)      \
  KAKEYA_ENCODE_ENTRY(kakeya_check_input, true)

#define KAKEYA_DECODE_ENTRY(name, check)                                                    \
  KAKEYA_ENTRY name(KAKEYA_DECODE_ARGUMENTS) {                                              \
    if (n_pages <= 0) return;                                                               \
    decode({const_cast<u8*>(pages), pages_page, slots, n_pages}, {tables, which},           \
           {out, out_page, out_token, out_elem}, status, check);                            \
  }
#define KAKEYA_DECODE_ENTRIES                    \
  KAKEYA_DECODE_ENTRY(kakeya_decode, false)      \
  KAKEYA_DECODE_ENTRY(kakeya_check_pages, true)
