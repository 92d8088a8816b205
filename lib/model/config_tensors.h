// The tensors that a config.json asks for, where no checkpoint says what there is.
#pragma once

#include <vector>

#include "autoscheme/context.h"
#include "autoscheme/tensor.h"
#include "base/json.h"
#include "model/decoder_spec.h"

namespace autoscheme {

// Names them as transformers names the modules, in the type that the config names: one pair of keys serves all tensors,
// `dtype` or `torch_dtype`, of the whole or of its text_config. Where it names none that weights can have they are
// BF16, with a warning of the context. A head is among them unless it is tied, by the config or else
// by what transformers takes for granted of the family.
std::vector<TensorInfo> TensorsOfConfig(const Context& context, const Json& config, const ModelSpec& spec);

}  // namespace autoscheme
