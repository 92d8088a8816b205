#include <string>
#include <vector>

#include "autoscheme/recipe.h"
#include "base/io.h"
#include "base/output_file.h"
#include "formats/scheme_json.h"
#include "writers/json_text.h"

namespace autoscheme {
namespace {

void WriteRefined(const Refined& refined, PageWriter* page);
void WriteVerified(const Verified& verified, PageWriter* page);
void WriteRecipe(const Recipe& recipe, PageWriter* page);
void WriteLayerConfig(const Scheme& scheme, LineWriter* line);

}  // namespace

absl::Status WriteRecipes(const Context& context, const std::vector<Recipe>& recipes, const std::string& path) {
  return WriteOutput(IoOf(context), path, RecipesToJson(recipes));
}

std::string RecipesToJson(const std::vector<Recipe>& recipes) {
  return JsonFile("autoscheme-recipe", [&](PageWriter* page) {
    page->Key("recipes");
    page->StartArray();
    for (const Recipe& recipe : recipes) WriteRecipe(recipe, page);
    page->EndArray();
  });
}

namespace {

// The rows that a measurement was made on.
template <typename Measured>
void WriteRows(const Measured& measured, PageWriter* page) {
  page->Key("nsamples");
  page->Int64(measured.nsamples);
  page->Key("seqlen");
  page->Int64(measured.seqlen);
  page->Key("tokens_sha256");
  PutString(page, measured.tokens_sha256);
}

void WriteRefined(const Refined& refined, PageWriter* page) {
  page->Key("refined");
  page->StartObject();
  page->Key("evaluations");
  page->Int64(refined.evaluations);
  WriteRows(refined, page);
  PutDoubles(page, {{"avg_bits_before", refined.avg_bits_before},
                    {"kl_before", refined.kl_before},
                    {"kl_error_before", refined.kl_error_before},
                    {"kl", refined.kl},
                    {"kl_error", refined.kl_error}});
  page->Key("changed");
  page->Bool(refined.changed);
  page->EndObject();
}

void WriteVerified(const Verified& verified, PageWriter* page) {
  page->Key("verified");
  page->StartObject();
  WriteRows(verified, page);
  PutDoubles(page, {{"avg_bits", verified.avg_bits}, {"kl", verified.kl}, {"kl_error", verified.kl_error}});
  page->Key("uniforms");
  page->StartArray();
  for (const MeasuredUniform& uniform : verified.uniforms) {
    PutLine(page, rapidjson::kObjectType, [&](LineWriter* line) {
      line->StartObject();
      line->Key("scheme");
      PutString(line, uniform.scheme);
      PutDoubles(line, {{"avg_bits", uniform.avg_bits}, {"kl", uniform.kl}, {"kl_error", uniform.kl_error}});
      line->EndObject();
    });
  }
  page->EndArray();
  if (!verified.taken.empty()) {
    page->Key("taken");
    PutString(page, verified.taken);
  }
  page->EndObject();
}

void WriteRecipe(const Recipe& recipe, PageWriter* page) {
  page->StartObject();
  page->Key("target_avg_bits");
  PutDouble(page, recipe.target_avg_bits);
  page->Key("avg_bits");
  PutDouble(page, recipe.avg_bits);
  page->Key("loss");
  PutDouble(page, recipe.loss);
  page->Key("gap");
  PutDouble(page, recipe.gap);
  page->Key("total_bits");
  page->Int64(recipe.total_bits);
  page->Key("total_params");
  page->Int64(recipe.total_params);
  if (recipe.target_bytes > 0) {
    page->Key("target_bytes");
    page->Int64(recipe.target_bytes);
  }
  page->Key("layer_bytes");
  page->Int64(recipe.layer_bytes);
  if (recipe.model_bytes > 0) {
    page->Key("model_bytes");
    page->Int64(recipe.model_bytes);
  }
  if (recipe.refined.has_value()) WriteRefined(*recipe.refined, page);
  if (recipe.verified.has_value()) WriteVerified(*recipe.verified, page);
  page->Key("fixed_layers");
  page->StartArray();
  for (const LayerChoice& choice : recipe.layers) {
    if (choice.fixed) PutString(page, choice.layer);
  }
  page->EndArray();
  page->Key("layer_config");
  page->StartObject();
  for (const LayerChoice& choice : recipe.layers) {
    PutKey(page, choice.layer);
    PutLine(page, rapidjson::kObjectType, [&](LineWriter* line) { WriteLayerConfig(choice.scheme, line); });
  }
  page->EndObject();
  page->EndObject();
}

// What AutoRound takes as a value of layer_config=: a preset's name only where it stands for exactly these fields.
void WriteLayerConfig(const Scheme& scheme, LineWriter* line) {
  line->StartObject();
  const absl::StatusOr<Scheme> preset = FindScheme(scheme.name);
  if (preset.ok() && SchemeToJson(*preset) == SchemeToJson(scheme)) {
    line->Key("scheme");
    PutString(line, preset->name);
  }
  WriteSchemeFields(scheme, line);
  line->EndObject();
}

}  // namespace
}  // namespace autoscheme
