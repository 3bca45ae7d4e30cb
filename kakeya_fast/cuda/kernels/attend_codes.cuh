// From packed codes to fragments of tensor cores.
//
// An octet here is the 8 codes that one word of nibbles holds. The words of a row of planes make
// D/8 octets; which fields these are does not matter to the sum over a key's numbers, so queries
// are put in the same order once, and the numbers of an output are put back once.
#pragma once

#include "attend_plan.cuh"
#include "labels.cuh"

namespace kakeya {

/// Field of number `n` of octet `o` in a row of codes.
///
/// Rule: page.plane.strided
KAKEYA_FN Lane<int> field_of(Code c, const Lane<int>& o, const Lane<int>& n) {
  if (c.way == CALIBRATED) return (o % (c.d / 32) * 4 + o / (c.d / 32)) * 8 + 7 - n;
  if (c.b == 4) return o * 4 + n / 2 + n % 2 * (c.d / 2);
  if (names_four(c)) return o * 2 + n / 4 + n % 4 * (c.d / 4);
  return o / 2 * 4 + n / 2 + (o % 2 + n % 2 * 2) * (c.d / 4);
}

// Where the values of codes are: 8 numbers of 16 bits in registers, low and high bytes apart, or
// in shared memory, where a byte of codes is half of the address of what it names; and where a list
// of numbers and the bands of keys are, see attend_bands.cuh.
struct Values {
  Lane<u32> low[2], high[2];
  const u8 *named, *listed, *bands;
  Lane<u32> bank;
};

/// Values of a stream; `table` is the whole table.
KAKEYA_FN Values make_values(Attend p, bool v, const u32* table, const u8* shared) {
  const Code c = code_of_stream(p, v);
  Values values;
  values.named = shared + shared_named(p);
  values.listed = shared + shared_listed(p);
  values.bands = shared + shared_bands(p);
  const Lane<u32> lane = cast<u32>(lane_number());
  values.bank = (names_four(c) ? lane % 16u * 8u : lane * 4u) + (v ? 128u : 0u);
  KAKEYA_UNROLL
  for (int i = 0; i < 2; ++i) {
    const i64 at = BYTES + (v ? 4 : 0) + i;
    const bool used = c.way == PERMUTED;
    values.low[i] = used ? lookup_global<u32>(table, at, true) : Lane<u32>(0u);
    values.high[i] = used ? lookup_global<u32>(table, at + 2, true) : Lane<u32>(0u);
  }
  return values;
}

// The codes of one lane in the row of a token: octets of nibbles, or words of which octets are
// halves; and of a walk, the words in which the signs are, or labels in octets of their own.
template <int OCTETS>
struct Codes {
  static constexpr int WORDS = OCTETS < 2 ? 1 : OCTETS / 2;
  Lane<u32> octets[OCTETS], signs[WORDS], labels[OCTETS];
};

/// The numbers that 8 bytes name: byte i of both words, the even ones first.
KAKEYA_FN void expand_bytes(const Values& v, const Lane<u32>& even, const Lane<u32>& odd,
                            Lane<u32>* w) {
  KAKEYA_UNROLL
  for (int i = 0; i < 4; ++i) {
    Lane<u32> first, second;
    shared_words<1>(v.named, permute(even, v.bank, 0x6504u + u32(16 * i)), &first);
    shared_words<1>(v.named, permute(odd, v.bank, 0x6504u + u32(16 * i)), &second);
    w[i] = permute(first, second, 0x5410u);
  }
}

/// The 8 numbers of an octet, two in a word.
template <int OCTETS>
KAKEYA_FN void expand(Code c, const Values& v, const Codes<OCTETS>& codes, int e, Lane<u32>* w) {
  const Lane<u32>& octet = codes.octets[e];
  if (one_by_one(c)) {
    // Rule: trellis.table.values
    const Lane<u32>& label = codes.labels[e];
    const Lane<u32> even = (label & 0x0f0f0f0fu) | (octet << 3u & 0x70707070u);
    const Lane<u32> odd = (label >> 4u & 0x0f0f0f0fu) | (octet >> 1u & 0x70707070u);
    expand_bytes(v, even, odd, w);
    return;
  }
  if (names_four(c)) {
    KAKEYA_UNROLL
    for (int i = 0; i < 2; ++i) {
      const u32 byte = u32(i + 2 * (e % 2));
      shared_words<2>(v.named, permute(octet, v.bank, 0x6504u + 16u * byte), w + 2 * i);
    }
  } else if (c.way != PERMUTED) {
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
  if (c.way == WALKED) {  // of two bits
    // The upper bit of a code is the sign; it goes from where it lies to the top of its number.
    const Lane<u32>& word = codes.signs[e / 2];
    const Lane<u32> even = word << u32(e % 2 ? 4 : 6), odd = e % 2 ? word : word << 2;
    KAKEYA_UNROLL
    for (int i = 0; i < 4; ++i) {
      w[i] = w[i] ^ (permute(even, odd, u32(0x4000 + 0x1010 * i)) & 0x80008000u);
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

// Labels of the 16 codes of a word: two of their bits each, where the codes lie.
struct Labels {
  Lane<u32> low, high;
};

/// Labels of a word of 2-bit codes; `before` and `earlier` are the words before it, and all have
/// their low bits alone. A code is a byte away from the one before it.
///
/// Rule: trellis.window.shift, trellis.label.linear
KAKEYA_FN Labels labels_of(const Lane<u32>& now, const Lane<u32>& before,
                           const Lane<u32>& earlier) {
  const Lane<u32> x1 = permute(before, now, 0x6543u), x2 = permute(before, now, 0x5432u);
  const Lane<u32> x3 = permute(before, now, 0x4321u), x5 = permute(earlier, before, 0x6543u);
  const Lane<u32> x6 = permute(earlier, before, 0x5432u);
  const Lane<u32> x7 = permute(earlier, before, 0x4321u);
  const Lane<u32> both = x1 ^ x6;
  Labels l;
  l.low = (both ^ x5) | x2 << 1;
  l.high = (both ^ x2 ^ (x3 ^ before)) | (both ^ now ^ (x3 ^ x7)) << 1;
  return l;
}

/// The labels of an octet of a word.
KAKEYA_FN Lane<u32> octet_of_labels(const Labels& l, int odd) {
  const Lane<u32> low = odd ? l.low >> 2 : l.low, high = odd ? l.high : l.high << 2;
  return (low & 0x33333333u) | (high & 0xccccccccu);
}

/// The octets of a word of 2-bit codes of a walk: labels, inverted where the code's upper bit is
/// set, so that they name a number up to its sign.
///
/// Rule: trellis.table.values
KAKEYA_FN Lane<u32> octet_of_walk(const Labels& l, const Lane<u32>& word, int odd) {
  const Lane<u32> upper = (word >> u32(odd ? 3 : 1)) & 0x11111111u;
  return octet_of_labels(l, odd) ^ (upper * 15u);
}

/// Labels of a word of 4-bit codes, each where its code lies; the words are as for `labels_of`.
///
/// Rule: trellis.window.shift, trellis.label.linear
KAKEYA_FN Lane<u32> labels_of_nibbles(const Lane<u32>& now, const Lane<u32>& before,
                                      const Lane<u32>& earlier) {
  Lane<u32> labels = now * (COLUMNS & 15u) ^ before * (COLUMNS >> 16 & 15u);
  KAKEYA_UNROLL
  for (int j = 1; j < 4; ++j) {
    const u32 back = 0x7654u - u32(0x1111 * j);
    labels = labels ^ permute(before, now, back) * (COLUMNS >> (4 * j) & 15u);
    labels = labels ^ permute(earlier, before, back) * (COLUMNS >> (4 * j + 16) & 15u);
  }
  return labels;
}

/// The low bits of a word of a walk `back` words before word `number` of its row; before the first
/// word comes the last one, a code of which precedes the one that lies `c.b` bits above it, 2 of 3.
KAKEYA_FN Lane<u32> word_before(Code c, const u8* codes, const Lane<int>& row,
                                const Lane<int>& number, int back) {
  const int width = base_bits(c.b), words = c.d * width / 32;
  const u32 lows = width == 4 ? 0x11111111u : 0x55555555u;
  const Lane<int> at = (number + (words - back)) % words;
  Lane<u32> word;
  shared_words<1>(codes, cast<u32>(row + at * 4), &word);
  const Lane<bool> around = number < back;
  // The lowest code of a byte of the first words has none before it.
  return (word << select<u32>(around, u32(width), 0u)) &
         select<u32>(around, lows & 0xfefefefeu, lows);
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

/// The codes of a lane in the row of a token: of `OCTETS` octets, from `part * OCTETS` on; `half`
/// says whether they are in the upper half of the row.
template <int OCTETS>
KAKEYA_FN void take_codes(Code c, int tokens, const u8* codes, const Lane<int>& token,
                          const Lane<int>& part, const Lane<int>& half, int count,
                          Codes<OCTETS>& taken) {
  constexpr int WORDS = Codes<OCTETS>::WORDS;
  if (c.b == 4) {
    const Lane<int> begin = token * (c.d / 2), number = part * count;
    shared_run<OCTETS>(codes, cast<u32>(begin + number * 4), count, taken.octets);
    if (c.way != WALKED) return;
    Lane<u32> before = word_before(c, codes, begin, number, 1);
    Lane<u32> earlier = word_before(c, codes, begin, number, 2);
    KAKEYA_UNROLL
    for (int i = 0; i < count; ++i) {
      const Lane<u32> now = taken.octets[i] & 0x11111111u;
      taken.labels[i] = labels_of_nibbles(now, before, earlier);
      earlier = before;
      before = now;
    }
    return;
  }
  // With one octet, two lanes share a word.
  const int words = count == 1 ? 1 : count / 2;
  const Lane<int> number = count == 1 ? part / 2 : part * words;
  const Lane<int> row = token * (c.d / 4);
  Lane<u32> two[WORDS], third[WORDS];
  shared_run<WORDS>(codes, cast<u32>(row + number * 4), words, two);
  if (c.b == 3) {
    const Lane<int> at = token * (c.d / 8) + number % (c.d / 32) * 4;
    shared_run<WORDS>(codes + plane_bytes(tokens, c.d, 2), cast<u32>(at), words, third);
  }
  Lane<u32> before = 0u, earlier = 0u;
  if (c.way == WALKED) {
    before = word_before(c, codes, row, number, 1);
    earlier = word_before(c, codes, row, number, 2);
  }
  const Lane<u32> odd = cast<u32>(part % 2);
  KAKEYA_UNROLL
  for (int i = 0; i < words; ++i) {
    Lane<u32> even_octet = two[i], odd_octet = two[i], even_labels = 0u, odd_labels = 0u;
    if (c.way == WALKED) {
      const Lane<u32> now = two[i] & 0x55555555u;
      const Labels l = labels_of(now, before, earlier);
      earlier = before;
      before = now;
      even_labels = octet_of_labels(l, 0);
      odd_labels = octet_of_labels(l, 1);
      even_octet = octet_of_walk(l, two[i], 0);
      odd_octet = octet_of_walk(l, two[i], 1);
    }
    if (!names_four(c) && (c.way != WALKED || c.b == 3)) {
      if (c.b == 3) third[i] = third[i] >> cast<u32>(half);
      even_octet = octet_of_two(c.b, two[i], third[i], 0);
      odd_octet = octet_of_two(c.b, two[i], third[i], 1);
    }
    taken.signs[i] = two[i];
    if (count > 1) {
      taken.octets[2 * i] = even_octet;
      taken.octets[2 * i + 1] = odd_octet;
      taken.labels[2 * i] = even_labels;
      taken.labels[2 * i + 1] = odd_labels;
    } else if (names_four(c)) {
      taken.octets[0] = two[0] >> (odd * 16u);
    } else {
      // expand() takes it for an even one.
      taken.octets[0] = select<u32>(odd == 1u, odd_octet, even_octet);
      taken.labels[0] = select<u32>(odd == 1u, odd_labels, even_labels);
      taken.signs[0] = two[0] >> (odd * 2u);
    }
  }
}

}  // namespace kakeya
