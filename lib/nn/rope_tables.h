// The cos and sin by which attention rotates queries and keys.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/rope.h"

namespace autoscheme {

// [2, seqlen, dims / 2]: cos and sin of position x frequency, float32 (docs/algorithm.md 1.4). Those of types dynamic
// and longrope depend on seqlen.
at::Tensor RopeTables(const RopeConfig& rope, int64_t dims, int64_t seqlen);

// What queries are multiplied by that grow with their position, 1 + growth log(1 + floor(position / length)): [seqlen,
// 1] in float32, where `like` lies; undefined where none of them grows.
at::Tensor QueryScales(double growth, double length, int64_t seqlen, const at::Tensor& like);

}  // namespace autoscheme
