#include "report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "printable.h"

namespace cli {
namespace {

struct Share {
  int64_t layers = 0;
  int64_t weights = 0;
};

// What scheme each layer got, in the order of the scheme's first use.
absl::Status CountLayers(const autoscheme_recipes* recipes, int64_t recipe, const autoscheme_scores* scores,
                         int64_t layer_count, std::vector<std::string>* order, std::map<std::string, Share>* shares) {
  for (int64_t layer = 0; layer < layer_count; ++layer) {
    auto scheme = Struct<autoscheme_scheme_info>();
    auto info = Struct<autoscheme_layer_info>();
    int32_t fixed = 0;
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_recipes_get_layer(recipes, recipe, layer, nullptr, &scheme, &fixed, error);
    }));
    CLI_RETURN_IF_ERROR(
        Call([&](autoscheme_error** error) { return autoscheme_scores_get_layer(scores, layer, &info, error); }));
    const std::string name = absl::StrCat(scheme.name, fixed != 0 ? " (fixed)" : "");
    if (shares->count(name) == 0) order->push_back(name);
    Share& share = (*shares)[name];
    share.layers += 1;
    share.weights += info.out_features * info.in_features;
  }
  return absl::OkStatus();
}

// What refinement found for a recipe, if it was made. Returns whether the recipe is another one by it.
absl::StatusOr<bool> PrintRefined(const autoscheme_recipes* recipes, int64_t i) {
  auto refined = Struct<autoscheme_refined_info>();
  const absl::Status found =
      Call([&](autoscheme_error** error) { return autoscheme_recipes_get_refined(recipes, i, &refined, error); });
  if (absl::IsNotFound(found)) return false;
  CLI_RETURN_IF_ERROR(found);
  absl::PrintF("  refined by %s on %s: ", Count(refined.evaluations, "evaluation"), Count(refined.nsamples, "row"));
  if (refined.changed != 0) {
    absl::PrintF("KL %.5g, where the choice by scores has %.5g at %.4f bits\n", refined.kl, refined.kl_before,
                 refined.avg_bits_before);
  } else {
    absl::PrintF("none is surely better than the choice by scores\n");
  }
  return refined.changed != 0;
}

// What verification found of a recipe, if it was made.
absl::Status PrintVerified(const autoscheme_recipes* recipes, int64_t i, bool refined) {
  auto verified = Struct<autoscheme_verified_info>();
  const absl::Status found =
      Call([&](autoscheme_error** error) { return autoscheme_recipes_get_verified(recipes, i, &verified, error); });
  if (absl::IsNotFound(found)) return absl::OkStatus();
  CLI_RETURN_IF_ERROR(found);
  Table table;
  table.Add({absl::StrCat("  measured on ", Count(verified.nsamples, "row"), " of their own"), "avg bits", "KL", "+-"});
  const auto add = [&](absl::string_view name, const std::string& bits, double kl, double error) {
    table.Add({absl::StrCat("  ", name), bits, absl::StrFormat("%.5g", kl), absl::StrFormat("%.2g", error)});
  };
  add(refined ? "the refined choice" : "the choice by scores", absl::StrFormat("%.4f", verified.avg_bits), verified.kl,
      verified.kl_error);
  for (int64_t u = 0; u < verified.uniform_count; ++u) {
    auto uniform = Struct<autoscheme_uniform_info>();
    CLI_RETURN_IF_ERROR(
        Call([&](autoscheme_error** error) { return autoscheme_recipes_get_uniform(recipes, i, u, &uniform, error); }));
    add(absl::StrCat("all ", Printable(uniform.scheme)), absl::StrFormat("%.4f", uniform.avg_bits), uniform.kl,
        uniform.kl_error);
  }
  absl::PrintF("%s", table.ToString());
  if (verified.nsamples == 1) absl::PrintF("  +- takes the tokens of the one row for independent, and is too small\n");
  if (verified.taken != nullptr) {
    absl::PrintF("  all %s moves the predictions less and was taken instead\n", Printable(verified.taken));
  }
  return absl::OkStatus();
}

