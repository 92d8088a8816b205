// The stretches of queries that attention works on, one after the other. No torch.
#pragma once

#include <algorithm>
#include <cstdint>

#include "nn/attention_cost.h"

namespace autoscheme {

// Queries that are worked on at once, [first, last), and the keys that any of them sees.
struct Stretch {
  int64_t first, last, first_key;
  int64_t queries() const { return last - first; }
  int64_t keys() const { return last - first_key; }
};

// body(stretch), `step` queries at a time.
template <typename Body>
void ForEachStretch(const AttentionShape& shape, int64_t seqlen, int64_t step, const Body& body) {
  for (int64_t first = 0; first < seqlen; first += step) {
    const int64_t first_key = shape.window > 0 ? std::max<int64_t>(first - shape.window + 1, 0) : 0;
    body(Stretch{first, std::min(first + step, seqlen), first_key});
  }
}

}  // namespace autoscheme
