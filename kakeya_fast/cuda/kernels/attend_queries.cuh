// Queries on their way to the tensor cores: once for a block, or once for every frame of its keys.
#pragma once

#include "attend_walk.cuh"

namespace kakeya {

constexpr float LOG2E = 1.44269504f;

/// A number of a tensor of the queries' type, at a place counted in numbers.
KAKEYA_FN Lane<float> read_number(int kind, const void* from, const Lane<i64>& at,
                                  const Lane<bool>& on) {
  if (kind == F32) {
    Lane<u32> w;
    read_words<1>(from, at * i64(4), on, &w);
    return real(w);
  }
  return half_of(kind, read_small<u16>(from, at * i64(2), on), 0);
}

struct QueryRow {
  Lane<float> x[K_OCTETS];
};

/// Where a query row begins, `size` numbers of it; only those of frames may be strided.
KAKEYA_FN i64 place_of(Attend p, const Block& k, const i64* stride, int frame, int m, int size) {
  if (!p.framed) return ((i64(k.row) * k.a->heads + k.head) * k.a->rows + m) * size;
  return k.row * stride[0] + k.head * stride[1] + frame * stride[2] + m * stride[3];
}

/// Query row `row` of the block in a frame, in the order of the keys' octets; zeros if there is none.
KAKEYA_FN QueryRow read_query(Attend p, const Block& k, int frame, int row) {
  const AttendArgs& a = *k.a;
  const int m = k.first_m + row;
  const bool there = row < rows_of(p) && m < a.rows;
  const i64 begin = place_of(p, k, a.q_stride, frame, m, p.D);
  const Lane<int> lane = lane_number(), nibble = lane % 8;
  QueryRow q;
  KAKEYA_UNROLL
  for (int i = 0; i < p.D / 32; ++i) {
    const Lane<int> octet = lane / 8 + 4 * i;
    const Lane<int> field = field_of(code_of_stream(p, false), octet, nibble);
    q.x[i] = read_number(p.kind, a.q, cast<i64>(field) + begin, there);
  }
  return q;
}

/// A query row to where it is staged: scaled by a power of two, as fp16; and its factor and bias.
KAKEYA_FN void stage_query(Attend p, const Block& k, int frame, int row, QueryRow q, u8* staged) {
  const AttendArgs& a = *k.a;
  const int m = k.first_m + row;
  const bool there = m < a.rows;
  const Lane<int> lane = lane_number(), nibble = lane % 8;
  Lane<float> largest = 0.0f;
  KAKEYA_UNROLL
  for (int i = 0; i < p.D / 32; ++i) largest = greatest(largest, real(bits(q.x[i]) & MAGNITUDE));
  KAKEYA_UNROLL
  for (int o = 1; o < WARP; o *= 2) largest = greatest(largest, shuffle_xor(largest, o));
  largest = clamp(largest, 0x1p-100f, 0x1p126f);
  const Lane<u32> power = bits(largest) & INFINITE;
  const Lane<float> inverse = real((254u << 23) - power);
  KAKEYA_UNROLL
  for (int i = 0; i < p.D / 32; ++i) {
    const Lane<int> octet = lane / 8 + 4 * i, each = p.D / 32;
    const Lane<int> tile = octet % each * 2 + nibble / 4;
    const Lane<int> holder = octet / each + row % 8 * 4;
    const Lane<int> word = ((tile * p.NT + row / 8) * WARP + holder) * 2 + nibble / 2 % 2;
    put_shared_small(staged, cast<u32>(word * 4 + nibble % 2 * 2), true,
                     to_f16(mul(q.x[i], inverse)));
  }
  const float scale = p.softcap ? a.scaling / a.softcap : a.scaling * LOG2E;
  u8* rows = staged + factors_at(p);
  const Lane<u32> factor = bits(mul(real(power), scale));
  write_shared<1>(rows, u32(row * 4), lane == 0, &factor);
  if (p.bias) {
    const Lane<i64> at = place_of(p, k, a.bias_stride, frame, m, 1);
    const Lane<u32> bias = bits(mul(lookup_global<float>(a.bias, at, there), scale));
    write_shared<1>(rows, u32((rows_of(p) + row) * 4), lane == 0, &bias);
  }
}

/// Cache indices of the block's query rows into shared memory.
KAKEYA_FN void stage_indices(Attend p, const Block& k) {
  const Lane<int> row = lane_number();
  const Lane<u32> index = cast<u32>((row + k.first_m) % k.a->queries + k.origin);
  write_shared<1>(k.shared, cast<u32>(row * 4 + shared_indices(p)), row < rows_of(p), &index);
}

/// The queries of one frame, to where its tiles are given them from.
///
/// Rule: query.attend.frame
KAKEYA_FN void turn_queries(Attend p, const Block& k, int frame, int warp) {
  const i64 number = k.number * i64(k.a->frames) + frame;
  u8* staged = k.a->turned + number * queries_bytes(p);
  KAKEYA_ROLLED
  for (int row = warp; row < rows_of(p); row += p.warps) {
    stage_query(p, k, frame, row, read_query(p, k, frame, row), staged);
  }
}


}  // namespace kakeya
