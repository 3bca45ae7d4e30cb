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
  // Worked out again: registers are short while tiles are taken.
  const Block e = attend_block(p, &a, shared, keep(blockIdx.x), keep(blockIdx.y), keep(blockIdx.z));
  const int w = keep(threadIdx.x) / WARP;
  __syncthreads();
  attend_share(p, e, w, s);
  __syncthreads();
  attend_store(p, e, w);
  __syncthreads();
  if (threadIdx.x == 0) attend_ticket(p, e);
  __syncthreads();
  if (!shared_int(shared, shared_flag(p))) return;
  Early early;
  attend_early(p, e, w, early);
  attend_weigh(p, e, w);
  __syncthreads();
  attend_merge(p, e, w, early);
  if (p.turned) {
    __syncthreads();
    attend_turn(p, e, w);
  }
}
