#include "fp8.cuh"

#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

KAKEYA_FN void encode(const Vectors& x, const Tables& tables, const Pages& pages, u64* status,
                      bool check) {
  fp8_encode(Plan(), x, tables.words, pages, warp_number(), status, check);
}

KAKEYA_ENCODE_ENTRIES

#endif

#ifdef KAKEYA_DECODE

KAKEYA_FN void decode(const Pages& pages, const Tables& tables, const Vectors& out, u64* status,
                      bool check) {
  fp8_decode(Plan(), pages, tables.words, out, warp_number(), status, check);
}

KAKEYA_DECODE_ENTRIES

#endif
