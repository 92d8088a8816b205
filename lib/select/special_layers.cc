#include "select/special_layers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/container/flat_hash_set.h"

namespace autoscheme {
namespace {

constexpr int kWideBits = 6;      // what the head should have at least, and a tied embedding at most
constexpr int kMostAverage = 32;  // no scheme has more bits

bool Contains(const std::vector<int>& values, int value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

int ChooseEmbedding(const Problem& problem, double target, int64_t budget);
std::vector<int> HeadOptions(const Problem& problem, double target, int64_t budget);
int64_t BitsBesideHead(const Problem& problem);
std::vector<int64_t> RuleSteps(const Problem& problem);

}  // namespace

SpecialLayers ApplyRules(const Problem& problem, double avg_bits, int64_t budget) {
  SpecialLayers special;
  if (!problem.embeddings.empty()) {
    special.embedding = ChooseEmbedding(problem, avg_bits, budget);
    budget -= problem.EmbeddingBits(special.embedding);
  }
  if (problem.head_group >= 0) special.head = HeadOptions(problem, avg_bits, budget);
  return special;
}

std::vector<Regime> Regimes(const Problem& problem) {
  std::vector<int64_t> ends = RuleSteps(problem);
  ends.push_back(std::max((kMostAverage + 1) * problem.total_params, problem.MostBits()));
  std::sort(ends.begin(), ends.end());
  std::vector<Regime> regimes;
  int64_t least = problem.LeastBits() - problem.fixed_bits;
  for (const int64_t end : ends) {
    if (end < least) continue;
    Regime regime{ApplyRules(problem, problem.Average(end + problem.fixed_bits), end), least, end};
    least = end + 1;
    if (!problem.reference_rules) {
      regime.least = 0;
      const auto known = std::find_if(regimes.begin(), regimes.end(),
                                      [&](const Regime& other) { return other.special == regime.special; });
      if (known != regimes.end()) regimes.erase(known);
    }
    regimes.push_back(std::move(regime));
  }
  return regimes;
}

FreeKeys KeysUnder(const Problem& problem, const SpecialLayers& special) {
  FreeKeys left{problem.keys, problem.options, 0};
  if (special.embedding >= 0) left.embedding_bits = problem.EmbeddingBits(special.embedding);
  if (problem.head_group < 0) return left;
  SolverKey& key = left.keys[problem.head_group];
  std::vector<int>& options = left.options[problem.head_group];
  size_t kept = 0;
  for (size_t j = 0; j < options.size(); ++j) {
    if (!Contains(special.head, options[j])) continue;
    key[kept] = key[j], options[kept] = options[j];
    ++kept;
  }
  key.resize(kept), options.resize(kept);
  return left;
}

namespace {

// What the other groups take at least.
int64_t BitsBesideHead(const Problem& problem) {
  int64_t least_head = std::numeric_limits<int64_t>::max();
  for (const SolverOption& option : problem.keys[problem.head_group]) least_head = std::min(least_head, option.bits);
  return problem.least_group_bits - least_head;
}

// Budgets up to which the rules may say one thing and beyond which another, in no order.
std::vector<int64_t> RuleSteps(const Problem& problem) {
  absl::flat_hash_set<int64_t> steps;
  if (problem.embeddings.empty() && problem.head_group < 0) return {};
  const int menu_size = static_cast<int>(problem.menu.size());
  steps.insert(kWideBits * problem.total_params - problem.fixed_bits);
  for (int bits = 1; bits <= kMostAverage; ++bits) steps.insert(bits * problem.total_params - 1 - problem.fixed_bits);
  for (int k = 0; k < menu_size && !problem.embeddings.empty(); ++k) {
    steps.insert(problem.least_group_bits + problem.EmbeddingBits(k) - 1);
  }
  if (problem.head_group < 0) return {steps.begin(), steps.end()};
  absl::flat_hash_set<int64_t> embedding_bits = {0};
  for (int k = 0; k < menu_size; ++k) embedding_bits.insert(problem.EmbeddingBits(k));
  for (const SolverOption& option : problem.keys[problem.head_group]) {
    for (const int64_t bits : embedding_bits) steps.insert(BitsBesideHead(problem) + option.bits + bits - 1);
  }
  return {steps.begin(), steps.end()};
}

std::vector<int> HeadOptions(const Problem& problem, double target, int64_t budget) {
  const int menu_size = static_cast<int>(problem.menu.size());
  std::vector<int> wide, allowed;
  for (int k = 0; k < menu_size; ++k) {
    if (problem.scheme(k).bits >= kWideBits) wide.push_back(k);
  }
  if (wide.empty()) {
    allowed = {problem.by_loss[0]};
  } else if (wide.size() > 1 && target > kWideBits) {
    allowed = {*std::max_element(wide.begin(), wide.end(),
                                 [&](int a, int b) { return problem.scheme(a).bits < problem.scheme(b).bits; })};
  } else {
    allowed = wide;
  }
  const std::vector<int>& kept = problem.options[problem.head_group];
  const SolverKey& key = problem.keys[problem.head_group];
  const int64_t left = budget - BitsBesideHead(problem);
  const auto fits = [&] {
    for (size_t j = 0; j < kept.size(); ++j) {
      if (key[j].bits <= left && Contains(allowed, kept[j])) return true;
    }
    return false;
  };
  for (size_t i = 0; i < problem.by_loss.size() && !fits(); ++i) allowed.push_back(problem.by_loss[i]);
  std::vector<int> narrow;
  for (int k : kept) {
    if (Contains(allowed, k)) narrow.push_back(k);
  }
  return narrow.empty() ? kept : narrow;
}

int ChooseEmbedding(const Problem& problem, double target, int64_t budget) {
  const int menu_size = static_cast<int>(problem.menu.size());
  const auto bits = [&](int k) { return problem.scheme(k).bits; };
  std::vector<int> candidates;
  const auto take = [&](auto wanted) {
    for (int k : problem.by_loss) {
      if (wanted(k)) candidates.push_back(k);
    }
  };
  if (problem.table->tied_head) {
    if (target <= kWideBits) take([&](int k) { return bits(k) <= kWideBits; });
    if (candidates.empty()) candidates = problem.by_loss;
  } else {
    const int floor = static_cast<int>(std::floor(target));
    take([&](int k) { return bits(k) == floor; });
    if (candidates.empty()) {
      int next = std::numeric_limits<int>::max();
      for (int k = 0; k < menu_size; ++k) {
        if (bits(k) > floor) next = std::min(next, bits(k));
      }
      take([&](int k) { return bits(k) == next; });
    }
    candidates.insert(candidates.end(), problem.by_loss.begin(), problem.by_loss.end());
  }
  const int64_t left = budget - problem.least_group_bits;
  for (int k : candidates) {
    if (problem.EmbeddingBits(k) <= left) return k;
  }
  // The smallest: of those that fit, or of all.
  int smallest = 0;
  const auto smaller = [&](int a, int b) {
    const bool a_fits = problem.EmbeddingBits(a) <= left, b_fits = problem.EmbeddingBits(b) <= left;
    if (a_fits != b_fits) return a_fits;
    return problem.reference_rules ? bits(a) < bits(b) : problem.EmbeddingBits(a) < problem.EmbeddingBits(b);
  };
  for (int k = 1; k < menu_size; ++k) {
    if (smaller(k, smallest)) smallest = k;
  }
  return smallest;
}

}  // namespace
}  // namespace autoscheme
