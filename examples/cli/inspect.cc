// inspect and schemes: what there is, before anything runs.
#include <cstdio>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "commands.h"
#include "printable.h"
#include "progress.h"
#include "report.h"

namespace cli {
namespace {

// "model.layers.12.mlp.up_proj" in block "model.layers.12" -> "mlp.up_proj".
std::string NameInBlock(const std::string& layer, const std::string& block) {
  const bool inside = layer.size() > block.size() && layer.compare(0, block.size(), block) == 0;
  return inside ? layer.substr(block.size() + 1) : layer;
}

struct Kind {
  int64_t count = 0;
  int64_t weights = 0;
};

// Layers of the same name and shape in one row.
absl::Status PrintLayers(const autoscheme_skeleton* skeleton, int64_t layer_count) {
  std::vector<std::vector<std::string>> order;
  std::map<std::vector<std::string>, Kind> kinds;
  for (int64_t i = 0; i < layer_count; ++i) {
    auto layer = Struct<autoscheme_layer_info>();
    CLI_RETURN_IF_ERROR(
        Call([&](autoscheme_error** error) { return autoscheme_skeleton_get_layer(skeleton, i, &layer, error); }));
    std::string name = layer.name;
    if (layer.block >= 0) {
      auto block = Struct<autoscheme_block_info>();
      CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
        return autoscheme_skeleton_get_block(skeleton, layer.block, &block, error);
      }));
      name = NameInBlock(name, block.name);
    }
    const std::vector<std::string> key = {absl::StrCat("  ", name),
                                          absl::StrCat(layer.out_features, " x ", layer.in_features),
                                          layer.has_bias == 1 ? "yes" : "no"};
    if (kinds.count(key) == 0) order.push_back(key);
    kinds[key].count += 1;
    kinds[key].weights += layer.out_features * layer.in_features;
  }
  Table table;
  table.Add({"  layer", "out x in", "bias", "count", "weights"});
  for (const auto& key : order) {
    table.Add({key[0], key[1], key[2], absl::StrCat(kinds[key].count), HumanCount(kinds[key].weights)});
  }
  absl::PrintF("%s", table.ToString());
  return absl::OkStatus();
}

std::string OrDash(int32_t value) { return value == AUTOSCHEME_UNSET ? "-" : absl::StrCat(value); }

std::string Group(int32_t size, int32_t rows) {
  if (size == AUTOSCHEME_UNSET) return "-";
  if (rows > 0) return absl::StrCat(rows, "x", size);
  if (size == -1) return "row";
  if (size == 0) return "tensor";
  return absl::StrCat(size);
}

}  // namespace

absl::Status Inspect(Session& session) {
  const auto reporting = Reporting::Start(session.flags, session.context.get());
  if (!reporting.ok()) return reporting.status();
  SkeletonHandle skeleton;
  CLI_RETURN_IF_ERROR(Make(skeleton, [&](autoscheme_skeleton** out, autoscheme_error** error) {
    return autoscheme_skeleton_open(session.context.get(), session.flags.Get("model").c_str(), out, error);
  }));
  if (session.flags.Has("json")) {
    const char* json = nullptr;
    CLI_RETURN_IF_ERROR(Call(
        [&](autoscheme_error** error) { return autoscheme_skeleton_json(skeleton.get(), &json, nullptr, error); }));
    absl::PrintF("%s\n", json);
    return absl::OkStatus();
  }
  auto info = Struct<autoscheme_skeleton_info>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_skeleton_get_info(skeleton.get(), &info, error); }));
  uint64_t largest = 0;
  for (int64_t i = 0; i < info.block_count; ++i) {
    auto block = Struct<autoscheme_block_info>();
    CLI_RETURN_IF_ERROR(Call(
        [&](autoscheme_error** error) { return autoscheme_skeleton_get_block(skeleton.get(), i, &block, error); }));
    if (block.bytes > largest) largest = block.bytes;
  }
  absl::PrintF("model       %s\n", Printable(info.directory));
  absl::PrintF("type        %s\n", Printable(info.model_type));
  absl::PrintF("parameters  %s in %s, %s\n", HumanCount(info.total_params), Count(info.tensor_count, "tensor"),
               HumanBytes(info.total_bytes));
  absl::PrintF("blocks      %d, the largest %s\n", info.block_count, HumanBytes(largest));
  absl::PrintF("hidden      %d\n", info.hidden_size);
  absl::PrintF("vocabulary  %d, head %s\n", info.vocab_size, info.tied_head != 0 ? "tied to the embedding" : "untied");
  absl::PrintF("\nquantizable layers (%d)\n", info.layer_count);
  return PrintLayers(skeleton.get(), info.layer_count);
}

absl::Status Schemes(Session&) {
  Table table;
  table.Add({"scheme", "bits", "group", "sym", "data type", "act bits", "act group", "act data type"});
  for (int64_t i = 0; i < autoscheme_scheme_count(); ++i) {
    auto scheme = Struct<autoscheme_scheme_info>();
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) { return autoscheme_scheme_get(i, &scheme, error); }));
    table.Add({scheme.name, absl::StrCat(scheme.bits), Group(scheme.group_size, scheme.group_rows),
               scheme.sym != 0 ? "yes" : "no", scheme.data_type, OrDash(scheme.act_bits),
               Group(scheme.act_group_size, scheme.act_group_rows),
               scheme.act_data_type == nullptr ? "-" : scheme.act_data_type});
  }
  absl::PrintF("%s", table.ToString());
  return absl::OkStatus();
}

}  // namespace cli
