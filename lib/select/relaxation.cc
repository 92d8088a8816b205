#include "select/relaxation.h"

#include <algorithm>
#include <tuple>

namespace autoscheme {

Relaxation Relax(absl::Span<const SolverKey> keys, int64_t budget) {
  Relaxation result;
  std::vector<HullStep> steps;
  int64_t bits = 0;
  double loss = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    Hull hull = LowerHull(static_cast<int>(i), keys[i]);
    result.greedy.push_back(hull.base);
    bits += keys[i][hull.base].bits;
    loss += keys[i][hull.base].loss;
    steps.insert(steps.end(), hull.steps.begin(), hull.steps.end());
  }
  // Along one key values decrease, so a stable order keeps its steps in sequence.
  std::stable_sort(steps.begin(), steps.end(),
                   [](const HullStep& a, const HullStep& b) { return a.value() > b.value(); });
  result.bound = loss;
  bool fractional = false;
  for (const HullStep& step : steps) {
    const bool fits = bits + step.bits <= budget;
    if (!fits && !fractional) {
      fractional = true;
      result.multiplier = step.value();
      result.bound = loss - step.value() * static_cast<double>(budget - bits);
    }
    if (!fits || result.greedy[step.key] != step.from) continue;
    bits += step.bits;
    loss -= step.loss;
    result.greedy[step.key] = step.to;
    if (!fractional) result.bound = loss;
  }
  for (size_t i = 0; i < keys.size(); ++i) result.greedy_loss += keys[i][result.greedy[i]].loss;
  return result;
}

Hull LowerHull(int key, const SolverKey& options) {
  std::vector<int> order(options.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = static_cast<int>(k);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return std::make_tuple(options[a].bits, options[a].loss, a) < std::make_tuple(options[b].bits, options[b].loss, b);
  });
  std::vector<int> corners;
  const auto value = [&](int from, int to) {
    return (options[from].loss - options[to].loss) / static_cast<double>(options[to].bits - options[from].bits);
  };
  for (int k : order) {
    if (!corners.empty() && options[k].loss >= options[corners.back()].loss) continue;
    while (corners.size() >= 2 && value(corners[corners.size() - 2], corners.back()) <= value(corners.back(), k)) {
      corners.pop_back();
    }
    corners.push_back(k);
  }
  Hull hull;
  hull.base = corners.front();
  for (size_t c = 1; c < corners.size(); ++c) {
    const SolverOption &from = options[corners[c - 1]], &to = options[corners[c]];
    hull.steps.push_back({key, corners[c - 1], corners[c], to.bits - from.bits, from.loss - to.loss});
  }
  return hull;
}

}  // namespace autoscheme
