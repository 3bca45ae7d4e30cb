// From packed codes to fragments of tensor cores.
//
// An octet here is the 8 codes that one word of nibbles holds. The words of a row of planes make
// D/8 octets; which fields these are does not matter to the sum over a key's numbers, so queries
// are put in the same order once, and the numbers of an output are put back once.
#pragma once

#include "attend_plan.cuh"

namespace kakeya {

/// Field of number `n` of octet `o` in a row of `d` codes of `b` bits.
///
/// Rule: page.plane.strided
KAKEYA_FN Lane<int> field_of(int b, int looked_up, int d, const Lane<int>& o,
                             const Lane<int>& n) {
  if (b == 4) return o * 4 + n / 2 + n % 2 * (d / 2);
  if (b == 2 && looked_up) return o * 2 + n / 4 + n % 4 * (d / 4);
  return o / 2 * 4 + n / 2 + (o % 2 + n % 2 * 2) * (d / 4);
}

// Where the values of codes are: 8 numbers of 16 bits in registers, low and high bytes apart, or
// in shared memory, where a byte of codes is half of the address of what it names.
struct Values {
  Lane<u32> low[2], high[2];
  const u8* named;
  Lane<u32> bank;
};

/// Values of a stream; `table` is the whole table.
KAKEYA_FN Values make_values(Attend p, bool v, const u32* table, const u8* shared) {
  const int b = v ? p.VB : p.KB;
  Values values;
  values.named = shared + shared_named(p);
  const Lane<u32> lane = cast<u32>(lane_number());
  values.bank = (b == 2 ? lane % 16u * 8u : lane * 4u) + (v ? 128u : 0u);
  KAKEYA_UNROLL
  for (int i = 0; i < 2; ++i) {
    const i64 at = BYTES + (v ? 4 : 0) + i;
    const bool used = !(v ? p.VL : p.KL);
    values.low[i] = used ? lookup_global<u32>(table, at, true) : Lane<u32>(0u);
    values.high[i] = used ? lookup_global<u32>(table, at + 2, true) : Lane<u32>(0u);
  }
  return values;
}

/// The 8 numbers of an octet, two in a word.
///
/// `odd`: of 2-bit codes that are looked up, whether it is the upper half of its word.
KAKEYA_FN void expand(int b, int looked_up, const Values& v, const Lane<u32>& octet, int odd,
                      Lane<u32>* w) {
  if (looked_up && b == 2) {
    KAKEYA_UNROLL
    for (int i = 0; i < 2; ++i) {
      shared_words<2>(v.named, permute(octet, v.bank, 0x6504u + u32(16 * (i + 2 * odd))),
                      w + 2 * i);
    }
  } else if (looked_up) {
    KAKEYA_UNROLL
    for (int i = 0; i < 4; ++i) {
      shared_words<1>(v.named, permute(octet, v.bank, 0x6504u + u32(16 * i)), w + i);
    }
  } else {
    KAKEYA_UNROLL
    for (int i = 0; i < 2; ++i) {
      const Lane<u32> four = i ? octet >> 16 : octet;
      const Lane<u32> low = permute(v.low[0], v.low[1], four);
      const Lane<u32> high = permute(v.high[0], v.high[1], four);
      w[2 * i] = permute(low, high, 0x5140u);
      w[2 * i + 1] = permute(low, high, 0x7362u);
    }
  }
}

/// Octets of a word of 2-bit codes, and of the word of their third bits; `third` has been shifted
/// so that the bits of even octets are bits 0 and 4 of each byte, of odd ones bits 2 and 6.
KAKEYA_FN Lane<u32> octet_of_two(int b, const Lane<u32>& two, const Lane<u32>& third, int odd) {
  const Lane<u32> low = (odd ? two >> 2 : two) & 0x33333333u;
  if (b == 2) return low;
  return low | ((odd ? third : third << 2) & 0x44444444u);
}

/// A run of 1, 2, 4 or 8 words, at most `MOST`, aligned to its length or to 16 bytes.
template <int MOST>
KAKEYA_FN void shared_run(const u8* base, const Lane<u32>& at, int count, Lane<u32>* w) {
  if (count == 1) shared_words<1>(base, at, w);
  if constexpr (MOST >= 2) {
    if (count == 2) shared_words<2>(base, at, w);
  }
  if constexpr (MOST >= 4) {
    if (count >= 4) shared_words<4>(base, at, w);
  }
  if constexpr (MOST >= 8) {
    if (count == 8) shared_words<4>(base, at + 16u, w + 4);
  }
}

/// Octets of a token's key that belong to lane 4 r + `part`: numbers D/32 * part onwards.
KAKEYA_FN void key_octets(Attend p, const u8* codes, const Lane<int>& token,
                          const Lane<int>& part, Lane<u32>* octets) {
  const int count = p.D / 32;
  if (p.KB == 4) {
    const Lane<int> at = token * (p.D / 2) + part * (4 * count);
    shared_run<K_OCTETS>(codes, cast<u32>(at), count, octets);
    return;
  }
  Lane<u32> two[K_OCTETS / 2], third[K_OCTETS / 2];
  shared_run<K_OCTETS / 2>(codes, cast<u32>(token * (p.D / 4) + part * (2 * count)), count / 2, two);
  if (p.KB == 3) {
    const u8* plane = codes + plane_bytes(p.T, p.D, 2);
    shared_run<K_OCTETS / 2>(plane, cast<u32>(token * (p.D / 8) + part % 2 * (2 * count)), count / 2, third);
  }
  KAKEYA_UNROLL
  for (int i = 0; i < count / 2; ++i) {
    octets[2 * i] = octets[2 * i + 1] = two[i];
    if (p.KB == 2 && p.KL) continue;
    if (p.KB == 3) third[i] = third[i] >> cast<u32>(part / 2);
    octets[2 * i] = octet_of_two(p.KB, two[i], third[i], 0);
    octets[2 * i + 1] = octet_of_two(p.KB, two[i], third[i], 1);
  }
}

/// Octets of a token's value that belong to lane 4 * `part` + c: numbers DV/64 * part onwards.
KAKEYA_FN void value_octets(Attend p, const u8* codes, const Lane<int>& token,
                            const Lane<int>& part, Lane<u32>* octets) {
  const int count = p.DV / 64;
  if (p.VB == 4) {
    const Lane<int> at = token * (p.DV / 2) + part * (4 * count);
    shared_run<V_OCTETS>(codes, cast<u32>(at), count, octets);
    return;
  }
  const u8* plane = codes + plane_bytes(p.T, p.DV, 2);
  const Lane<u32> side = cast<u32>(part / 4);
  constexpr int PAIRS = V_OCTETS < 2 ? 1 : V_OCTETS / 2;
  if (count == 1) {  // two lanes share a word
    Lane<u32> two, third = 0u;
    shared_words<1>(codes, cast<u32>(token * (p.DV / 4) + part / 2 * 4), &two);
    const Lane<u32> odd = cast<u32>(part % 2) * 2u;
    octets[0] = p.VB == 2 && p.VL ? two >> (odd * 8u) : (two >> odd) & 0x33333333u;
    if (p.VB == 2) return;
    shared_words<1>(plane, cast<u32>(token * (p.DV / 8) + part / 2 % 2 * 4), &third);
    octets[0] |= ((third >> side) << (2u - odd)) & 0x44444444u;
    return;
  }
  Lane<u32> two[PAIRS], third[PAIRS];
  shared_run<PAIRS>(codes, cast<u32>(token * (p.DV / 4) + part * (2 * count)), count / 2, two);
  if (p.VB == 3) {
    const Lane<int> at = token * (p.DV / 8) + part % 4 * (2 * count);
    shared_run<PAIRS>(plane, cast<u32>(at), count / 2, third);
  }
  KAKEYA_UNROLL
  for (int i = 0; i < count / 2; ++i) {
    octets[2 * i] = octets[2 * i + 1] = two[i];
    if (p.VB == 2 && p.VL) continue;
    if (p.VB == 3) third[i] = third[i] >> side;
    octets[2 * i] = octet_of_two(p.VB, two[i], third[i], 0);
    octets[2 * i + 1] = octet_of_two(p.VB, two[i], third[i], 1);
  }
}

}  // namespace kakeya
