// What the library asks of a description, and how it finds the one of a model.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/architecture.h"
#include "autoscheme/context.h"
#include "base/json.h"

namespace autoscheme {

// The shape in which a linear's weight is stored.
std::vector<int64_t> StoredShape(const LinearSpec& linear);

// Shows each linear and param of a sublayer in the order in which they are used; one that several parts read comes
// several times.
void ForEachUse(const Sublayer& sublayer, const std::function<void(int linear)>& see_linear,
                const std::function<void(int param)>& see_param);
// The linears and params of a sublayer, in that order.
std::vector<int> LinearsOf(const Sublayer& sublayer);
std::vector<int> ParamsOf(const Sublayer& sublayer);
// The last product of each branch whose result is only added to what the sublayer hands on, so that no gradient depends
// on its values: not where a norm follows.
std::vector<int> LastProducts(const Sublayer& sublayer);
// Sets the sublayers of linears and params.
void Finish(BlockSpec& block);

// INVALID_ARGUMENT, "architecture NAME: block NAME: linear NAME: out_features is 48, expected 32 (heads x head_dim)":
// the first number of a description that does not fit the others, an index that leads nowhere, a tensor that is read
// twice or never. What passes can be computed without another look.
absl::Status CheckSpec(const ModelSpec& spec);

// Makes a ModelSpec from config.json. A family is one function and one line in registry.cc.
using Family = absl::StatusOr<ModelSpec> (*)(const Json& config);

// The description by what `given` has of the model_type, else by the built-in family; as it comes, not yet checked.
// UNIMPLEMENTED names the type and lists what is supported.
absl::StatusOr<ModelSpec> Describe(const Json& config, const std::string& model_type,
                                   absl::Span<const Architecture> given);
// Sorted, each once.
std::vector<std::string> SupportedTypes(absl::Span<const Architecture> given);

// Those that a host has put into its context.
inline absl::Span<const Architecture> ArchitecturesOf(const Context& context) {
  if (context.architectures == nullptr) return {};
  return *context.architectures;
}

// The same for config.json's own model_type, checked, and with the sublayers of linears and params set.
absl::StatusOr<ModelSpec> ReadModelSpec(const Json& config, absl::Span<const Architecture> given = {});

}  // namespace autoscheme
