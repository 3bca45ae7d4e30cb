// The kernels as host code: every warp in turn, on the calling thread.
#include "scalar.cuh"

using namespace kakeya;

namespace {

enum Codec { RAW = 0, FP8 = 1, INT = 2, SCALAR = 3, D4 = 4, E8 = 5 };  // numbers of the registry

alignas(16) thread_local u8 scratch[SCRATCH];

template <bool CHECK>
void encode(int codec, Plan p, const Vectors& x, const u32* tables, const Pages& pages, i64 warp,
            u64* status) {
  const float* codebook = reinterpret_cast<const float*>(tables + CODEBOOK);
  switch (codec) {
    case SCALAR:
      return scalar_encode<CHECK>(p, x, tables, codebook + (1 << p.b), pages, warp, scratch,
                                  status);
  }
}

template <bool CHECK>
void decode(int codec, Plan p, const Pages& pages, const u32* tables, const Vectors& out,
            i64 warp, u64* status) {
  const float* codebook = reinterpret_cast<const float*>(tables + CODEBOOK);
  (void)status;
  switch (codec) {
    case SCALAR:
      return CHECK ? void() : scalar_decode(p, pages, tables, codebook, out, warp);
  }
}

}  // namespace

// Arguments are those of the device's entries, after the codec's number, whether to check only,
// the plan and the number of warps of the launch.

extern "C" void kakeya_host_encode(int codec, int check, const Plan* plan, i64 warps,
                                   const void* x, i64 x_page, i64 x_token, i64 x_elem,
                                   const u32* tables, u8* out, i64 out_page, const i64* slots,
                                   i64 n_pages, u64* status) {
  const Vectors from = {const_cast<void*>(x), x_page, x_token, x_elem};
  const Pages pages = {out, out_page, slots, n_pages};
  for (i64 warp = 0; warp < warps; ++warp) {
    (check ? encode<true> : encode<false>)(codec, *plan, from, tables, pages, warp, status);
  }
}

extern "C" void kakeya_host_decode(int codec, int check, const Plan* plan, i64 warps,
                                   const u8* bodies, i64 pages_page, const i64* slots,
                                   const u32* tables, void* out, i64 out_page, i64 out_token,
                                   i64 out_elem, i64 n_pages, u64* status) {
  const Vectors to = {out, out_page, out_token, out_elem};
  const Pages pages = {const_cast<u8*>(bodies), pages_page, slots, n_pages};
  for (i64 warp = 0; warp < warps; ++warp) {
    (check ? decode<true> : decode<false>)(codec, *plan, pages, tables, to, warp, status);
  }
}

// Whether this thread turns subnormal numbers into zeros.
extern "C" int kakeya_host_flushes(float smallest) {
  volatile float x = smallest;
  return x * 1.0f > 0.0f ? 0 : 1;
}
