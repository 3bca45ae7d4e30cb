#include "raw.cuh"

#include "entry.cuh"

using namespace kakeya;

#ifdef KAKEYA_ENCODE

KAKEYA_FN void encode(const Vectors& x, const Tables& tables, const Pages& pages, u64* status,
                      bool check) {
  raw_encode(Plan(), x, pages, warp_number(), status, check);
}

KAKEYA_ENCODE_ENTRIES

#endif

#ifdef KAKEYA_DECODE

KAKEYA_FN void decode(const Pages& pages, const Tables& tables, const Vectors& out, u64* status,
                      bool check) {
  raw_decode(Plan(), pages, out, warp_number(), status, check);
}

KAKEYA_DECODE_ENTRIES

#endif
