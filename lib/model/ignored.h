// What a model folder says or holds in vain, put into warnings.
#pragma once

#include <string>
#include <vector>

#include "autoscheme/context.h"
#include "base/json.h"
#include "model/decoder_spec.h"

namespace autoscheme {

// ModelSpec::warnings; code that the model brings along (auto_map), which is never run; and the tensors that nothing
// reads, named and counted by why they may matter: one warning for each kind.
void WarnOfIgnored(const Context& context, const ModelSpec& spec, const Json& config,
                   const std::vector<std::string>& unused_tensors);

}  // namespace autoscheme
