#include "query.cuh"
#include "query_decode.cuh"

#define KAKEYA_BLOCKS 2  // 32 sums a thread
#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

KAKEYA_FN void encode(const Vectors& x, const Tables& tables, const Pages& pages, u64* status,
                      bool check) {
  __shared__ __align__(16) u8 scratch[WARPS][SEARCH];
  query_encode(Plan(), x, tables, pages, warp_number(), scratch[threadIdx.x / WARP], status, check);
}

KAKEYA_ENCODE_ENTRIES

#endif

#ifdef KAKEYA_DECODE

KAKEYA_FN void decode(const Pages& pages, const Tables& tables, const Vectors& out, u64* status,
                      bool check) {
  if (check) return;  // every byte is a code
  __shared__ __align__(16) u8 scratch[WARPS][HELD];
  query_decode(Plan(), pages, tables, out, warp_number(), scratch[threadIdx.x / WARP]);
}

KAKEYA_DECODE_ENTRIES

#endif
