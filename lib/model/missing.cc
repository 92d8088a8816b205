#include "model/missing.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/count.h"
#include "base/io.h"
#include "model/ignored.h"

namespace autoscheme {
namespace {

using Names = absl::Span<const std::string>;

template <typename Predicate>
std::vector<std::string> Where(Names names, Predicate predicate) {
  std::vector<std::string> found;
  std::copy_if(names.begin(), names.end(), std::back_inserter(found), predicate);
  return found;
}

bool IsOfMeta(absl::string_view name) { return HasPart(name, {".tok_embeddings.", ".attention.wq."}); }

// "q_proj" of "model.layers.0.self_attn.q_proj.weight".
absl::string_view LayerOf(absl::string_view weight) {
  const absl::string_view path = absl::StripSuffix(weight, ".weight");
  return path.substr(path.rfind('.') + 1);
}

// Layers that read a sublayer's input: families split or fuse them in different ways.
bool IsInputLayer(absl::string_view name) {
  static constexpr absl::string_view kLayers[] = {
      "q_proj",    "k_proj",  "v_proj", "qkv_proj",     "c_attn", "query_key_value", "Wqkv",         "W_pack",
      "gate_proj", "up_proj", "c_fc",   "gate_up_proj", "fc1",    "fc_in",           "dense_h_to_4h"};
  return absl::EndsWith(name, ".weight") && absl::c_linear_search(kLayers, LayerOf(name));
}

// The weights of input layers that this model has under no name, where it lacks as many of its own as it has blocks.
std::vector<std::string> OtherLayout(Names missing, Names unused, const ModelSpec& spec) {
  if (Where(missing, IsInputLayer).size() < spec.blocks.size()) return {};
  absl::flat_hash_set<absl::string_view> own;
  for (const LinearSpec& linear : spec.blocks.front().linears) own.insert(LayerOf(linear.name));
  return Where(unused, [&](const std::string& name) { return IsInputLayer(name) && !own.contains(LayerOf(name)); });
}

// Tensors that are asked for under one prefix, what stands before "layers.0" in a block's name, and are there under
// others.
struct OtherPrefix {
  std::string asked;
  std::vector<std::string> given, tensors;
  std::string Text() const;
};

// Each prefix under which most of the missing tensors are, and these tensors, by prefix.
OtherPrefix FindOtherPrefix(Names missing, Names unused, const std::string& block) {
  OtherPrefix other;
  other.asked = block.substr(0, block.rfind('.', block.rfind('.') - 1) + 1);
  const std::string blocks = block.substr(other.asked.size()) + ".";
  const absl::flat_hash_set<std::string> there(unused.begin(), unused.end());
  absl::flat_hash_set<std::string> tried;
  for (const std::string& name : unused) {
    const size_t end = absl::StartsWith(name, blocks) ? 0 : name.find("." + blocks) + 1;
    if ((end == 0 && !absl::StartsWith(name, blocks)) || !tried.insert(name.substr(0, end)).second) continue;
    const std::string given = name.substr(0, end);
    std::vector<std::string> renamed;
    for (const std::string& asked : missing) {
      const std::string as_given = given + std::string(absl::StripPrefix(asked, other.asked));
      if (absl::StartsWith(asked, other.asked) && there.contains(as_given)) renamed.push_back(as_given);
    }
    if (2 * renamed.size() <= missing.size()) continue;
    other.given.push_back(given);
    other.tensors.insert(other.tensors.end(), renamed.begin(), renamed.end());
  }
  return other;
}

std::string OtherPrefix::Text() const {
  const auto prefix = [](const std::string& text) { return text.empty() ? "no prefix" : "the prefix " + Quoted(text); };
  if (given.size() == 1) {
    return absl::StrCat("; the same names are there with ", prefix(given[0]), ": give them ", prefix(asked));
  }
  return absl::StrCat("; the same names are there ", Count(given.size(), "time"), ", with the prefixes ",
                      FirstNames(given), ": give those of the copy that you mean ", prefix(asked));
}

}  // namespace

absl::Status DiagnoseMissing(Names missing, Names unused, const ModelSpec& spec) {
  std::vector<std::string> found;
  const auto told = [&](absl::string_view meaning, absl::StatusCode code = absl::StatusCode::kNotFound) {
    return absl::Status(code, absl::StrCat("; it holds ", Count(found.size(), "tensor"),
                                           " that config.json does not ask for: ", FirstNames(found, 3), meaning));
  };
  if (found = Where(unused, IsOfQuantized); !found.empty()) {
    return told("; the checkpoint is quantized already: give the original 16- or 32-bit one",
                absl::StatusCode::kUnimplemented);
  }
  if (missing.empty()) return absl::NotFoundError("");
  if (found = Where(unused, IsOfAdapter); !found.empty()) {
    return told("; an adapter (LoRA) is not merged: merge the adapter first", absl::StatusCode::kUnimplemented);
  }
  if (found = Where(unused, IsOfMeta); !found.empty()) {
    return told("; these are Meta's original names: convert with transformers' convert script");
  }
  const OtherPrefix other = FindOtherPrefix(missing, unused, spec.blocks.front().name);
  if (found = other.tensors; !found.empty()) return told(other.Text());
  if (found = OtherLayout(missing, unused, spec); !found.empty()) {
    return told(absl::StrCat("; the weights are of another family's layout: is model_type ", Quoted(spec.model_type),
                             " right?"));
  }
  if (found = Where(unused, IsOfOtherHead); !found.empty()) {
    return told("; a model without a language head (a classifier or reward model)");
  }
  absl::string_view meaning;
  if (missing.front() == spec.head.name + ".weight") {
    meaning =
        "; config.json says tie_word_embeddings false: set it to true if the head is the embedding, else the download "
        "lacks a tensor";
  }
  found = Where(unused, [](const std::string& name) { return !IsBuffer(name); });
  return found.empty() ? absl::NotFoundError(meaning) : told(meaning);
}

}  // namespace autoscheme
