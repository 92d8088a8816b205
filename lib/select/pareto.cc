#include "autoscheme/pareto.h"

#include <algorithm>

#include "base/status_macros.h"
#include "select/problem.h"
#include "select/relaxation.h"

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
      point.marginal_value =
          (curve[i].loss - curve[i + 1].loss) / static_cast<double>(curve[i + 1].bits - curve[i].bits);
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
  const Hulls hulls = LowerHulls(keys);
  SolverOption point = hulls.cost;
  Curve hull = {point};
  for (size_t i = 0; i < hulls.steps.size(); ++i) {
    point.bits += hulls.steps[i].bits;
    point.loss -= hulls.steps[i].loss;
    // Steps of one value lie on one edge: only its end is a corner.
    if (i + 1 == hulls.steps.size() || hulls.steps[i + 1].value() < hulls.steps[i].value()) hull.push_back(point);
  }
  return hull;
}

}  // namespace
}  // namespace autoscheme
