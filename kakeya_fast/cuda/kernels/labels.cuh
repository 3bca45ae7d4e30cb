// The labels of a trellis.
#pragma once

#include "portable.cuh"

namespace kakeya {

// Column j of the labels in bits 4j .. 4j + 3; a test holds them to spec/trellis.json.
constexpr u32 COLUMNS = 0x8d14c6d8u;

}  // namespace kakeya
