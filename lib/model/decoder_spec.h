// What the library asks of a description, and how it finds the one of a model.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/architecture.h"
#include "base/json.h"

namespace autoscheme {

// The linears and params of a sublayer, in the order in which they are used.
std::vector<int> LinearsOf(const Sublayer& sublayer);
std::vector<int> ParamsOf(const Sublayer& sublayer);
// The last product of each branch whose result is only added to what the sublayer hands on, so that no gradient depends
// on its values: not where a norm follows.
std::vector<int> LastProducts(const Sublayer& sublayer);
// Sets the sublayers of linears and params.
void Finish(BlockSpec& block);

// Makes a ModelSpec from config.json. A family is one function and one line in registry.cc.
using Family = absl::StatusOr<ModelSpec> (*)(const Json& config);

// Finds the family by config.json's model_type. UNIMPLEMENTED names it and lists what is supported.
absl::StatusOr<ModelSpec> ReadModelSpec(const Json& config);

}  // namespace autoscheme
