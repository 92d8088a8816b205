#include <string>
#include <vector>

#include "autoscheme/evaluate.h"
#include "base/io.h"
#include "base/output_file.h"
#include "writers/json_text.h"
#include "writers/run_members.h"

namespace autoscheme {
namespace {

void WriteNumber(const char* key, double value, PageWriter* page) {
  page->Key(key);
  PutDouble(page, value);
}

void WriteNumbers(const char* key, const std::vector<double>& values, PageWriter* page) {
  page->Key(key);
  PutLine(page, rapidjson::kArrayType, [&](LineWriter* line) {
    line->StartArray();
    for (const double value : values) PutDouble(line, value);
    line->EndArray();
  });
}

void WriteTokens(const Evaluation& evaluation, PageWriter* page) {
  page->Key("tokens");
  page->StartObject();
  page->Key("nsamples");
  page->Int64(evaluation.nsamples);
  page->Key("seqlen");
  page->Int64(evaluation.seqlen);
  page->Key("sha256");
  PutString(page, evaluation.tokens_sha256);
  page->EndObject();
}

void WriteModel(const Evaluation& evaluation, PageWriter* page) {
  page->Key("model");
  page->StartObject();
  page->Key("name");
  PutString(page, evaluation.model);
  page->Key("model_type");
  PutString(page, evaluation.model_type);
  page->Key("fingerprint");
  PutString(page, evaluation.fingerprint);
  page->EndObject();
}

void WriteWorst(const std::vector<TokenDivergence>& worst, PageWriter* page) {
  page->Key("worst_tokens");
  page->StartArray();
  for (const TokenDivergence& token : worst) {
    PutLine(page, rapidjson::kObjectType, [&](LineWriter* line) {
      line->StartObject();
      line->Key("row");
      line->Int64(token.row);
      line->Key("position");
      line->Int64(token.position);
      line->Key("kl");
      PutDouble(line, token.kl);
      line->EndObject();
    });
  }
  page->EndArray();
}

void WriteRecipe(const RecipeEvaluation& recipe, PageWriter* page) {
  page->StartObject();
  page->Key("name");
  PutString(page, recipe.name);
  WriteNumber("avg_bits", recipe.avg_bits, page);
  page->Key("total_bits");
  page->Int64(recipe.total_bits);
  page->Key("total_params");
  page->Int64(recipe.total_params);
  WriteNumber("kl", recipe.kl, page);
  WriteNumber("kl_error", recipe.kl_error, page);
  WriteNumber("top1", recipe.top1, page);
  WriteNumber("cross_entropy", recipe.cross_entropy, page);
  WriteNumber("perplexity", recipe.perplexity, page);
  WriteNumbers("row_kl", recipe.row_kl, page);
  if (!recipe.position_kl.empty()) WriteNumbers("position_kl", recipe.position_kl, page);
  if (!recipe.worst.empty()) WriteWorst(recipe.worst, page);
  page->EndObject();
}

}  // namespace

absl::Status WriteEvaluation(const Context& context, const Evaluation& evaluation, const std::string& path) {
  return WriteOutput(IoOf(context), path, EvaluationToJson(evaluation));
}

std::string EvaluationToJson(const Evaluation& evaluation) {
  return JsonFile("autoscheme-eval", [&](PageWriter* page) {
    WriteModel(evaluation, page);
    WriteTokens(evaluation, page);
    page->Key("dtype");
    PutString(page, evaluation.dtype);
    page->Key("full_precision");
    page->StartObject();
    WriteNumber("cross_entropy", evaluation.cross_entropy, page);
    WriteNumber("perplexity", evaluation.perplexity, page);
    page->EndObject();
    page->Key("kl_error_of");
    page->String(evaluation.error_over_rows ? "rows" : "tokens");
    page->Key("notes");
    page->StartArray();
    for (const std::string& note : evaluation.notes) PutString(page, note);
    page->EndArray();
    page->Key("recipes");
    page->StartArray();
    for (const RecipeEvaluation& recipe : evaluation.recipes) WriteRecipe(recipe, page);
    page->EndArray();
    WriteRun(evaluation.run, page);
  });
}

}  // namespace autoscheme
