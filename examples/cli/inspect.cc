// inspect and schemes: what there is, before anything runs.
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "commands.h"
#include "model_tree.h"
#include "printable.h"
#include "progress.h"
#include "report.h"

namespace cli {
namespace {

std::string OrDash(int32_t value) { return value == AUTOSCHEME_UNSET ? "-" : absl::StrCat(value); }

std::string Group(int32_t size, int32_t rows) {
  if (size == AUTOSCHEME_UNSET) return "-";
  if (rows > 0) return absl::StrCat(rows, "x", size);
  if (size == -1) return "row";
  if (size == 0) return "tensor";
  return absl::StrCat(size);
}

std::vector<std::string> SchemesOf(const Flags& flags) {
  return absl::StrSplit(flags.Get("schemes"), absl::ByAnyChar(", "), absl::SkipEmpty());
}

// "2, model-00001-of-00002.safetensors to model-00002-of-00002.safetensors".
std::string Shards(const autoscheme_skeleton* skeleton) {
  const int64_t count = autoscheme_skeleton_shard_count(skeleton);
  if (count == 0) return "none";
  const std::string first = Printable(autoscheme_skeleton_shard_at(skeleton, 0));
  if (count == 1) return absl::StrCat("1, ", first);
  return absl::StrCat(count, ", ", first, " to ", Printable(autoscheme_skeleton_shard_at(skeleton, count - 1)));
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
  ModelTree tree;
  CLI_RETURN_IF_ERROR(tree.Read(skeleton.get(), info, SchemesOf(session.flags)));
  absl::PrintF("model       %s\n", Printable(info.directory));
  absl::PrintF("type        %s\n", Printable(info.model_type));
  absl::PrintF("parameters  %s in %s, %s, %s\n", HumanCount(info.total_params), Count(info.tensor_count, "tensor"),
               HumanBytes(info.total_bytes), absl::StrJoin(tree.dtypes(), ", "));
  absl::PrintF("shards      %s\n", Shards(skeleton.get()));
  absl::PrintF("blocks      %d, the largest %s\n", info.block_count, HumanBytes(tree.largest_block()));
  absl::PrintF("hidden      %d\n", info.hidden_size);
  absl::PrintF("vocabulary  %d, head %s\n", info.vocab_size, info.tied_head != 0 ? "tied to the embedding" : "untied");
  absl::PrintF("\n%s\n%s", tree.ToString(session.flags.Has("all")), tree.Summary());
  return absl::OkStatus();
}

absl::Status CheckInspect(const Flags& flags) {
  auto scheme = Struct<autoscheme_scheme_info>();
  for (const std::string& name : SchemesOf(flags)) {
    CLI_RETURN_IF_ERROR(
        Call([&](autoscheme_error** error) { return autoscheme_scheme_find(name.c_str(), &scheme, error); }));
  }
  return absl::OkStatus();
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
