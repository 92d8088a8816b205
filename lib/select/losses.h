// From the two measured terms to the loss that selection minimizes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

// losses[k][l] of table.schemes[menu[k]] on table.layers[l]. The weight term counts when any scheme of the menu calls
// for it (docs/algorithm.md 6.4); 0 for fixed layers and for schemes that quantize nothing. Experts of a block that no
// token has reached get the mean of the others (docs/algorithm.md 6.6). A loss may be NaN or infinite where
// the measurement was.
std::vector<std::vector<double>> MenuLosses(const ScoreTable& table, absl::Span<const int> menu);

// What names one expert of a mixture: "model.layers.0.mlp.experts.3" for its three projections. Empty for other layers.
std::optional<std::string> ExpertKey(absl::string_view layer);

}  // namespace autoscheme
