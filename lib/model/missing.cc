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

bool IsOfQuantized(absl::string_view name) {
  for (const char* part : {".qweight", ".qzeros", ".g_idx", ".weight_packed", ".weight_scale", ".absmax",
                           ".nested_absmax", ".quant_state", ".SCB"}) {
    if (absl::StrContains(name, part)) return true;
  }
  return false;
}

bool IsOfMeta(absl::string_view name) {
  return absl::StartsWith(name, "tok_embeddings.") || absl::StrContains(name, ".attention.wq.");
}

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

struct Prefixes {
  std::string asked, given;
  size_t tensors = 0;  // missing ones that are there under `given`
};

// The prefix before "layers.0" under which most of the missing tensors are.
Prefixes OtherPrefix(Names missing, Names unused, const ModelSpec& spec) {
  Prefixes best;
  const std::string& block = spec.blocks.front().name;
  const size_t blocks_end = block.rfind('.');
  best.asked = block.substr(0, block.rfind('.', blocks_end - 1) + 1);
  const auto first = std::find_if(missing.begin(), missing.end(), [&](const std::string& name) {
    return absl::StartsWith(name, block.substr(0, blocks_end + 1));
  });
  if (first == missing.end()) return best;
  const std::string tail = first->substr(best.asked.size());
  const absl::flat_hash_set<std::string> there(unused.begin(), unused.end());
  for (const std::string& name : unused) {
    if (name != tail && !absl::EndsWith(name, "." + tail)) continue;
    const std::string given = name.substr(0, name.size() - tail.size());
    const size_t tensors =
        Where(missing, [&](const std::string& asked) {
          return absl::StartsWith(asked, best.asked) && there.contains(given + asked.substr(best.asked.size()));
        }).size();
    if (tensors > best.tensors) best = {best.asked, given, tensors};
  }
  return best;
}

std::string Found(const std::vector<std::string>& names, absl::string_view meaning) {
  return absl::StrCat("it holds ", Count(names.size(), "tensor"),
                      " that config.json does not ask for: ", FirstNames(names, 3), meaning.empty() ? "" : "; ",
                      meaning);
}

}  // namespace

Diagnosis DiagnoseMissing(Names missing, Names unused, const ModelSpec& spec) {
  std::vector<std::string> found = Where(unused, IsOfQuantized);
  if (!found.empty()) {
    return {absl::StatusCode::kUnimplemented,
            Found(found, "the checkpoint is quantized already: give the original 16- or 32-bit one")};
  }
  if (missing.empty()) return {};
  if (found = Where(unused, IsOfAdapter); !found.empty()) {
    return {absl::StatusCode::kUnimplemented, Found(found, "an adapter (LoRA) is not merged: merge the adapter first")};
  }
  Diagnosis result;
  const Prefixes prefixes = OtherPrefix(missing, unused, spec);
  if (found = Where(unused, IsOfMeta); !found.empty()) {
    result.text = Found(found,
                        "these are Meta's original names: convert with transformers' convert script "
                        "(convert_llama_weights_to_hf.py)");
  } else if (2 * prefixes.tensors > missing.size()) {
    found = Where(unused, [&](const std::string& name) { return absl::StartsWith(name, prefixes.given); });
    result.text = Found(
        found, absl::StrCat("the same names are there ",
                            prefixes.given.empty() ? "with no prefix" : "under the prefix " + Quoted(prefixes.given),
                            ", and a ", spec.model_type, " model has the prefix ", Quoted(prefixes.asked),
                            ": rename the tensors, or save the language model by itself"));
  } else if (found = OtherLayout(missing, unused, spec); !found.empty()) {
    result.text = Found(found, absl::StrCat("the weights are of another family's layout: is model_type ",
                                            Quoted(spec.model_type), " right?"));
  } else if (found = Where(unused, IsOfOtherHead); !found.empty()) {
    result.text = Found(found, "a model without a language head (a classifier or reward model)");
  } else if (missing.front() == spec.head.name + ".weight") {
    result.text =
        "config.json says tie_word_embeddings false: set it to true if the head is the embedding, else the download "
        "lacks a tensor";
  } else if (found = Where(unused, [](const std::string& name) { return !IsBuffer(name); }); !found.empty()) {
    result.text = Found(found, "");
  }
  return result;
}

}  // namespace autoscheme
