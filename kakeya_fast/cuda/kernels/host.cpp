// The kernels as host code: every warp in turn, on the calling thread.
#include "fp8.cuh"
#include "int_channel.cuh"
#include "lattice.cuh"
#include "query.cuh"
#include "query_decode.cuh"
#include "raw.cuh"
#include "scalar.cuh"
#include "trellis.cuh"

using namespace kakeya;

namespace {

// Numbers of the registry.
enum Codec { RAW = 0, FP8 = 1, INT = 2, SCALAR = 3, D4 = 4, E8 = 5, TRELLIS = 6, QUERY = 7 };

alignas(16) thread_local u8 scratch[SCRATCH];
alignas(16) thread_local u8 walk[WALK];
alignas(16) thread_local u8 room[SEARCH];

void encode(int codec, Plan p, const Vectors& x, const Tables& beside, const Pages& pages, i64 warp,
            u64* status, bool check) {
  const u32* tables = beside.words;
  const float* codebook = reinterpret_cast<const float*>(tables + CODEBOOK);
  switch (codec) {
    case RAW:
      return raw_encode(p, x, pages, warp, status, check);
    case FP8:
      return fp8_encode(p, x, tables, pages, warp, status, check);
    case INT:
      return p.channel ? int_channel_encode(p, x, pages, warp, scratch, status, check)
                       : int_token_encode(p, x, pages, warp, scratch, status, check);
    case SCALAR:
      return scalar_encode(p, x, tables, codebook + (1 << p.b), pages, warp, scratch,
                                  status, check);
    case D4:
      return lattice_encode<4>(p, x, tables, pages, warp, scratch, status, check);
    case E8:
      return lattice_encode<8>(p, x, tables, pages, warp, scratch, status, check);
    case TRELLIS:
      return trellis_encode(p, x, tables, pages, warp, scratch, walk, status, check);
    case QUERY:
      return query_encode(p, x, beside, pages, warp, room, status, check);
  }
}

void decode(int codec, Plan p, const Pages& pages, const Tables& beside, const Vectors& out,
            i64 warp, u64* status, bool check) {
  const u32* tables = beside.words;
  const float* codebook = reinterpret_cast<const float*>(tables + CODEBOOK);
  switch (codec) {
    case RAW:
      return raw_decode(p, pages, out, warp, status, check);
    case FP8:
      return fp8_decode(p, pages, tables, out, warp, status, check);
    case INT:
      return p.channel ? int_channel_decode(p, pages, out, warp, status, check)
                       : int_token_decode(p, pages, out, warp, status, check);
    case SCALAR:  // every byte is a code
      return check ? void() : scalar_decode(p, pages, tables, codebook, out, warp);
    case D4:
      return lattice_decode<4>(p, pages, tables, out, warp, status, check);
    case E8:
      return lattice_decode<8>(p, pages, tables, out, warp, status, check);
    case TRELLIS:  // every byte is a code
      return check ? void() : trellis_decode(p, pages, tables, codebook, out, warp);
    case QUERY:  // every byte is a code
      return check ? void() : query_decode(p, pages, beside, out, warp, room);
  }
}

/// The scratch of warp after warp is the same memory here, and not there.
void next_warp() {
  races.enter(0);
  races.new_block();
  races.watch(scratch, sizeof scratch);
  races.watch(walk, sizeof walk);
  races.watch(room, sizeof room);
}

}  // namespace

// Arguments are those of the device's entries, after the codec's number, whether to check only,
// the plan and the number of warps of the launch.

extern "C" void kakeya_host_encode(int codec, int check, const Plan* plan, i64 warps,
                                   const void* x, i64 x_page, i64 x_token, i64 x_elem,
                                   const u32* tables, const i64* which, u8* out, i64 out_page,
                                   const i64* slots, i64 n_pages, u64* status) {
  const Vectors from = {const_cast<void*>(x), x_page, x_token, x_elem};
  const Pages pages = {out, out_page, slots, n_pages};
  for (i64 warp = 0; warp < warps; ++warp) {
    next_warp();
    encode(codec, *plan, from, {tables, which}, pages, warp, status, check);
  }
}

extern "C" void kakeya_host_decode(int codec, int check, const Plan* plan, i64 warps,
                                   const u8* bodies, i64 pages_page, const i64* slots,
                                   const u32* tables, const i64* which, void* out,
                                   i64 out_page, i64 out_token, i64 out_elem, i64 n_pages,
                                   u64* status) {
  const Vectors to = {out, out_page, out_token, out_elem};
  const Pages pages = {const_cast<u8*>(bodies), pages_page, slots, n_pages};
  for (i64 warp = 0; warp < warps; ++warp) {
    next_warp();
    decode(codec, *plan, pages, {tables, which}, to, warp, status, check);
  }
}

// Whether this thread turns subnormal numbers into zeros.
extern "C" int kakeya_host_flushes(float smallest) {
  volatile float x = smallest;
  return x * 1.0f > 0.0f ? 0 : 1;
}

#if defined(KAKEYA_RACES)
/// Start anew, with some of what keeps accesses apart left out (Races::Without).
extern "C" void kakeya_host_races_begin(int without) { races.begin(without); }

/// Races since then and accesses of shared memory; the first race in words.
extern "C" i64 kakeya_host_races(i64* seen, const char** first) {
  *seen = races.seen();
  *first = races.first();
  return races.found();
}
#endif
