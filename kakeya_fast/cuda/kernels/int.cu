#include "int_channel.cuh"

#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

KAKEYA_FN void encode(const Vectors& x, const Tables& tables, const Pages& pages, u64* status,
                      bool check) {
  __shared__ __align__(16) u8 scratch[WARPS][SCRATCH];
  u8* const mine = scratch[threadIdx.x / WARP];
  if (KAKEYA_CHANNEL) {
    int_channel_encode(Plan(), x, pages, warp_number(), mine, status, check);
  } else {
    int_token_encode(Plan(), x, pages, warp_number(), mine, status, check);
  }
}

KAKEYA_ENCODE_ENTRIES

#endif

#ifdef KAKEYA_DECODE

KAKEYA_FN void decode(const Pages& pages, const Tables& tables, const Vectors& out, u64* status,
                      bool check) {
  if (KAKEYA_CHANNEL) {
    int_channel_decode(Plan(), pages, out, warp_number(), status, check);
  } else {
    int_token_decode(Plan(), pages, out, warp_number(), status, check);
  }
}

KAKEYA_DECODE_ENTRIES

#endif
