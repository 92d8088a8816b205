// Importance matrices as llama.cpp's llama-imatrix writes them: GGUF, and the older .dat.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/context.h"

namespace autoscheme {

// Keyed by llama.cpp's tensor name ("blk.0.attn_q.weight"): how much each input channel was used, [channels]; of a
// stack of experts one after the other. Up to a factor for each expert these are sums of squares (the older format
// holds means times the number of calls), and the search of k-quants does not depend on that factor. Where no token
// came by they are 1.
using ImatrixFile = std::map<std::string, std::vector<float>>;

// Errors: NOT_FOUND; DATA_LOSS for a file that ends early or contradicts itself (names the offset), values that are
// negative or not finite (names tensor and channel); INVALID_ARGUMENT for a GGUF file of another kind;
// RESOURCE_EXHAUSTED for more than 1 GiB.
absl::StatusOr<ImatrixFile> ReadImatrixFile(const Context& context, const std::string& path);

}  // namespace autoscheme
