// What the files of the families share beyond DecoderBuilder.
#pragma once

#include <cstdint>
#include <vector>

#include "model/decoder_spec.h"

namespace autoscheme {

// Warns of keys of other families that would change the numbers, but for those in `known`.
void WarnOfForeignKeys(DecoderBuilder& decoder, const std::vector<const char*>& known = {});
// By layer_types, or by use_sliding_window and max_window_layers.
std::vector<int64_t> QwenWindows(DecoderBuilder& decoder);

}  // namespace autoscheme
