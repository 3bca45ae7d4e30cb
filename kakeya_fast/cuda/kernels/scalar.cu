#include "scalar.cuh"

#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

KAKEYA_FN void encode(const Vectors& x, const Tables& tables, const Pages& pages, u64* status,
                      bool check) {
  __shared__ __align__(16) u8 scratch[WARPS][SCRATCH];
  __shared__ u32 heap[1 << KAKEYA_B];
  stage(heap, tables.words + CODEBOOK + (1 << KAKEYA_B), 1 << KAKEYA_B);
  scalar_encode(Plan(), x, tables.words, reinterpret_cast<const float*>(heap), pages,
                warp_number(), scratch[threadIdx.x / WARP], status, check);
}

KAKEYA_ENCODE_ENTRIES

#endif

#ifdef KAKEYA_DECODE

KAKEYA_FN void decode(const Pages& pages, const Tables& tables, const Vectors& out, u64* status,
                      bool check) {
  if (check) return;  // every byte is a code
  __shared__ u32 centroids[1 << KAKEYA_B];
  stage(centroids, tables.words + CODEBOOK, 1 << KAKEYA_B);
  scalar_decode(Plan(), pages, tables.words, reinterpret_cast<const float*>(centroids), out,
                warp_number());
}

KAKEYA_DECODE_ENTRIES

#endif
