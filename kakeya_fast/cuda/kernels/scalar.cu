#include "scalar.cuh"

#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

namespace {

template <bool CHECK>
__device__ __forceinline__ void run(KAKEYA_ENCODE_ARGUMENTS) {
  __shared__ __align__(16) u8 scratch[WARPS][SCRATCH];
  __shared__ u32 heap[1 << KAKEYA_B];
  if (n_pages <= 0) return;
  stage(heap, tables + CODEBOOK + (1 << KAKEYA_B), 1 << KAKEYA_B);
  const Vectors from = {const_cast<void*>(x), x_page, x_token, x_elem};
  scalar_encode<CHECK>(Plan(), from, tables, reinterpret_cast<const float*>(heap),
                       {out, out_page, slots, n_pages}, warp_number(),
                       scratch[threadIdx.x / WARP], status);
}

}  // namespace

KAKEYA_ENTRY kakeya_encode(KAKEYA_ENCODE_ARGUMENTS) {
  run<false>(x, x_page, x_token, x_elem, tables, out, out_page, slots, n_pages, status);
}

KAKEYA_ENTRY kakeya_check_input(KAKEYA_ENCODE_ARGUMENTS) {
  run<true>(x, x_page, x_token, x_elem, tables, out, out_page, slots, n_pages, status);
}

#endif

#ifdef KAKEYA_DECODE

KAKEYA_ENTRY kakeya_decode(KAKEYA_DECODE_ARGUMENTS) {
  __shared__ u32 centroids[1 << KAKEYA_B];
  if (n_pages <= 0) return;
  stage(centroids, tables + CODEBOOK, 1 << KAKEYA_B);
  scalar_decode(Plan(), {const_cast<u8*>(pages), pages_page, slots, n_pages}, tables,
                reinterpret_cast<const float*>(centroids), {out, out_page, out_token, out_elem},
                warp_number());
}

// Every byte is a code.
KAKEYA_ENTRY kakeya_check_pages(KAKEYA_DECODE_ARGUMENTS) {}

#endif
