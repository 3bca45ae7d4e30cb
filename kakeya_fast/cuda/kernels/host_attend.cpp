// Attention as host code: every block in turn, and in a block every warp in turn at each step.
#include <vector>

#include "attend.cuh"
#include "attend_entry.cuh"

using namespace kakeya;

namespace {

/// A step of the block by all of its warps, and the barrier after it.
template <class Step>
void in_turn(const Attend& p, Step step) {
  for (int w = 0; w < p.warps; ++w) {
    races.enter(w);
    step(w);
  }
  races.barrier();
}

}  // namespace

/// Arguments are those of the device's entry, after its numbers and the shape of the grid.
extern "C" void kakeya_host_attend(const Attend* plan, i64 splits_x, i64 groups_y, i64 rows_z,
                                   KAKEYA_ATTEND_ARGUMENTS) {
  const Attend p = *plan;
  const AttendArgs a = KAKEYA_ATTEND_GIVEN;
  std::vector<u64> memory(shared_bytes(p) / 8 + 1);
  std::vector<State> states(p.warps);
  u8* shared = reinterpret_cast<u8*>(memory.data());
  for (int z = 0; z < rows_z; ++z) {
    for (int y = 0; y < groups_y; ++y) {
      for (int x = 0; x < splits_x; ++x) {
        std::memset(shared, 0xff, shared_bytes(p));
        races.forget();
        races.watch(shared, shared_bytes(p));
        const Block k = attend_block(p, &a, shared, x, y, z);
        in_turn(p, [&](int w) { attend_begin(p, k, w, states[w]); });
        in_turn(p, [&](int w) { attend_run(p, k, w, states[w]); });
        in_turn(p, [&](int w) { attend_share(p, k, w, states[w]); });
        in_turn(p, [&](int w) { attend_store(p, k, w); });
        races.enter(0);
        attend_ticket(p, k);
        races.barrier();
        bool last = false;
        // What a warp reads of the flag, others may not yet write over.
        for (int w = 0; w < p.warps; ++w) {
          races.enter(w);
          last = shared_int(shared, shared_flag(p));
        }
        if (!last) continue;
        in_turn(p, [&](int w) { attend_weigh(p, k, w); });
        in_turn(p, [&](int w) { attend_merge(p, k, w); });
      }
    }
  }
  races.forget();
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
