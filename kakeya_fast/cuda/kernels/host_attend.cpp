// Attention as host code: every block in turn, and in a block every warp in turn at each step.
#include <vector>

#include "attend.cuh"
#include "attend_entry.cuh"

using namespace kakeya;

/// Arguments are those of the device's entry, after its numbers and the shape of the grid.
extern "C" void kakeya_host_attend(const Attend* plan, i64 splits_x, i64 groups_y, i64 rows_z,
                                   KAKEYA_ATTEND_ARGUMENTS) {
  const Attend p = *plan;
  const AttendArgs a = KAKEYA_ATTEND_GIVEN;
  std::vector<u64> memory(shared_bytes(p) / 8 + 1);
  std::vector<State> states(p.warps);
  for (int z = 0; z < rows_z; ++z) {
    for (int y = 0; y < groups_y; ++y) {
      for (int x = 0; x < splits_x; ++x) {
        u8* shared = reinterpret_cast<u8*>(memory.data());
        std::memset(shared, 0xff, shared_bytes(p));
        const Block k = attend_block(p, &a, shared, x, y, z);
        for (int w = 0; w < p.warps; ++w) attend_begin(p, k, w, states[w]);
        for (int w = 0; w < p.warps; ++w) attend_run(p, k, w, states[w]);
        for (int w = 0; w < p.warps; ++w) attend_share(p, k, w, states[w]);
        for (int w = 0; w < p.warps; ++w) attend_store(p, k, w);
        attend_ticket(p, k);
        if (!shared_int(shared, shared_flag(p))) continue;
        for (int w = 0; w < p.warps; ++w) attend_weigh(p, k, w);
        for (int w = 0; w < p.warps; ++w) attend_merge(p, k, w);
      }
    }
  }
}

extern "C" void kakeya_host_turn_queries(const Attend* plan, i64 frames_x, i64 groups_y, i64 rows_z,
                                         KAKEYA_ATTEND_ARGUMENTS) {
  const Attend p = *plan;
  const AttendArgs a = KAKEYA_ATTEND_GIVEN;
  for (int z = 0; z < rows_z; ++z) {
    for (int y = 0; y < groups_y; ++y) {
      const Block k = attend_block(p, &a, nullptr, 0, y, z);
      for (int x = 0; x < frames_x; ++x) {
        for (int w = 0; w < p.warps; ++w) turn_queries(p, k, x, w);
      }
    }
  }
}

/// What the kernels reckon with, to compare with what the caller does.
extern "C" i64 kakeya_host_attend_shared(const Attend* plan) { return shared_bytes(*plan); }
