#include "select/relaxation.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace autoscheme {
namespace {

// Appends the steps of one key; the result is the option that they start from.
int AddHull(int key, const SolverKey& options, std::vector<HullStep>* steps) {
  std::vector<int> order(options.size());
  std::iota(order.begin(), order.end(), 0);
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
  for (size_t c = 1; c < corners.size(); ++c) {
    const SolverOption &from = options[corners[c - 1]], &to = options[corners[c]];
    steps->push_back({key, corners[c - 1], corners[c], to.bits - from.bits, from.loss - to.loss});
  }
  return corners.front();
}

}  // namespace

Hulls LowerHulls(absl::Span<const SolverKey> keys) {
  Hulls hulls;
  for (size_t i = 0; i < keys.size(); ++i) {
    const int base = AddHull(static_cast<int>(i), keys[i], &hulls.steps);
    hulls.base.push_back(base);
    hulls.cost.bits += keys[i][base].bits;
    hulls.cost.loss += keys[i][base].loss;
  }
  std::stable_sort(hulls.steps.begin(), hulls.steps.end(),
                   [](const HullStep& a, const HullStep& b) { return a.value() > b.value(); });
  return hulls;
}

Relaxation Relax(absl::Span<const SolverKey> keys, int64_t budget) {
  const Hulls hulls = LowerHulls(keys);
  Relaxation result;
  result.greedy = hulls.base;
  auto [bits, loss] = hulls.cost;
  result.bound = loss;
  bool fractional = false;
  for (const HullStep& step : hulls.steps) {
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

}  // namespace autoscheme
