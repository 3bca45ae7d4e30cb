// The sum of a vector's numbers, by halving.
#pragma once

#include "team.cuh"

namespace kakeya {

// D a power of two: the halves are slabs, then lanes, then registers. While registers are left,
// each step between lanes also hands half of them to the partner, so that 8 numbers cross
// 3 lanes' distance in 7 shuffles instead of 24. Addition commutes: both partners get one sum.
KAKEYA_FN Lane<float> even_sum(Plan p, const Team& t, Lane<float>* a) {
  KAKEYA_UNROLL
  for (int h = slabs(p) / 2; h >= 1; h /= 2) {
    KAKEYA_UNROLL
    for (int i = 0; i < 4 * slabs(p); ++i) {
      if (i < 8 * h) a[i] = add(a[i], a[i + 8 * h]);
    }
  }
  int width = 8;  // registers still apart in a lane
  KAKEYA_UNROLL
  for (int o = lanes(p) / 2; o >= 1; o /= 2) {
    if (width > 1) {
      width /= 2;
      const Lane<bool> upper = (t.lane & o) != 0;
      KAKEYA_UNROLL
      for (int r = 0; r < 4; ++r) {
        if (r >= width) continue;
        const Lane<float> give = select<float>(upper, a[r], a[r + width]);
        const Lane<float> keep = select<float>(upper, a[r + width], a[r]);
        a[r] = add(keep, shuffle_xor(give, o));
      }
    } else {
      a[0] = add(a[0], shuffle_xor(a[0], o));
    }
  }
  int o = lanes(p) / 2;
  KAKEYA_UNROLL
  for (int h = 4; h >= 1; h /= 2) {
    KAKEYA_UNROLL
    for (int r = 0; r < 4; ++r) {
      if (o >= 1) {
        if (r < width) a[r] = add(a[r], shuffle_xor(a[r], o));
      } else if (r < h) {
        a[r] = add(a[r], a[r + h]);
      }
    }
    o /= 2;
  }
  return a[0];
}

// Any D: in shared memory, where a half may start anywhere.
KAKEYA_FN Lane<float> any_sum(Plan p, const Team& t, const Lane<float>* a, u8* scratch) {
  KAKEYA_UNROLL
  for (int s = 0; s < slabs(p); ++s) {
    Lane<u32> w[8];
    KAKEYA_UNROLL
    for (int r = 0; r < 8; ++r) w[r] = bits(a[8 * s + r]);
    const Lane<bool> on = octet_of(p, t, s) < octets(p);
    const Lane<u32> at = t.base + cast<u32>(octet_of(p, t, s)) * 32u;
    write_shared<4>(scratch, at, on, w);
    write_shared<4>(scratch, at + 16u, on, w + 4);
  }
  sync_warp();
  KAKEYA_UNROLL
  for (int n = p.D; n > 1; n = (n + 1) / 2) {
    const int h = (n + 1) / 2;
    KAKEYA_UNROLL
    for (int i = 0; i < n - h; i += lanes(p)) {
      const Lane<bool> on = t.lane + i < n - h;
      const Lane<u32> at = t.base + cast<u32>(t.lane + i) * 4u;
      const Lane<float> upper = real(read_shared(scratch, at + u32(4 * h), on));
      const Lane<u32> both = bits(add(real(read_shared(scratch, at, on)), upper));
      write_shared<1>(scratch, at, on, &both);
    }
    sync_warp();
  }
  const Lane<float> sum = real(read_shared(scratch, t.base, true));
  sync_warp();
  return sum;
}

/// The sum of the D numbers a team holds, in all its lanes; `a` is used up.
///
/// Rule: num.sum.halving
KAKEYA_FN Lane<float> halving_sum(Plan p, const Team& t, Lane<float>* a, u8* scratch) {
  return one_block(p) ? even_sum(p, t, a) : any_sum(p, t, a, scratch);
}

}  // namespace kakeya
