// The scorers that there are, by name (lib/scorers/run_scorers.cc makes them).
#pragma once

#include "absl/strings/string_view.h"

namespace autoscheme {

// The one whose losses are the sum of two terms (docs/algorithm.md 6.1), as the reference's are.
inline constexpr absl::string_view kTwoTermScorer = "deltaloss";
inline constexpr absl::string_view kScorerNames[] = {kTwoTermScorer, "fisher", "fisher-labels"};

}  // namespace autoscheme
