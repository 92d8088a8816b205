// Evaluation by streaming against a plain one with all weights and all logits in memory.
#include "autoscheme/evaluate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "support/dense_llama.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

// Rows of 256 weights: k-quants fit.
TinyModel Model() {
  TinyModel model;
  model.hidden = 256, model.heads = 4, model.kv_heads = 2, model.intermediate = 256, model.vocab = 320;
  model.std_dev = 0.08;
  return model;
}

struct Case {
  TinyModel model;
  TinySkeleton tiny;
  Calibration tokens;
  Options options;
  Context context;
  EvaluateOptions evaluate;
  std::vector<NamedRecipe> recipes;

  explicit Case(const TinyModel& of = Model()) : model(of), tiny(of) {
    tokens = ReadCalibration({}, tiny.dir.Write("tokens.json", TinyTokens(5, 12, model.vocab))).value();
    options.batch_size = 2;  // the last batch is short
  }
  Recipe Uniform(const std::string& scheme) const {
    return UniformRecipe(context, *tiny, FindScheme(scheme).value(), options).value();
  }
  void AddUniform(const std::string& scheme) { recipes.push_back({scheme, Uniform(scheme)}); }
  absl::StatusOr<Evaluation> Run() { return Evaluate(context, *tiny, options, tokens, recipes, evaluate); }
};

Scheme SchemeOf(const std::string& name) { return FindScheme(name).value(); }

void Set(Recipe& recipe, const std::string& layer, const std::string& scheme) {
  recipe.total_params = 0;
  for (LayerChoice& choice : recipe.layers) {
    if (choice.layer != layer) continue;
    choice.scheme = SchemeOf(scheme);
    return;
  }
  recipe.layers.push_back({layer, SchemeOf(scheme), true});
}

// What the definition says of two sets of logits, [rows, positions, vocab] float64.
struct Dense {
  at::Tensor kl, cross_entropy, agrees;  // [rows, positions]
  Dense(const at::Tensor& full, const at::Tensor& other, const Calibration& tokens) {
    const at::Tensor p = at::log_softmax(full, -1), q = at::log_softmax(other, -1);
    kl = (p.exp() * (p - q)).sum(-1);
    const at::Tensor ids = at::tensor(tokens.ids, at::kInt).to(at::kLong).view({tokens.nsamples, tokens.seqlen});
    cross_entropy = -q.gather(-1, ids.narrow(1, 1, tokens.seqlen - 1).unsqueeze(-1)).squeeze(-1);
    agrees = full.argmax(-1).eq(other.argmax(-1)).to(at::kDouble);
  }
};

Dense DenseOf(const Case& c, const Recipe& recipe) {
  const DenseLlama dense(c.model);
  std::map<std::string, const Scheme*> schemes;
  for (const LayerChoice& choice : recipe.layers) schemes[choice.layer] = &choice.scheme;
  if (c.model.tied && schemes.count("lm_head") == 0) schemes["lm_head"] = schemes["model.embed_tokens"];
  const auto scheme_of = [&](const std::string& layer) { return schemes[layer]; };
  const auto as_it_is = [](const std::string&) -> const Scheme* { return nullptr; };
  const int64_t batch = c.options.batch_size;
  return {dense.Logits(c.tokens, batch, as_it_is), dense.Logits(c.tokens, batch, scheme_of), c.tokens};
}

double Worst(const at::Tensor& expected, const std::vector<double>& actual) {
  const at::Tensor got = at::tensor(actual, at::kDouble);
  return ((got - expected.reshape({-1})).abs() / expected.reshape({-1}).abs()).max().item<double>();
}

// `epsilon`: relative.
void CheckAgainstDense(Case& c, size_t recipe, const Evaluation& evaluation, double epsilon) {
  INFO(c.recipes[recipe].name);
  const Dense dense = DenseOf(c, c.recipes[recipe].recipe);
  const RecipeEvaluation& of = evaluation.recipes[recipe];
  CHECK(of.name == c.recipes[recipe].name);
  CHECK(of.kl == Approx(dense.kl.mean().item<double>()).epsilon(epsilon));
  CHECK(Worst(dense.kl.mean(1), of.row_kl) < epsilon);
  CHECK(Worst(dense.kl.mean(0), of.position_kl) < 2 * epsilon);
  std::vector<double> by_token(of.worst.size());
  for (const TokenDivergence& token : of.worst) by_token[token.row * dense.kl.size(1) + token.position] = token.kl;
  CHECK(Worst(dense.kl, by_token) < 5 * epsilon);
  const at::Tensor rows = dense.kl.mean(1);
  CHECK(of.kl_error ==
        Approx((rows.std() / std::sqrt(static_cast<double>(rows.size(0)))).item<double>()).epsilon(10 * epsilon));
  CHECK(of.cross_entropy == Approx(dense.cross_entropy.mean().item<double>()).epsilon(1e-6));
  CHECK(of.perplexity == Approx(std::exp(of.cross_entropy)).epsilon(1e-12));
  CHECK(of.top1 == Approx(dense.agrees.mean().item<double>()).margin(1e-12));
}

