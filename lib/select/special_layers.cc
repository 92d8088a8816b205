#include "select/special_layers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "scheme/rules.h"

namespace autoscheme {
namespace {

int64_t EmbeddingBits(const Problem& problem, int k) {
  int64_t bits = 0;
  for (int l : problem.embeddings) bits += problem.bits[k][l];
  return bits;
}

bool Contains(const std::vector<int>& values, int value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

void LimitHead(const Problem& problem, double target, int64_t budget, std::vector<SolverKey>* keys,
               std::vector<std::vector<int>>* options) {
  if (problem.head_group < 0) return;
  const int menu_size = static_cast<int>(problem.menu.size());
  std::vector<int> wide, allowed;
  for (int k = 0; k < menu_size; ++k) {
    if (problem.scheme(k).bits >= 6) wide.push_back(k);
  }
  if (wide.empty()) {
    allowed = {problem.by_loss[0]};
  } else if (wide.size() > 1 && target > 6) {
    allowed = {*std::max_element(wide.begin(), wide.end(),
                                 [&](int a, int b) { return problem.scheme(a).bits < problem.scheme(b).bits; })};
  } else {
    allowed = wide;
  }
  SolverKey& key = (*keys)[problem.head_group];
  std::vector<int>& kept = (*options)[problem.head_group];
  int64_t least_head = std::numeric_limits<int64_t>::max();
  for (const SolverOption& option : key) least_head = std::min(least_head, option.bits);
  const int64_t others = problem.LeastGroupBits() - least_head;
  const int head = problem.groups[problem.head_group][0];
  const auto fits = [&] {
    return std::any_of(allowed.begin(), allowed.end(),
                       [&](int k) { return Contains(kept, k) && others + problem.bits[k][head] <= budget; });
  };
  for (size_t i = 0; i < problem.by_loss.size() && !fits(); ++i) allowed.push_back(problem.by_loss[i]);

  SolverKey narrow;
  std::vector<int> narrow_options;
  for (size_t j = 0; j < kept.size(); ++j) {
    if (!Contains(allowed, kept[j])) continue;
    narrow.push_back(key[j]);
    narrow_options.push_back(kept[j]);
  }
  if (narrow.empty()) return;
  key = std::move(narrow);
  kept = std::move(narrow_options);
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
    if (target <= 6) take([&](int k) { return bits(k) <= 6; });
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
  int64_t weights = 0;
  for (int l : problem.embeddings) {
    weights += problem.table->layers[l].out_features * problem.table->layers[l].in_features;
  }
  // The reference looks at bits x weights alone and may then find that the scales do not fit; here both must.
  const int64_t left = budget - problem.LeastGroupBits();
  const auto fits = [&](int k) { return bits(k) * weights <= left && EmbeddingBits(problem, k) <= left; };
  for (int k : candidates) {
    if (fits(k)) return k;
  }
  int cheapest = -1, cheapest_fitting = -1;
  for (int k = 0; k < menu_size; ++k) {
    if (cheapest < 0 || bits(k) < bits(cheapest)) cheapest = k;
    if (fits(k) && (cheapest_fitting < 0 || bits(k) < bits(cheapest_fitting))) cheapest_fitting = k;
  }
  return cheapest_fitting >= 0 ? cheapest_fitting : cheapest;
}

std::optional<Scheme> GgufFallback(const Scheme& scheme, const LayerInfo& layer) {
  if (!IsGgufKType(scheme) || layer.in_features % 256 == 0) return std::nullopt;
  if (layer.in_features % 32 != 0) {
    Scheme plain = scheme;
    plain.name = "GGUF:BF16";
    plain.bits = 16;
    plain.sym = true;
    plain.data_type = "int_sym_dq";
    plain.super_bits.reset();
    plain.super_group_size.reset();
    return plain;
  }
  const char* suffixes[2] = {scheme.sym ? "_0" : "_1", scheme.sym ? "_1" : "_0"};
  for (const char* suffix : suffixes) {
    if (layer.is_embedding) break;
    absl::StatusOr<Scheme> found = FindScheme(absl::StrCat("GGUF:Q", scheme.bits, suffix));
    if (found.ok()) return *std::move(found);
  }
  absl::StatusOr<Scheme> found = FindScheme(scheme.bits == 6 ? "GGUF:Q8_0" : "GGUF:Q5_0");
  if (found.ok()) return *std::move(found);
  return std::nullopt;
}

}  // namespace autoscheme
