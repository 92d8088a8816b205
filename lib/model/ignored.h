// What a model folder says or holds in vain, put into warnings.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "base/json.h"
#include "model/decoder_spec.h"

namespace autoscheme {

// Kinds of tensors that no language model reads, by name: those of quantized weights, those of an adapter that was not
// merged, those of a classifier or reward model, and computed numbers that training code saved (rotary frequencies,
// causal masks).
bool HasPart(absl::string_view name, absl::Span<const absl::string_view> parts);  // parts are ".lora_", ".bias."
bool IsOfQuantized(absl::string_view name);
bool IsOfAdapter(absl::string_view name);
bool IsOfOtherHead(absl::string_view name);
bool IsBuffer(absl::string_view name);

// ModelSpec::warnings; code that the model brings along (auto_map), which is never run, or else a class of another head
// or family (architectures); and the tensors that nothing reads, named and counted by why they may matter: one warning
// for each kind, none for buffers.
void WarnOfIgnored(const Context& context, const ModelSpec& spec, const Json& config,
                   const std::vector<std::string>& unused_tensors);

}  // namespace autoscheme
