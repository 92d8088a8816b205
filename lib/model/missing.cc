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
  return HasPart(name, {".qweight.", ".qzeros.", ".g_idx.", ".weight_packed.", ".weight_scale", ".absmax.",
                        ".quant_state.", ".SCB."});
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

// The tensors under the prefix `given` where most of the missing ones are, which the model asks for under `asked`: what
// stands before "layers.0", the end of `block`. Sets both.
std::vector<std::string> OtherPrefix(Names missing, Names unused, const std::string& block, std::string& asked,
                                     std::string& given) {
  asked = block.substr(0, block.rfind('.', block.rfind('.') - 1) + 1);
  const std::string blocks = block.substr(asked.size()) + ".";
  const absl::flat_hash_set<std::string> there(unused.begin(), unused.end());
  absl::flat_hash_set<std::string> tried;
  const auto renamed = [&](const std::string& name) {
    return absl::StartsWith(name, asked) && there.contains(given + name.substr(asked.size()));
  };
  for (const std::string& name : unused) {
    const size_t end = name.find(blocks);
    if (end == std::string::npos || !tried.insert(name.substr(0, end)).second) continue;
    given = name.substr(0, end);
    if (2 * Where(missing, renamed).size() <= missing.size()) continue;
    return Where(unused, [&](const std::string& other) { return absl::StartsWith(other, given); });
  }
  return {};
}

}  // namespace

absl::Status DiagnoseMissing(Names missing, Names unused, const ModelSpec& spec) {
  std::vector<std::string> found;
  std::string asked, given;
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
  if (found = OtherPrefix(missing, unused, spec.blocks.front().name, asked, given); !found.empty()) {
    return told(absl::StrCat("; the same names are there ",
                             given.empty() ? "with no prefix" : "under the prefix " + Quoted(given), ", and a ",
                             spec.model_type, " model has the prefix ", Quoted(asked)));
  }
  if (found = OtherLayout(missing, unused, spec); !found.empty()) {
    return told(absl::StrCat("; the weights are of another family's layout: is model_type ", Quoted(spec.model_type),
                             " right?"));
  }
  if (found = Where(unused, IsOfOtherHead); !found.empty()) {
    return told("; a model without a language head (a classifier or reward model)");
  }
  if (missing.front() == spec.head.name + ".weight") {
    return absl::NotFoundError(
        "; config.json says tie_word_embeddings false: set it to true if the head is the embedding, else the download "
        "lacks a tensor");
  }
  found = Where(unused, [](const std::string& name) { return !IsBuffer(name); });
  return found.empty() ? absl::NotFoundError("") : told("");
}

}  // namespace autoscheme
