// The whole trade of bits against loss, before a budget is fixed. Plain values; docs/formats.md has the file.
#ifndef AUTOSCHEME_PARETO_H_
#define AUTOSCHEME_PARETO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/context.h"
#include "autoscheme/recipe.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

// A choice that no other beats: less loss needs more bits.
struct ParetoPoint {
  int64_t total_bits = 0;  // sum over all layers, fixed ones included
  double avg_bits = 0;     // total_bits / total_params
  double loss = 0;
  // Loss that a further bit of storage saves here: towards the next point, 0 at the last.
  double marginal_value = 0;
};

struct ParetoFront {
  std::vector<ParetoPoint> points;  // by rising bits
  // True: every efficient choice is here. False: there are more than max_points, and these are corners of the lower
  // convex hull (one for each thing that the rules for embedding and head say), each of them efficient.
  bool complete = false;
  int64_t total_params = 0;
};

// Uses menu, accounting and shared layers of `options`; avg_bits and target_bytes are not looked at. The
// embedding and the head follow the rules of recipes (docs/algorithm.md 8.4, 8.5): a point's avg_bits as the target of
// SelectRecipes gives that choice (but for its gap). Pure and deterministic. Errors: as SelectRecipes.
absl::StatusOr<ParetoFront> FindParetoFront(const ScoreTable& table, const SelectOptions& options,
                                            int64_t max_points = 20000, const Context& context = {});

std::string ParetoToJson(const ParetoFront& front);
absl::Status WritePareto(const Context& context, const ParetoFront& front, const std::string& path);

}  // namespace autoscheme

#endif  // AUTOSCHEME_PARETO_H_
