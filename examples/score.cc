// The C++ interface from beginning to end: open a model, score it, choose schemes for several budgets, write the
// recipes.
//
//     score_cc MODEL_DIR TOKENS.json SCHEMES RECIPE.json AVG_BITS...
//     score_cc models/smollm2_135m tokens.json W3A16,W4A16,W8A16 recipe.json 4 4.5 5
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "autoscheme/output.h"
#include "autoscheme/recipe.h"
#include "autoscheme/scheme_generator.h"

namespace {

absl::Status Run(const std::string& model_dir, const std::string& tokens, const std::string& schemes,
                 const std::string& recipe_path, const std::vector<double>& avg_bits) {
  autoscheme::Context context;
  context.progress = [](const autoscheme::Progress& p) {
    std::fprintf(stderr, "%.*s %lld/%lld\n", static_cast<int>(p.stage.size()), p.stage.data(),
                 static_cast<long long>(p.done), static_cast<long long>(p.total));
    return absl::OkStatus();
  };
  auto model = autoscheme::MetaSkeleton::Open(context, model_dir);
  if (!model.ok()) return model.status();
  auto calibration = autoscheme::ReadCalibration(context, tokens);
  if (!calibration.ok()) return calibration.status();

  const absl::Status writable = autoscheme::CheckOutputs(context, {recipe_path}, (*model)->files());
  if (!writable.ok()) return writable;

  autoscheme::Options options;
  auto menu = autoscheme::ParseSchemeList(schemes);
  if (!menu.ok()) return menu.status();
  options.schemes = *menu;
  options.max_ram_bytes = int64_t{2} << 30;
  auto generator = autoscheme::SchemeGenerator::Create(context, **model, options);
  if (!generator.ok()) return generator.status();

  auto table = (*generator)->Score(*calibration);
  if (!table.ok()) return table.status();
  auto recipes = (*generator)->Select(*table, avg_bits);
  if (!recipes.ok()) return recipes.status();
  for (const autoscheme::Recipe& recipe : *recipes) {
    std::printf("%g bits: %g on average, predicted loss %g\n", recipe.target_avg_bits, recipe.avg_bits, recipe.loss);
  }
  return autoscheme::WriteRecipes(context, *recipes, recipe_path);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr, "usage: %s MODEL_DIR TOKENS.json SCHEMES RECIPE.json AVG_BITS...\n", argv[0]);
    return 2;
  }
  std::vector<double> avg_bits;
  for (int i = 5; i < argc; ++i) avg_bits.push_back(std::atof(argv[i]));
  const absl::Status status = Run(argv[1], argv[2], argv[3], argv[4], avg_bits);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
