#include "autoscheme/pareto.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "base/status_macros.h"
#include "select/problem.h"
#include "select/relaxation.h"
#include "select/special_layers.h"

namespace autoscheme {
namespace {

using Curve = std::vector<SolverOption>;  // by rising bits, falling loss

void KeepEfficient(Curve& curve);
bool Combine(const Curve& curve, const SolverKey& key, int64_t most_bits, size_t most, Curve& sums);
Curve HullOf(const std::vector<SolverKey>& keys);
absl::StatusOr<Curve> AllEfficient(const Problem& problem, const std::vector<Regime>& regimes, size_t most,
                                   bool* complete, const Context& context);
Curve Corners(const Problem& problem, const std::vector<Regime>& regimes);

}  // namespace

absl::StatusOr<ParetoFront> FindParetoFront(const ScoreTable& table, const SelectOptions& options, int64_t max_points,
                                            const Context& context) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const Problem problem, MakeProblem(table, options, context));
  const std::vector<Regime> regimes = Regimes(problem);
  ParetoFront front;
  front.total_params = problem.total_params;
  const size_t most = static_cast<size_t>(std::max<int64_t>(max_points, 1));
  AUTOSCHEME_ASSIGN_OR_RETURN(Curve curve, AllEfficient(problem, regimes, most, &front.complete, context));
  if (!front.complete) curve = Corners(problem, regimes);
  for (size_t i = 0; i < curve.size(); ++i) {
    ParetoPoint point;
    point.total_bits = curve[i].bits + problem.fixed_bits;
    point.avg_bits = problem.Average(point.total_bits);
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

// All efficient choices that the rules allow, embeddings included; `complete` is false where they are more than `most`.
absl::StatusOr<Curve> AllEfficient(const Problem& problem, const std::vector<Regime>& regimes, size_t most,
                                   bool* complete, const Context& context) {
  *complete = false;
  Curve all, sums;
  for (const Regime& regime : regimes) {
    const FreeKeys left = KeysUnder(problem, regime.special);
    Curve curve(1);
    for (const SolverKey& key : left.keys) {
      AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
      if (!Combine(curve, key, regime.most - left.embedding_bits, most, sums)) return all;
      curve.swap(sums);
    }
    for (const SolverOption& sum : curve) {
      const int64_t bits = sum.bits + left.embedding_bits;
      if (bits >= regime.least) all.push_back({bits, sum.loss});
    }
  }
  KeepEfficient(all);
  *complete = all.size() <= most;
  return all;
}

// The least loss at that many bits on the line through a hull's corners; no choice lies below it.
double LineAt(const Curve& hull, int64_t bits) {
  const auto after =
      std::upper_bound(hull.begin(), hull.end(), bits, [](int64_t b, const SolverOption& o) { return b < o.bits; });
  if (after == hull.begin()) return std::numeric_limits<double>::infinity();
  const SolverOption& from = *std::prev(after);
  if (after == hull.end()) return from.loss;
  return from.loss - (from.loss - after->loss) * static_cast<double>(bits - from.bits) /
                         static_cast<double>(after->bits - from.bits);
}

// The corners of every regime's hull that no choice of any other regime can beat.
Curve Corners(const Problem& problem, const std::vector<Regime>& regimes) {
  std::vector<Curve> hulls;
  Curve all;
  for (const Regime& regime : regimes) {
    const FreeKeys left = KeysUnder(problem, regime.special);
    hulls.push_back(HullOf(left.keys));
    for (SolverOption& corner : hulls.back()) {
      corner.bits += left.embedding_bits;
      if (corner.bits >= regime.least && corner.bits <= regime.most) all.push_back(corner);
    }
  }
  KeepEfficient(all);
  const auto beaten = [&](const SolverOption& corner) {
    for (size_t r = 0; r < regimes.size(); ++r) {
      // More than the sums along a hull can be off.
      const double line = LineAt(hulls[r], std::min(corner.bits, regimes[r].most));
      if (line < corner.loss - 1e-9 * std::abs(hulls[r].front().loss)) return true;
    }
    return false;
  };
  all.erase(std::remove_if(all.begin(), all.end(), beaten), all.end());
  return all;
}

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

// All sums of the curve and the key's options that are efficient and within the bits; false when they are more than
// `most`.
bool Combine(const Curve& curve, const SolverKey& key, int64_t most_bits, size_t most, Curve& sums) {
  Curve options(key.begin(), key.end());
  KeepEfficient(options);
  sums.clear();
  sums.reserve(curve.size() * options.size());
  for (const SolverOption& option : options) {
    for (const SolverOption& point : curve) {
      if (point.bits + option.bits > most_bits) break;
      sums.push_back({point.bits + option.bits, point.loss + option.loss});
    }
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
