#include "select/groups.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "base/status_macros.h"
#include "formats/layer_pattern.h"
#include "select/losses.h"

namespace autoscheme {
namespace {

using Group = std::vector<int>;

// An entry counts as a part of a name too, whether or not it is a valid expression.
class SharedPattern {
 public:
  explicit SharedPattern(const std::string& text) : text_(text), parsed_(LayerPattern::Parse(text, "shared_layers")) {}
  bool Matches(const std::string& name) const {
    return absl::StrContains(name, text_) || (parsed_.ok() && parsed_->Matches(name));
  }
  const absl::Status& status() const { return parsed_.status(); }

 private:
  std::string text_;
  absl::StatusOr<LayerPattern> parsed_;
};

bool Chosen(const LayerInfo& layer) { return !layer.fixed.has_value() && !layer.is_embedding; }

std::vector<Group> SharedGroups(const std::vector<LayerInfo>& layers,
                                const std::vector<std::vector<std::string>>& shared_layers);
std::vector<Group> ExpertGroups(const std::vector<LayerInfo>& layers);
std::vector<Group> Merge(size_t layer_count, const std::vector<Group>& groups);

}  // namespace

std::vector<std::vector<std::string>> RuntimeGroups(absl::string_view runtime, bool* known) {
  static const auto* const fused = new std::vector<std::vector<std::string>>{
      {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {"mlp.gate_proj", "mlp.up_proj"}};
  *known = true;
  for (const char* name : {"vllm", "sglang", "tensorrt-llm"}) {
    if (absl::EqualsIgnoreCase(runtime, name)) return *fused;
  }
  *known = absl::EqualsIgnoreCase(runtime, "llama.cpp");
  return {};
}

absl::Status CheckSharedLayers(const std::vector<LayerInfo>& layers,
                               const std::vector<std::vector<std::string>>& shared_layers) {
  for (const std::vector<std::string>& entries : shared_layers) {
    bool runtime = false;
    if (entries.size() == 1) RuntimeGroups(entries[0], &runtime);
    for (size_t i = 0; i < entries.size() && !runtime; ++i) {
      const SharedPattern pattern(entries[i]);
      if (entries[i].empty()) return pattern.status();
      const bool any = absl::c_any_of(layers, [&](const LayerInfo& layer) {
        return layer.name == entries[i] || (layer.block >= 0 && pattern.Matches(layer.name));
      });
      if (any) continue;
      AUTOSCHEME_RETURN_IF_ERROR(pattern.status());
      return SelectsNothing("shared_layers", entries[i], layers);
    }
  }
  return absl::OkStatus();
}

std::vector<LayerGroup> GroupLayers(const std::vector<LayerInfo>& layers,
                                    const std::vector<std::vector<std::string>>& requested) {
  std::vector<std::vector<std::string>> shared_layers;
  for (const std::vector<std::string>& entries : requested) {
    bool runtime = false;
    if (entries.size() == 1) {
      for (auto& group : RuntimeGroups(entries[0], &runtime)) shared_layers.push_back(std::move(group));
    }
    if (!runtime) shared_layers.push_back(entries);
  }
  std::vector<Group> groups = SharedGroups(layers, shared_layers);
  std::vector<bool> is_shared(layers.size(), false);
  for (const Group& group : groups) {
    for (int l : group) is_shared[l] = true;
  }
  for (Group& group : ExpertGroups(layers)) groups.push_back(std::move(group));
  std::vector<LayerGroup> result;
  std::vector<bool> grouped(layers.size(), false);
  for (const Group& group : Merge(layers.size(), groups)) {
    LayerGroup made;
    for (int l : group) {
      grouped[l] = true;
      made.shared = made.shared || is_shared[l];
      (Chosen(layers[l]) ? made.members : made.bystanders).push_back(l);
    }
    result.push_back(std::move(made));
  }
  for (size_t l = 0; l < layers.size(); ++l) {
    if (grouped[l] || !Chosen(layers[l])) continue;
    LayerGroup single;
    single.members.push_back(static_cast<int>(l));
    result.push_back(std::move(single));
  }
  return result;
}

namespace {

void SortByName(const std::vector<LayerInfo>& layers, Group* group) {
  std::sort(group->begin(), group->end(), [&](int a, int b) { return layers[a].name < layers[b].name; });
}

std::vector<Group> SharedGroups(const std::vector<LayerInfo>& layers,
                                const std::vector<std::vector<std::string>>& shared_layers) {
  absl::flat_hash_map<std::string, int> by_name;
  std::set<int> blocks;
  for (size_t l = 0; l < layers.size(); ++l) {
    by_name[layers[l].name] = static_cast<int>(l);
    if (layers[l].block >= 0) blocks.insert(layers[l].block);
  }
  // Groups of exact names come before those of patterns; those of patterns go block by block.
  std::vector<Group> exact_groups;
  std::map<int, std::vector<Group>> block_groups;
  for (const std::vector<std::string>& entries : shared_layers) {
    Group exact;
    std::map<int, std::set<int>> matched;  // by block
    bool any_pattern = false;
    for (const std::string& entry : entries) {
      if (const auto found = by_name.find(entry); found != by_name.end()) {
        exact.push_back(found->second);
        continue;
      }
      any_pattern = true;
      const SharedPattern pattern(entry);
      for (size_t l = 0; l < layers.size(); ++l) {
        if (layers[l].block >= 0 && pattern.Matches(layers[l].name))
          matched[layers[l].block].insert(static_cast<int>(l));
      }
    }
    if (!any_pattern) {
      if (!exact.empty()) exact_groups.push_back(std::move(exact));
      continue;
    }
    for (int block : blocks) {
      std::set<int> members = matched[block];
      members.insert(exact.begin(), exact.end());
      if (members.empty()) continue;
      Group group(members.begin(), members.end());
      SortByName(layers, &group);
      block_groups[block].push_back(std::move(group));
    }
  }
  for (auto& block : block_groups) {
    for (Group& group : block.second) exact_groups.push_back(std::move(group));
  }
  return exact_groups;
}

std::vector<Group> ExpertGroups(const std::vector<LayerInfo>& layers) {
  std::map<int, Group> by_block;
  for (size_t l = 0; l < layers.size(); ++l) {
    if (layers[l].block < 0 || layers[l].fixed.has_value() || !ExpertKey(layers[l].name).has_value()) continue;
    by_block[layers[l].block].push_back(static_cast<int>(l));
  }
  std::vector<Group> groups;
  for (auto& [block, group] : by_block) {
    if (group.size() < 2) continue;
    SortByName(layers, &group);
    groups.push_back(std::move(group));
  }
  return groups;
}

// Members in the order in which they are first seen; groups in the order of their first members.
std::vector<Group> Merge(size_t layer_count, const std::vector<Group>& groups) {
  std::vector<int> parent(layer_count);
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](int l) {
    while (parent[l] != l) l = parent[l] = parent[parent[l]];
    return l;
  };
  std::vector<int> seen;
  std::vector<bool> is_seen(layer_count, false);
  for (const Group& group : groups) {
    for (int l : group) {
      if (!is_seen[l]) seen.push_back(l);
      is_seen[l] = true;
      parent[root(l)] = root(group.front());
    }
  }
  std::vector<Group> merged;
  absl::flat_hash_map<int, size_t> index;
  for (int l : seen) {
    const auto [at, is_new] = index.try_emplace(root(l), merged.size());
    if (is_new) merged.emplace_back();
    merged[at->second].push_back(l);
  }
  return merged;
}

}  // namespace
}  // namespace autoscheme
