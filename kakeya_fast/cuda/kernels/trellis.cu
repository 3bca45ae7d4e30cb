#include "trellis.cuh"

#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

namespace {

__device__ __forceinline__ void run(bool check, KAKEYA_ENCODE_ARGUMENTS) {
  if (n_pages <= 0) return;
  __shared__ __align__(16) u8 scratch[WARPS][SCRATCH];
  const Vectors from = {const_cast<void*>(x), x_page, x_token, x_elem};
  const Pages pages = {out, out_page, slots, n_pages};
  __shared__ __align__(16) u8 walk[WARPS][WALK];
  trellis_encode(Plan(), from, tables, pages, warp_number(), scratch[threadIdx.x / WARP],
                 walk[threadIdx.x / WARP], status, check);
}

}  // namespace

KAKEYA_ENTRY kakeya_encode(KAKEYA_ENCODE_ARGUMENTS) {
  run(false, x, x_page, x_token, x_elem, tables, out, out_page, slots, n_pages, status);
}

KAKEYA_ENTRY kakeya_check_input(KAKEYA_ENCODE_ARGUMENTS) {
  run(true, x, x_page, x_token, x_elem, tables, out, out_page, slots, n_pages, status);
}

#endif

#ifdef KAKEYA_DECODE

namespace {

__device__ __forceinline__ void run(bool check, KAKEYA_DECODE_ARGUMENTS) {
  if (n_pages <= 0) return;
  const Pages from = {const_cast<u8*>(pages), pages_page, slots, n_pages};
  const Vectors to = {out, out_page, out_token, out_elem};
  if (check) return;  // every byte is a code
  trellis_decode(Plan(), from, tables, to, warp_number());
}

}  // namespace

KAKEYA_ENTRY kakeya_decode(KAKEYA_DECODE_ARGUMENTS) {
  run(false, pages, pages_page, slots, tables, out, out_page, out_token, out_elem, n_pages, status);
}

KAKEYA_ENTRY kakeya_check_pages(KAKEYA_DECODE_ARGUMENTS) {
  run(true, pages, pages_page, slots, tables, out, out_page, out_token, out_elem, n_pages, status);
}

#endif
