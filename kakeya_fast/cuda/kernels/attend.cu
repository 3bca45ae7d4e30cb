#include "attend.cuh"

#include "attend_entry.cuh"

using namespace kakeya;

extern "C" __global__ void __launch_bounds__(KAKEYA_WARPS * 32, KAKEYA_RESIDENT)
    kakeya_attend(KAKEYA_ATTEND_ARGUMENTS) {
  extern __shared__ __align__(16) u8 shared[];
  static_assert(shared_bytes(Attend()) == KAKEYA_SHARED, "as the host reckons");
  constexpr Attend p;
  const AttendArgs a = KAKEYA_ATTEND_GIVEN;
  const Block k = attend_block(p, &a, shared, blockIdx.x, blockIdx.y, blockIdx.z);
  const int warp = threadIdx.x / WARP;
  State s;
  attend_begin(p, k, warp, s);
  __syncthreads();
  attend_run(p, k, warp, s);
  __syncthreads();
  attend_share(p, k, warp, s);
  __syncthreads();
  attend_store(p, k, warp);
  __syncthreads();
  if (threadIdx.x == 0) attend_ticket(p, k);
  __syncthreads();
  if (!shared_int(shared, shared_flag(p))) return;
  attend_weigh(p, k, warp);
  __syncthreads();
  attend_merge(p, k, warp);
}

#if KAKEYA_FRAMED
/// Block x of the frames; before kakeya_attend, on the same stream.
extern "C" __global__ void kakeya_turn_queries(KAKEYA_ATTEND_ARGUMENTS) {
  constexpr Attend p;
  const AttendArgs a = KAKEYA_ATTEND_GIVEN;
  const Block k = attend_block(p, &a, nullptr, 0, blockIdx.y, blockIdx.z);
  turn_queries(p, k, blockIdx.x, threadIdx.x / WARP);
}
#endif
