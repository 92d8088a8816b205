// The tensors that a config.json asks for, where no checkpoint says what there is.
#pragma once

#include "autoscheme/context.h"
#include "checkpoint/checkpoint.h"

namespace autoscheme {

// Names them as transformers names the modules, in the type that the config names: one pair of keys serves all tensors,
// `dtype` or `torch_dtype`, of the whole or of its text_config. Where it names none that weights can have they are
// BF16, with a warning of the context, which is borrowed. A head is among them unless it is tied, by the config or else
// by what transformers takes for granted of the family. Errors: those of ReadModelSpec.
Checkpoint::TensorsOf TensorsOfConfig(const Context& context);

}  // namespace autoscheme
