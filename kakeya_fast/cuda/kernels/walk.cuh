// The trellis: labels of windows, and the walk of least error through them. A walk runs through all
// lanes of a warp; its steps are octets of numbers, and each may have bits and values of its own.
#pragma once

#include "labels.cuh"
#include "vectors.cuh"

namespace kakeya {

constexpr int FLAGS = WARP * 4;        // bytes of an octet's flags in shared memory

/// Rule: trellis.label.linear
KAKEYA_FN Lane<u32> label_of(const Lane<u32>& window) {
  Lane<u32> label = 0u;
  KAKEYA_UNROLL
  for (int j = 0; j < 8; ++j) {
    const u32 column = (COLUMNS >> (4 * j)) & 15u;
    label = label ^ select<u32>(((window >> u32(j)) & 1u) != 0u, column, 0u);
  }
  return label;
}

/// Labels of an octet from the low bits of 16 codes, the octet's the upper 8: bit r of word q is
/// bit q of the label of code r. Labels are linear, so that eight of them cost little more than one.
///
/// Rule: trellis.window.shift, trellis.label.linear
KAKEYA_FN void labels_of(const Lane<u32>& lows, Lane<u32>* labels) {
  KAKEYA_UNROLL
  for (int q = 0; q < 4; ++q) {
    labels[q] = 0u;
    KAKEYA_UNROLL
    for (int j = 0; j < 8; ++j) {
      if ((COLUMNS >> (4 * j + q)) & 1u) labels[q] = labels[q] ^ (lows >> u32(8 - j));
    }
  }
}

/// Label of code r of an octet.
KAKEYA_FN Lane<u32> label_at(const Lane<u32>* labels, int r) {
  Lane<u32> label = 0u;
  KAKEYA_UNROLL
  for (int q = 0; q < 4; ++q) label |= ((labels[q] >> u32(r)) & 1u) << u32(q);
  return label;
}

// State t is register t / 32 of lane t % 32, so that states s and s + 64 lie in one lane. A lane is
// given the branch of the label of window 2 * lane; labels are linear, so that the other three it
// needs are those of lanes at fixed distances.

/// Rule: trellis.search.start
KAKEYA_FN void begin_walk(Lane<float>* cost) {
  const Lane<float> infinity = real(Lane<u32>(0x7f800000u));
  cost[0] = select<float>(lane_number() == Lane<int>(0), 0.0f, infinity);
  KAKEYA_UNROLL
  for (int r = 1; r < 4; ++r) cost[r] = infinity;
}

/// One step with branch `e`; bits 0 to 3: where the costs of states 2s, 2s + 1, 2s + 64 and 2s + 65
/// came by the upper window, `s` the lane.
///
/// Rule: trellis.search.step
KAKEYA_FN Lane<u32> extend_walk(const Lane<float>& e, Lane<float>* cost) {
  const Lane<int> lane = lane_number();
  // Lanes 12, 1 and 13 away hold labels that differ by 8, by 13 (window 64) and by both.
  const Lane<float> one[2] = {e, shuffle_xor(e, 1)};
  const Lane<float> two[2] = {shuffle_xor(e, 12), shuffle_xor(e, 13)};
  Lane<float> even[2], odd[2];
  Lane<u32> flags = 0u;
  KAKEYA_UNROLL
  for (int r = 0; r < 2; ++r) {
    const Lane<float> a = add(cost[r], one[r]), b = add(cost[r + 2], two[r]);
    const Lane<float> c = add(cost[r], two[r]), d = add(cost[r + 2], one[r]);
    even[r] = select<float>(b < a, b, a);
    odd[r] = select<float>(d < c, d, c);
    flags |= select<u32>(b < a, 1u << (2 * r), 0u) | select<u32>(d < c, 2u << (2 * r), 0u);
  }
  KAKEYA_UNROLL
  for (int r = 0; r < 4; ++r) {
    const Lane<int> from = lane / 2 + 16 * (r % 2);
    const Lane<float> x = shuffle(even[r / 2], from), y = shuffle(odd[r / 2], from);
    cost[r] = select<float>((lane & 1) != 0, y, x);
  }
  return flags;
}

/// The state of least cost, the lowest of equals, in all lanes.
///
/// Rule: trellis.search.end
KAKEYA_FN Lane<u32> end_walk(const Lane<float>* cost) {
  const Lane<u32> lane = cast<u32>(lane_number());
  Lane<float> least = cost[0];
  Lane<u32> state = lane;
  KAKEYA_UNROLL
  for (int r = 1; r < 4; ++r) {
    state = select<u32>(cost[r] < least, lane + u32(32 * r), state);
    least = select<float>(cost[r] < least, cost[r], least);
  }
  KAKEYA_UNROLL
  for (int o = 1; o < WARP; o *= 2) {
    const Lane<float> other = shuffle_xor(least, o);
    const Lane<u32> theirs = shuffle_xor(state, o);
    const Lane<bool> take = (other < least) | ((other == least) & (theirs < state));
    state = select<u32>(take, theirs, state);
    least = select<float>(take, other, least);
  }
  return state;
}

/// Keep the flags of an octet: four of each lane and step.
KAKEYA_FN void keep_flags(u8* flags, int octet, const Lane<u32>& word) {
  write_shared<1>(flags, cast<u32>(lane_number()) * 4u + u32(octet * FLAGS), true, &word);
}

/// Windows of a walk through octets `first` to `last - 1`, read backwards: window 8 s + r of lane l
/// is that of number r of octet l + 32 s - owner.
///
/// Rule: trellis.search.end
KAKEYA_FN void trace_walk(const u8* flags, int first, int last, int owner, int slabs,
                          Lane<u32> state, Lane<u32>* windows) {
  const Lane<int> lane = lane_number();
  for (int o = last - 1; o >= first; --o) {
    KAKEYA_UNROLL
    for (int r = 7; r >= 0; --r) {
      const Lane<u32> low = state / 2u;
      const Lane<u32> at = u32(o * FLAGS) + (low & 31u) * 4u;
      const Lane<u32> shift = u32(4 * r) + (low >> 5u) * 2u + (state & 1u);
      const Lane<u32> upper = (read_shared(flags, at, true) >> shift) & 1u;
      const Lane<u32> window = state + upper * 128u;
      KAKEYA_UNROLL
      for (int s = 0; s < slabs; ++s) {
        const Lane<bool> mine = lane + WARP * s == owner + o;
        windows[8 * s + r] = select<u32>(mine, window, windows[8 * s + r]);
      }
      state = window / 2u;
    }
  }
}

}  // namespace kakeya
