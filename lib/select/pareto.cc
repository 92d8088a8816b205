#include "autoscheme/pareto.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "select/problem.h"

namespace autoscheme {
namespace {

using Curve = std::vector<SolverOption>;  // by rising bits, falling loss

void KeepEfficient(Curve& curve);
bool Combine(const Curve& curve, const SolverKey& key, size_t most, Curve& sums);
Curve HullOf(const std::vector<SolverKey>& keys);

}  // namespace

absl::StatusOr<ParetoFront> FindParetoFront(const ScoreTable& table, const SelectOptions& options, int64_t max_points,
                                            const Context& context) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const Problem problem, MakeProblem(table, options, context));
  const int64_t charged = problem.LeastBits() - problem.least_group_bits;
  ParetoFront front;
  front.total_params = problem.total_params;
  front.complete = true;
  const size_t most = static_cast<size_t>(std::max<int64_t>(max_points, 1));
  Curve curve(1), sums;
  for (const SolverKey& key : problem.keys) {
    AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    front.complete = Combine(curve, key, most, sums);
    if (!front.complete) break;
    curve.swap(sums);
  }
  if (!front.complete) curve = HullOf(problem.keys);
  for (size_t i = 0; i < curve.size(); ++i) {
    ParetoPoint point;
    point.total_bits = curve[i].bits + charged;
    point.avg_bits = static_cast<double>(point.total_bits) / static_cast<double>(problem.total_params);
    point.loss = curve[i].loss + problem.fixed_loss;
    if (i + 1 < curve.size()) {
      point.marginal_value = (curve[i].loss - curve[i + 1].loss) / static_cast<double>(curve[i + 1].bits - curve[i].bits);
    }
    front.points.push_back(point);
  }
  return front;
}

namespace {

// Drops what costs no less and loses no less than another.
void KeepEfficient(Curve& curve) {
  std::sort(curve.begin(), curve.end(), [](const SolverOption& a, const SolverOption& b) {
    return a.bits != b.bits ? a.bits < b.bits : a.loss < b.loss;
  });
  size_t kept = 0;
  for (const SolverOption& option : curve) {
    if (kept == 0 || option.loss < curve[kept - 1].loss) curve[kept++] = option;
  }
  curve.resize(kept);
}

// All sums of the curve and the key's options that are efficient; false when they are more than `most`.
bool Combine(const Curve& curve, const SolverKey& key, size_t most, Curve& sums) {
  Curve options(key.begin(), key.end());
  KeepEfficient(options);
  sums.clear();
  sums.reserve(curve.size() * options.size());
  for (const SolverOption& option : options) {
    for (const SolverOption& point : curve) sums.push_back({point.bits + option.bits, point.loss + option.loss});
  }
  KeepEfficient(sums);
  return sums.size() <= most;
}

// Corners of the lower hull of the sums of all keys: every key walks down its own hull, steepest steps first.
Curve HullOf(const std::vector<SolverKey>& keys) {
  struct Step {
    double slope;  // loss saved per bit
    size_t key;
    int64_t bits;
    double loss;  // saved
  };
  std::vector<Step> steps;
  SolverOption point;
  for (size_t k = 0; k < keys.size(); ++k) {
    Curve options(keys[k].begin(), keys[k].end());
    KeepEfficient(options);
    point.bits += options.front().bits;
    point.loss += options.front().loss;
    for (size_t i = 0; i + 1 < options.size();) {
      // The steepest of the steps to any later option; the furthest of several.
      size_t next = i + 1;
      double best = -1;
      for (size_t j = i + 1; j < options.size(); ++j) {
        const double slope = (options[i].loss - options[j].loss) / static_cast<double>(options[j].bits - options[i].bits);
        if (slope >= best) best = slope, next = j;
      }
      steps.push_back({best, k, options[next].bits - options[i].bits, options[i].loss - options[next].loss});
      i = next;
    }
  }
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) { return a.slope > b.slope; });
  Curve hull = {point};
  for (size_t i = 0; i < steps.size(); ++i) {
    point.bits += steps[i].bits;
    point.loss -= steps[i].loss;
    // Steps of one slope lie on one edge: only its end is a corner.
    if (i + 1 == steps.size() || steps[i + 1].slope < steps[i].slope) hull.push_back(point);
  }
  return hull;
}

}  // namespace
}  // namespace autoscheme