TEST_CASE("each kind of scheme gives the figures of a plain evaluation, all in one run") {
  Case c;
  for (const char* scheme : {"W4A16", "W2A16", "W8A16", "MXFP4", "MXFP8", "FP8_STATIC", "NVFP4", "INT8", "GGUF:Q4_K_S",
                             "GGUF:Q2_K_S", "GGUF:Q6_K"}) {
    c.AddUniform(scheme);
  }
  c.evaluate = {c.tokens.nsamples * (c.tokens.seqlen - 1), true};
  const Evaluation evaluation = c.Run().value();
  for (size_t r = 0; r < c.recipes.size(); ++r) CheckAgainstDense(c, r, evaluation, 1e-5);
}

TEST_CASE("a recipe may treat every layer differently, the head and the embedding too") {
  Case c;
  Recipe mixed = c.Uniform("W4A16");
  const char* const schemes[] = {"W2A16", "MXFP8", "W8A16", "FP8_STATIC", "GGUF:Q4_K_S", "MXINT4", "BF16", "W4A16"};
  for (size_t l = 0; l < mixed.layers.size(); ++l) mixed.layers[l].scheme = SchemeOf(schemes[l % std::size(schemes)]);
  c.recipes.push_back({"mixed", mixed});
  Set(mixed, "lm_head", "W4A16");
  c.recipes.push_back({"with head", mixed});
  Set(mixed, "model.embed_tokens", "W4A16");
  c.recipes.push_back({"with embedding", mixed});
  Set(mixed, "model.embed_tokens", "GGUF:Q4_K_S");
  Set(mixed, "lm_head", "NVFP4");
  c.recipes.push_back({"others there", mixed});
  c.evaluate = {c.tokens.nsamples * (c.tokens.seqlen - 1), true};
  const Evaluation evaluation = c.Run().value();
  for (size_t r = 0; r < c.recipes.size(); ++r) CheckAgainstDense(c, r, evaluation, 1e-5);
  std::set<double> figures;
  for (const RecipeEvaluation& of : evaluation.recipes) figures.insert(of.kl);
  CHECK(figures.size() == 4);
}

TEST_CASE("a tied head that a recipe does not name has the embedding's scheme") {
  TinyModel model = Model();
  model.tied = true;
  Case c(model);
  c.AddUniform("GGUF:Q4_K_S");
  REQUIRE(std::none_of(c.recipes[0].recipe.layers.begin(), c.recipes[0].recipe.layers.end(),
                       [](const LayerChoice& choice) { return choice.layer == "lm_head"; }));
  c.AddUniform("W4A16");
  Set(c.recipes[1].recipe, "model.embed_tokens", "W4A16");
  c.evaluate = {c.tokens.nsamples * (c.tokens.seqlen - 1), true};
  const Evaluation evaluation = c.Run().value();
  for (const size_t r : {0, 1}) CheckAgainstDense(c, r, evaluation, 1e-5);
}

TEST_CASE("rows that k-quants do not divide have stand-ins, in the embedding others than in layers") {
  TinyModel model = Model();
  model.hidden = 96, model.intermediate = 128;
  Case c(model);
  c.AddUniform("GGUF:Q4_K_S");
  for (const LayerChoice& choice : c.recipes[0].recipe.layers) {
    INFO(choice.layer);
    CHECK(choice.scheme.name == (choice.layer == "model.embed_tokens" ? "GGUF:Q5_0" : "GGUF:Q4_1"));
  }
  c.evaluate = {c.tokens.nsamples * (c.tokens.seqlen - 1), true};
  CheckAgainstDense(c, 0, c.Run().value(), 1e-5);
}

TEST_CASE("a recipe that leaves all as it is costs nothing") {
  Case c;
  c.AddUniform("BF16");
  c.AddUniform("W2A16");
  const Evaluation evaluation = c.Run().value();
  CHECK(std::abs(evaluation.recipes[0].kl) < 1e-9);
  CHECK(evaluation.recipes[0].kl_error < 1e-9);
  CHECK(evaluation.recipes[0].top1 == 1);
  CHECK(evaluation.recipes[0].cross_entropy == evaluation.cross_entropy);
  CHECK(evaluation.perplexity == Approx(std::exp(evaluation.cross_entropy)).epsilon(1e-12));
  CHECK(evaluation.recipes[0].avg_bits == 16);
  CHECK(evaluation.recipes[1].avg_bits == Approx(c.recipes[1].recipe.avg_bits).epsilon(1e-12));
  CHECK(evaluation.recipes[1].kl > 0.01);
  CHECK(evaluation.recipes[0].worst.empty());
  CHECK(evaluation.recipes[0].position_kl.empty());
}

