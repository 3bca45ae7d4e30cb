#include "trellis.cuh"

#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

KAKEYA_FN void encode(const Vectors& x, const Tables& tables, const Pages& pages, u64* status,
                      bool check) {
  __shared__ __align__(16) u8 scratch[WARPS][SCRATCH];
  __shared__ __align__(16) u8 walk[WARPS][WALK];
  trellis_encode(Plan(), x, tables.words, pages, warp_number(), scratch[threadIdx.x / WARP],
                 walk[threadIdx.x / WARP], status, check);
}

KAKEYA_ENCODE_ENTRIES

#endif

#ifdef KAKEYA_DECODE

KAKEYA_FN void decode(const Pages& pages, const Tables& tables, const Vectors& out, u64* status,
                      bool check) {
  if (check) return;  // every byte is a code
  __shared__ u32 values[8 << KAKEYA_B];
  stage(values, tables.words + CODEBOOK, 8 << KAKEYA_B);
  trellis_decode(Plan(), pages, tables.words, reinterpret_cast<const float*>(values), out,
                 warp_number());
}

KAKEYA_DECODE_ENTRIES

#endif
