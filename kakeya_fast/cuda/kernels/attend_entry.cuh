// The arguments of attention, for the device's entry and the host's; in the order of attend.py.
#pragma once

#include "attend_walk.cuh"

#define KAKEYA_ATTEND_ARGUMENTS                                                               \
  const unsigned char *k_pool, long long k_stride, const unsigned char *v_pool,               \
      long long v_stride, const int *slots, long long slot_row, long long slot_head,          \
      const int *first, const int *length, const int *since, long long page_row,              \
      const int *count, const long long *origin, const void *q, long long q_row,              \
      long long q_head, long long q_frame, long long q_m, const float *bias,                  \
      long long bias_row, long long bias_head, long long bias_frame, long long bias_m,        \
      const int *frame, long long frames, unsigned char *turned, const unsigned int *bands,   \
      const unsigned int *tables, long long scaling, long long softcap, long long window,     \
      long long pages, long long heads, long long rows, long long queries, long long splits,  \
      float *work, unsigned int *tickets, const float *other, const float *other_lse,         \
      float *out, float *lse

#define KAKEYA_ATTEND_GIVEN                                                                   \
  {                                                                                           \
    k_pool, v_pool, k_stride, v_stride, slots, slot_row, slot_head, first, length, since,     \
        page_row, count, origin, q, {q_row, q_head, q_frame, q_m}, bias,                      \
        {bias_row, bias_head, bias_frame, bias_m}, frame, int(frames), turned, bands, tables, \
        pattern(scaling), pattern(softcap), int(window), int(pages), int(heads), int(rows),   \
        int(queries), int(splits), work, tickets, other, other_lse, out, lse                  \
  }

namespace kakeya {

/// A float that was handed over as its bits.
KAKEYA_FN float pattern(i64 word) { return real_of(static_cast<u32>(word)); }

/// Block x of the splits, y of heads and eights of rows, z of the batch.
KAKEYA_FN Block attend_block(Attend p, const AttendArgs* a, u8* shared, int x, int y, int z) {
  const int groups = (a->rows + rows_of(p) - 1) / rows_of(p);
  Block k;
  k.a = a;
  k.shared = shared;
  k.split = x;
  k.head = y / groups;
  k.row = z;
  k.origin = static_cast<int>(a->origin[z]);
  k.first_m = y % groups * rows_of(p);
  k.number = (z * a->heads + k.head) * groups + y % groups;
  return k;
}

}  // namespace kakeya