TEST_CASE("blocks and head are read once, whatever the number of recipes and batches") {
  Case c;
  uint64_t blocks = 0;
  for (const Block& block : c.tiny->blocks()) blocks += block.bytes;
  std::vector<int32_t> distinct = c.tokens.ids;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  const uint64_t rows = distinct.size() * (c.tiny->embedding()->bytes / c.tiny->embedding()->shape[0]);
  const uint64_t norm = c.tiny->other_tensors()[0]->bytes, head = c.tiny->head().weight->bytes;
  for (const char* scheme : {"W4A16", "W8A16", "MXFP4"}) {
    c.AddUniform(scheme);
    for (const int64_t batch_size : {1, 2, 8}) {
      c.options.batch_size = batch_size;
      const RunStats run = c.Run().value().run;
      CHECK(run.read_bytes == blocks + head + rows + norm);
      CHECK(run.planned_read_bytes == run.read_bytes);
    }
  }
  // A scale of the whole head must be known before.
  Recipe nvfp4 = c.Uniform("W4A16");
  Set(nvfp4, "lm_head", "NVFP4");
  c.recipes = {{"NVFP4 head", nvfp4}};
  const RunStats run = c.Run().value().run;
  CHECK(run.read_bytes == blocks + 2 * head + rows + norm);
  CHECK(run.planned_read_bytes == run.read_bytes);
}

// The budget that a refusal names.
int64_t LeastOf(const absl::Status& refusal) {
  const std::string text(refusal.message());
  const size_t at = text.find("the smallest that works is ");
  return at == std::string::npos ? 0 : std::stoll(text.substr(at + 27));
}

TEST_CASE("any feasible budget gives the same figures, and a smaller one is refused with the least that works") {
  Case c;
  for (const char* scheme : {"W2A16", "MXFP8", "GGUF:Q4_K_S"}) c.AddUniform(scheme);
  const Evaluation unlimited = c.Run().value();
  c.options.max_ram_bytes = 1000;
  const absl::Status refusal = c.Run().status();
  CHECK(refusal.code() == absl::StatusCode::kResourceExhausted);
  const int64_t least = LeastOf(refusal);
  REQUIRE(least > 1000);
  const auto most = static_cast<int64_t>(unlimited.run.planned_peak_bytes);
  bool spilled = false;
  for (int step = 0; step <= 4; ++step) {
    c.options.max_ram_bytes = least + (most - least) * step / 4;
    const Evaluation evaluation = c.Run().value();
    CHECK(evaluation.run.planned_peak_bytes <= static_cast<uint64_t>(c.options.max_ram_bytes));
    CHECK(evaluation.run.planned_read_bytes == evaluation.run.read_bytes);
    spilled = spilled || evaluation.run.spill_bytes > 0;
    for (size_t r = 0; r < c.recipes.size(); ++r) {
      CHECK(evaluation.recipes[r].kl == Approx(unlimited.recipes[r].kl).epsilon(1e-5));
      CHECK(evaluation.recipes[r].top1 == unlimited.recipes[r].top1);
    }
  }
  CHECK(spilled);
  c.options.max_ram_bytes = least;
  c.options.work_dir = "/nonexistent";
  CHECK(c.Run().status().code() == absl::StatusCode::kNotFound);
  c.options.no_spill = true;
  CHECK_THAT(std::string(c.Run().status().message()), Catch::Contains("may spill"));
}

