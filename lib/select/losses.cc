#include "select/losses.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "formats/bits.h"
#include "formats/scorer_names.h"

namespace autoscheme {
namespace {

constexpr double kIdle = 1e-12;  // below it a loss counts as none

void FillIdleExperts(const std::vector<LayerInfo>& layers, const std::vector<std::optional<std::string>>& experts,
                     std::vector<double>* losses);

}  // namespace

std::vector<std::vector<double>> MenuLosses(const ScoreTable& table, absl::Span<const int> menu) {
  std::vector<Scheme> schemes;
  for (int s : menu) schemes.push_back(table.schemes[s]);
  const bool two_terms = table.scorer == kTwoTermScorer;
  const bool weight_counts = NeedWeightTerm(schemes);
  std::vector<std::optional<std::string>> experts;
  for (const LayerInfo& layer : table.layers) experts.push_back(ExpertKey(layer.name));
  std::vector<std::vector<double>> losses;
  for (size_t k = 0; k < menu.size(); ++k) {
    std::vector<double> row(table.layers.size(), 0.0);
    for (size_t l = 0; l < row.size(); ++l) {
      const LayerInfo& layer = table.layers[l];
      if (layer.fixed.has_value() || layer.is_embedding || schemes[k].IsPassThrough()) continue;
      const LayerScore& score = table.scores[menu[k]][l];
      if (!two_terms || (weight_counts && schemes[k].QuantizesWeight())) row[l] += score.weight;
      if (!two_terms || schemes[k].QuantizesActivation()) row[l] += score.activation;
    }
    FillIdleExperts(table.layers, experts, &row);
    losses.push_back(std::move(row));
  }
  return losses;
}

std::optional<std::string> ExpertKey(absl::string_view layer) {
  constexpr absl::string_view kExperts = ".experts.";
  for (size_t at = layer.find(kExperts); at != absl::string_view::npos; at = layer.find(kExperts, at + 1)) {
    size_t end = at + kExperts.size();
    while (end < layer.size() && absl::ascii_isdigit(static_cast<unsigned char>(layer[end]))) ++end;
    if (end > at + kExperts.size() && (end == layer.size() || layer[end] == '.'))
      return std::string(layer.substr(0, end));
  }
  if (absl::StrContains(layer, ".moe.")) return std::string(layer.substr(0, layer.rfind('.')));
  return std::nullopt;
}

namespace {

void FillIdleExperts(const std::vector<LayerInfo>& layers, const std::vector<std::optional<std::string>>& experts,
                     std::vector<double>* losses) {
  std::map<int, std::map<std::string, std::vector<size_t>>> blocks;
  for (size_t l = 0; l < layers.size(); ++l) {
    if (layers[l].block < 0 || layers[l].fixed.has_value() || !experts[l].has_value()) continue;
    if (std::isfinite((*losses)[l])) blocks[layers[l].block][*experts[l]].push_back(l);
  }
  for (const auto& block : blocks) {
    double sum_of_means = 0;
    int active = 0;
    std::vector<size_t> idle;
    for (const auto& expert : block.second) {
      double sum = 0;
      int count = 0;
      for (size_t l : expert.second) {
        if (std::abs((*losses)[l]) < kIdle) continue;
        sum += (*losses)[l];
        ++count;
      }
      if (count == 0) {
        idle.insert(idle.end(), expert.second.begin(), expert.second.end());
      } else {
        sum_of_means += sum / count;
        ++active;
      }
    }
    if (active == 0) continue;
    for (size_t l : idle) (*losses)[l] = sum_of_means / active;
  }
}

}  // namespace
}  // namespace autoscheme