absl::Status PrintRecipe(const autoscheme_recipes* recipes, int64_t recipe, const autoscheme_scores* scores) {
  auto info = Struct<autoscheme_recipe_info>();
  CLI_RETURN_IF_ERROR(
      Call([&](autoscheme_error** error) { return autoscheme_recipes_get_info(recipes, recipe, &info, error); }));
  std::vector<std::string> order;
  std::map<std::string, Share> shares;
  CLI_RETURN_IF_ERROR(CountLayers(recipes, recipe, scores, info.layer_count, &order, &shares));
  std::sort(order.begin(), order.end());

  const std::string target = info.target_bytes > 0 ? HumanBytes(static_cast<uint64_t>(info.target_bytes))
                                                   : absl::StrFormat("%.4g bits per weight", info.target_avg_bits);
  absl::PrintF("\nrecipe for %s: %.4f bits on average, %s of layers as stored", target, info.avg_bits,
               HumanBytes(static_cast<uint64_t>(info.layer_bytes)));
  if (info.model_bytes > 0) absl::PrintF(", %s the whole model", HumanBytes(static_cast<uint64_t>(info.model_bytes)));
  absl::PrintF(", predicted loss %.6g\n", info.loss);
  Table table;
  table.Add({"  scheme", "layers", "weights"});
  for (const std::string& name : order) {
    const Share& share = shares[name];
    const double percent =
        100.0 * static_cast<double>(share.weights) / std::max(1.0, static_cast<double>(info.total_params));
    table.Add({absl::StrCat("  ", name), absl::StrCat(share.layers), absl::StrFormat("%.1f%%", percent)});
  }
  absl::PrintF("%s", table.ToString());
  const absl::StatusOr<bool> refined = PrintRefined(recipes, recipe);
  if (!refined.ok()) return refined.status();
  return PrintVerified(recipes, recipe, *refined);
}

}  // namespace

std::string HumanBytes(uint64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(units)) value /= 1024, ++unit;
  return absl::StrFormat("%.1f %s", value, units[unit]);
}

std::string HumanSeconds(double seconds) {
  if (seconds < 60) return absl::StrFormat("%.1f s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 3600) return absl::StrFormat("%d min %d s", whole / 60, whole % 60);
  return absl::StrFormat("%d h %d min", whole / 3600, whole % 3600 / 60);
}

std::string HumanCount(int64_t count) {
  if (count < 10000) return absl::StrCat(count);
  const char* const units[] = {"K", "M", "G", "T"};
  double value = static_cast<double>(count) / 1000;
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < std::size(units)) value /= 1000, ++unit;
  return absl::StrFormat("%.1f %s", value, units[unit]);
}

std::string Count(int64_t n, absl::string_view noun) { return absl::StrCat(n, " ", noun, n == 1 ? "" : "s"); }

void Table::Add(const std::vector<std::string>& row) {
  rows_.emplace_back();
  for (const std::string& cell : row) rows_.back().push_back(Printable(cell));
}

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - row[i].size(), ' ');
      const bool left = sides_[std::min(i, sides_.size() - 1)] == 'l';
      absl::StrAppend(&line, i == 0 ? "" : "  ", left ? row[i] : pad, left ? pad : row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

absl::Status PrintRecipes(const autoscheme_recipes* recipes, const autoscheme_scores* scores) {
  for (int64_t i = 0; i < autoscheme_recipes_count(recipes); ++i) CLI_RETURN_IF_ERROR(PrintRecipe(recipes, i, scores));
  return absl::OkStatus();
}

void PrintStats(const autoscheme_stats& stats, uint64_t max_ram_bytes) {
  Table table;
  table.Add({"", "planned", "actual"});
  table.Add({"bytes read", HumanBytes(stats.planned_read_bytes), HumanBytes(stats.read_bytes)});
  table.Add({"peak memory", HumanBytes(stats.planned_peak_bytes), HumanBytes(stats.peak_rss_bytes)});
  if (max_ram_bytes != 0) table.Add({"memory limit", HumanBytes(max_ram_bytes)});
  if (stats.planned_vram_bytes != 0) {
    table.Add({"peak memory of the device", HumanBytes(stats.planned_vram_bytes), HumanBytes(stats.peak_vram_bytes)});
  }
  table.Add({"held at the end, own / of files", "",
             absl::StrCat(HumanBytes(stats.rss_anon_bytes), " / ", HumanBytes(stats.rss_file_bytes))});
  table.Add({"fetched from storage", "", HumanBytes(stats.disk_read_bytes)});
  table.Add({"read by", "", stats.io_engine});
  if (stats.spill_bytes != 0) table.Add({"written to spill files", "", HumanBytes(stats.spill_bytes)});
  absl::PrintF("\n%s", table.ToString());
  const double busy = std::max(stats.total_s, 1e-9);
  const std::string backward =
      stats.backward_s > 0 ? absl::StrCat(", backward ", HumanSeconds(stats.backward_s)) : std::string();
  absl::PrintF("time  %s: forward %s, head %s%s; of this, %s (%.0f%%) waiting for the disk\n",
               HumanSeconds(stats.total_s), HumanSeconds(stats.forward_s), HumanSeconds(stats.head_s), backward,
               HumanSeconds(stats.stall_s), 100 * stats.stall_s / busy);
  absl::PrintF("      %.0f%% of it in matrix products, at %.0f GFLOP/s\n", 100 * stats.product_s / busy,
               stats.product_flops / std::max(stats.product_s, 1e-9) / 1e9);
}

}  // namespace cli