TEST_CASE("a recipe that does not fit the model is one error that names it and the layer") {
  Case c;
  const auto refused = [&](const Recipe& recipe) {
    c.recipes = {{"mine", recipe}};
    const absl::Status status = c.Run().status();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK_THAT(std::string(status.message()), Catch::Contains("recipe \"mine\""));
    return std::string(status.message());
  };
  const Recipe fits = c.Uniform("W4A16");
  Recipe recipe = fits;
  const std::string last = recipe.layers.back().layer;
  recipe.layers.pop_back();
  CHECK_THAT(refused(recipe), Catch::Contains("lacks layer \"" + last + "\""));
  recipe = fits;
  Set(recipe, "model.layers.7.mlp.up_proj", "W4A16");
  CHECK_THAT(refused(recipe), Catch::Contains("\"model.layers.7.mlp.up_proj\", which the model does not have"));
  recipe = fits;
  recipe.layers.push_back(recipe.layers.front());
  CHECK_THAT(refused(recipe), Catch::Contains("twice"));
  recipe = fits;
  recipe.total_params += 256;
  CHECK_THAT(refused(recipe), Catch::Contains(std::to_string(recipe.total_params)));
  c.recipes.clear();
  CHECK(c.Run().status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("an embedding whose scales span rows is refused: only the rows that occur are read") {
  Case c;
  for (const char* scheme : {"FP8_BLOCK", "NVFP4"}) {
    Recipe recipe = c.Uniform("W4A16");
    Set(recipe, "model.embed_tokens", scheme);
    c.recipes = {{"mine", recipe}};
    const absl::Status status = c.Run().status();
    CHECK(status.code() == absl::StatusCode::kUnimplemented);
    CHECK_THAT(std::string(status.message()), Catch::Contains("model.embed_tokens") && Catch::Contains(scheme));
  }
}

TEST_CASE("what cannot be evaluated is one error, and cancelling stops at any step") {
  Case c;
  c.AddUniform("W4A16");
  c.tokens.ids[15] = 320;
  const absl::Status outside = c.Run().status();
  CHECK(outside.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(outside.message()), Catch::Contains("row 1, column 3") && Catch::Contains("320"));
  c.tokens.ids[15] = 3;
  c.evaluate.worst_tokens = -1;
  CHECK_THAT(std::string(c.Run().status().message()), Catch::Contains("worst_tokens"));
  c.evaluate.worst_tokens = 0;
  c.options.batch_size = 0;
  CHECK_THAT(std::string(c.Run().status().message()), Catch::Contains("batch_size"));
  c.options.batch_size = 2;

  CancelToken cancel;
  c.context.cancel = &cancel;
  std::vector<std::string> stages;
  for (int at = 0;; ++at) {
    int seen = 0;
    cancel.Reset();
    c.context.progress = [&](const Progress& p) {
      if (stages.empty() || stages.back() != p.stage) stages.emplace_back(p.stage);
      if (seen++ == at) cancel.Cancel();
      return absl::OkStatus();
    };
    const absl::Status status = c.Run().status();
    if (seen <= at) break;
    if (!status.ok()) CHECK(status.code() == absl::StatusCode::kCancelled);
    CHECK(seen == at + 1);
  }
  CHECK(std::count(stages.begin(), stages.end(), "forward") > 0);
  CHECK(std::count(stages.begin(), stages.end(), "head") > 0);
}

TEST_CASE("a weight that is NaN is an error that names its tensor") {
  const TinyModel model = Model();
  for (const std::string name : {"model.layers.1.mlp.up_proj.weight", "lm_head.weight"}) {
    std::vector<RawTensor> tensors = MakeTinyTensors(model);
    for (RawTensor& tensor : tensors) {
      if (tensor.name == name) tensor.bytes[100] = '\xff', tensor.bytes[101] = '\x7f';
    }
    Case c(model);
    const TinySkeleton broken(model, tensors);
    c.AddUniform("W4A16");
    const absl::Status status = Evaluate({}, *broken, c.options, c.tokens, c.recipes).status();
    CHECK(status.code() == absl::StatusCode::kDataLoss);
    CHECK_THAT(std::string(status.message()), Catch::Contains(name));
  }
}

TEST_CASE("the error is that of row means, and of one row that of its tokens, with a note") {
  Case c;
  c.AddUniform("W4A16");
  Evaluation evaluation = c.Run().value();
  CHECK(evaluation.error_over_rows);
  CHECK(evaluation.notes.empty());
  c.tokens = {1, 12, {c.tokens.ids.begin(), c.tokens.ids.begin() + 12}};
  c.evaluate = {11, true};
  evaluation = c.Run().value();
  CHECK_FALSE(evaluation.error_over_rows);
  REQUIRE(evaluation.notes.size() == 1);
  CHECK_THAT(evaluation.notes[0], Catch::Contains("one row"));
  const at::Tensor kl = at::tensor(evaluation.recipes[0].position_kl, at::kDouble);
  CHECK(evaluation.recipes[0].kl_error == Approx((kl.std() / std::sqrt(11.0)).item<double>()));
  const std::vector<TokenDivergence>& worst = evaluation.recipes[0].worst;
  REQUIRE(worst.size() == 11);
  for (size_t i = 0; i + 1 < worst.size(); ++i) CHECK(worst[i].kl >= worst[i + 1].kl);
  CHECK(worst[0].kl == kl.max().item<double>());
  CHECK(worst[0].position == kl.argmax().item<int64_t>());
}

}  // namespace
}  // namespace autoscheme
