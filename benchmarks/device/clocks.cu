// The attention kernel with a clock read after each step by one thread of each block, for
// benchmarks/device/clocks.py; the steps are those of attend.cu.
#include "attend.cuh"

#include "attend_entry.cuh"

using namespace kakeya;

#define CLOCK(step) \
  if (threadIdx.x == 0) mine[step] = clock64()

extern "C" __global__ void __launch_bounds__(KAKEYA_WARPS * 32, KAKEYA_RESIDENT)
    kakeya_attend(KAKEYA_ATTEND_ARGUMENTS, long long* clocks) {
  extern __shared__ __align__(16) u8 shared[];
  constexpr Attend p;
  long long* mine = clocks + 16 * (blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  CLOCK(0);
  const AttendArgs a = KAKEYA_ATTEND_GIVEN;
  const Block k = attend_block(p, &a, shared, blockIdx.x, blockIdx.y, blockIdx.z);
  const int warp = threadIdx.x / WARP;
  State s;
  attend_begin(p, k, warp, s);
  CLOCK(1);
  __syncthreads();
  CLOCK(2);
  attend_run(p, k, warp, s);
  CLOCK(3);
  __syncthreads();
  CLOCK(4);
  attend_share(p, k, warp, s);
  __syncthreads();
  CLOCK(5);
  attend_store(p, k, warp);
  __syncthreads();
  CLOCK(6);
  if (threadIdx.x == 0) attend_ticket(p, k);
  __syncthreads();
  CLOCK(7);
  if (!shared_int(shared, shared_flag(p))) return;
  attend_weigh(p, k, warp);
  __syncthreads();
  CLOCK(8);
  attend_merge(p, k, warp);
  CLOCK(9);
}
