// What recipes cost: how far each moves a model's predictions, measured on tokens that nothing was chosen by.
#ifndef AUTOSCHEME_EVALUATE_H_
#define AUTOSCHEME_EVALUATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/context.h"
#include "autoscheme/meta_skeleton.h"
#include "autoscheme/recipe.h"
#include "autoscheme/run_stats.h"
#include "autoscheme/scheme_generator.h"

namespace autoscheme {

// Recipe::layers must name every linear layer of the blocks. A head or an embedding that is not named stays as it is,
// but a head that is tied to the embedding has its scheme. Of the recipe's figures only total_params is looked at,
// where it is not 0.
struct NamedRecipe {
  std::string name;
  Recipe recipe;
};

struct EvaluateOptions {
  int64_t worst_tokens = 0;  // so many are listed for each recipe
  bool by_position = false;  // fill RecipeEvaluation::position_kl
};

// Position p of a row is the token of that index, which predicts the one behind it; the last predicts nothing.
struct TokenDivergence {
  int64_t row = 0, position = 0;
  double kl = 0;
};

// What one recipe does, in nats, on average over all rows x (seqlen - 1) predictions where nothing else is said.
struct RecipeEvaluation {
  std::string name;
  double avg_bits = 0;  // as Recipe: total_bits / total_params
  int64_t total_bits = 0, total_params = 0;
  double kl = 0;  // KL(full precision || recipe) of the next token's distribution
  // Standard error of `kl`. Tokens of a row are not independent: it is that of the mean over rows, from two rows on.
  // With one row it is that of the mean over tokens, which is too small; Evaluation::error_over_rows tells.
  double kl_error = 0;
  double top1 = 0;  // share of predictions whose most likely token is the full-precision model's
  double cross_entropy = 0, perplexity = 0;
  std::vector<double> row_kl;          // mean of each row: two recipes are compared by their differences
  std::vector<double> position_kl;     // mean over rows at each position, if asked for
  std::vector<TokenDivergence> worst;  // by falling KL, if asked for
};

struct Evaluation {
  std::string model, model_type, fingerprint;  // as in ScoreTable
  int64_t nsamples = 0, seqlen = 0;            // the tokens' rows and their length
  std::string tokens_sha256;
  std::string dtype = "float32";             // compute dtype
  double cross_entropy = 0, perplexity = 0;  // at full precision
  bool error_over_rows = false;              // what RecipeEvaluation::kl_error is of
  bool searched_unweighed = false;           // k-quants had no importance matrix
  std::vector<std::string> notes;            // what of the figures is not as it will be; for people, not logged
  std::vector<RecipeEvaluation> recipes;     // in the order given
  RunStats run;
};

// One scheme for all layers: what SchemeGenerator would give for a menu of that scheme, with the options'
// ignore_layers, layer_config, quant_lm_head and ignore_scale_zp_bits. Layers that the scheme does not suit stay at 16
// bits, k-quants have their stand-ins and take in the embedding. Errors: as SchemeGenerator::Create.
absl::StatusOr<Recipe> UniformRecipe(const Context& context, const MetaSkeleton& skeleton, const Scheme& scheme,
                                     const Options& options);

// Runs `tokens` through the full-precision model and through one variant for each recipe, side by side in one forward
// sweep: each block is read once, the head once (twice where a head's scale is that of the whole tensor). Weights are
// rounded to the schemes' grids (no tuning), activations are quantized where a scheme says so. k-quants are weighed by
// Options::imatrix_file and without one by nothing: the tokens measured never enter a quantizer.
//
// Takes from the options what concerns the machine: batch_size (only activation scales that span a batch depend on it),
// dtype, device (of several the first), max_vram_bytes, threads, max_ram_bytes, process_budget, work_dir, no_spill,
// io_engine; and imatrix_file and ignore_scale_zp_bits. Stages of the progress: "forward", "head".
//
// Errors: INVALID_ARGUMENT for a recipe that does not fit the model (names recipe and layer), no recipe, ids outside
// the vocabulary, a bad option; UNIMPLEMENTED for an embedding whose scheme is not row by row; RESOURCE_EXHAUSTED,
// naming the least budget that would do; DATA_LOSS for weights or logits that are NaN or infinite; CANCELLED. One
// thread for each context; not re-entrant in a progress callback.
absl::StatusOr<Evaluation> Evaluate(const Context& context, const MetaSkeleton& skeleton, const Options& options,
                                    const Calibration& tokens, const std::vector<NamedRecipe>& recipes,
                                    const EvaluateOptions& evaluate = {});

// The recipes of a recipe.json, in its order. DATA_LOSS for what is no JSON, INVALID_ARGUMENT for another format (names
// the member), UNIMPLEMENTED for another version.
absl::StatusOr<std::vector<Recipe>> ReadRecipes(const Context& context, const std::string& path);

// eval.json (docs/formats.md).
absl::Status WriteEvaluation(const Context& context, const Evaluation& evaluation, const std::string& path);
std::string EvaluationToJson(const Evaluation& evaluation);

}  // namespace autoscheme

#endif  // AUTOSCHEME_EVALUATE_H_
