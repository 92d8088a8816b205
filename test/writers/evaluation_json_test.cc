// eval.json by its bytes, and recipes read back.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "autoscheme/evaluate.h"
#include "base/io.h"
#include "formats/scheme_json.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

Evaluation Two() {
  Evaluation evaluation;
  evaluation.model = "models/tiny", evaluation.model_type = "llama", evaluation.fingerprint = "00ff";
  evaluation.nsamples = 2, evaluation.seqlen = 3, evaluation.tokens_sha256 = "abcd";
  evaluation.cross_entropy = 2.5, evaluation.perplexity = 12.25;
  evaluation.error_over_rows = true;
  evaluation.notes = {"a note"};
  RecipeEvaluation plain;
  plain.name = "W4A16", plain.avg_bits = 4.25, plain.total_bits = 17, plain.total_params = 4;
  plain.kl = 0.5, plain.kl_error = 0.125, plain.top1 = 0.75, plain.cross_entropy = 3, plain.perplexity = 20;
  plain.row_kl = {0.25, 0.75};
  RecipeEvaluation full = plain;
  full.name = "recipe \"x\"";
  full.position_kl = {0.5, 0.5};
  full.worst = {{1, 0, 1.5}};
  evaluation.recipes = {plain, full};
  return evaluation;
}

TEST_CASE("eval.json has these members in this order") {
  const std::string json = EvaluationToJson(Two());
  CHECK(json.substr(0, json.find("  \"run\": {")) == R"({
  "format": "autoscheme-eval",
  "version": 1,
  "model": {
    "name": "models/tiny",
    "model_type": "llama",
    "fingerprint": "00ff"
  },
  "tokens": {
    "nsamples": 2,
    "seqlen": 3,
    "sha256": "abcd"
  },
  "dtype": "float32",
  "full_precision": {
    "cross_entropy": 2.5,
    "perplexity": 12.25
  },
  "kl_error_of": "rows",
  "notes": [
    "a note"
  ],
  "recipes": [
    {
      "name": "W4A16",
      "avg_bits": 4.25,
      "total_bits": 17,
      "total_params": 4,
      "kl": 0.5,
      "kl_error": 0.125,
      "top1": 0.75,
      "cross_entropy": 3,
      "perplexity": 20,
      "row_kl": [0.25,0.75]
    },
    {
      "name": "recipe \"x\"",
      "avg_bits": 4.25,
      "total_bits": 17,
      "total_params": 4,
      "kl": 0.5,
      "kl_error": 0.125,
      "top1": 0.75,
      "cross_entropy": 3,
      "perplexity": 20,
      "row_kl": [0.25,0.75],
      "position_kl": [0.5,0.5],
      "worst_tokens": [
        {"row":1,"position":0,"kl":1.5}
      ]
    }
  ],
)");
  TempDir dir;
  REQUIRE(WriteEvaluation({}, Two(), dir.path() + "/eval.json").ok());
  CHECK(ReadFileToString(Io::Posix(), dir.path() + "/eval.json", 1 << 20).value() == json);
}

Recipe Chosen() {
  Recipe recipe;
  recipe.target_avg_bits = 4.5, recipe.avg_bits = 4.25, recipe.loss = 2, recipe.gap = 0.5;
  recipe.total_bits = 17, recipe.total_params = 4, recipe.layer_bytes = 3, recipe.model_bytes = 9;
  recipe.layers = {{"q_proj", *FindScheme("W4A16"), false}, {"k_proj", *FindScheme("GGUF:Q4_K_S"), true}};
  return recipe;
}

TEST_CASE("recipes that were written read back alike") {
  TempDir dir;
  const std::string path = dir.path() + "/recipe.json";
  REQUIRE(WriteRecipes({}, {Chosen(), Chosen()}, path).ok());
  const std::vector<Recipe> read = ReadRecipes({}, path).value();
  REQUIRE(read.size() == 2);
  for (const Recipe& recipe : read) {
    CHECK(recipe.target_avg_bits == 4.5);
    CHECK(recipe.avg_bits == 4.25);
    CHECK(recipe.loss == 2);
    CHECK(recipe.gap == 0.5);
    CHECK(recipe.total_bits == 17);
    CHECK(recipe.total_params == 4);
    CHECK(recipe.layer_bytes == 3);
    CHECK(recipe.model_bytes == 9);
    REQUIRE(recipe.layers.size() == 2);
    for (const size_t l : {0, 1}) {
      CHECK(recipe.layers[l].layer == Chosen().layers[l].layer);
      CHECK(recipe.layers[l].fixed == Chosen().layers[l].fixed);
      CHECK(SameScheme(recipe.layers[l].scheme, Chosen().layers[l].scheme));
      CHECK(recipe.layers[l].scheme.name == Chosen().layers[l].scheme.name);
    }
  }
}

TEST_CASE("what is no recipe file is refused, with file and member") {
  TempDir dir;
  const std::string good = RecipesToJson({Chosen()});
  const auto refused = [&](const std::string& text) {
    const absl::Status status = ReadRecipes({}, dir.Write("recipe.json", text)).status();
    CHECK_FALSE(status.ok());
    CHECK_THAT(std::string(status.message()), Catch::Contains("recipe.json"));
    return status;
  };
  const auto changed = [&](const char* from, const char* to) {
    REQUIRE(good.find(from) != std::string::npos);
    return refused(absl::StrReplaceAll(good, {{from, to}}));
  };
  CHECK(refused("{").code() == absl::StatusCode::kDataLoss);
  CHECK(refused("[]").code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(changed("autoscheme-recipe", "autoscheme-scores").message()), Catch::Contains("format"));
  CHECK(changed("\"version\": 1", "\"version\": 2").code() == absl::StatusCode::kUnimplemented);
  CHECK_THAT(std::string(changed("\"recipes\"", "\"recipe\"").message()), Catch::Contains("no list of recipes"));
  CHECK_THAT(std::string(changed("\"layer_config\"", "\"layers\"").message()), Catch::Contains("layer_config"));
  CHECK_THAT(std::string(changed("\"bits\":4", "\"bits\":\"four\"").message()), Catch::Contains("q_proj"));
  CHECK_THAT(std::string(changed("\"total_params\": 4", "\"total_params\": -4").message()),
             Catch::Contains("total_params"));
  CHECK(ReadRecipes({}, dir.path() + "/none.json").status().code() == absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace autoscheme
