// The answer: one scheme for every layer under a bit budget. Plain values; recipe.json is described in docs/formats.md.
#ifndef AUTOSCHEME_RECIPE_H_
#define AUTOSCHEME_RECIPE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/context.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

struct LayerChoice {
  std::string layer;
  Scheme scheme;
  bool fixed = false;  // fixed before scoring, or taken from a fixed layer of its group of shared_layers
};

// A recipe of one scheme for all layers that are not fixed, as SchemeGenerator::Verify measured it.
struct MeasuredUniform {
  std::string scheme;
  double avg_bits = 0;
  double kl = 0, kl_error = 0;  // as in RecipeEvaluation
};

// What SchemeGenerator::Verify found.
struct Verified {
  int64_t nsamples = 0, seqlen = 0;  // the rows that it measured on
  std::string tokens_sha256;
  double avg_bits = 0;                    // those of the choice, by scores or after refinement
  double kl = 0, kl_error = 0;            // the same choice's, as in RecipeEvaluation
  std::vector<MeasuredUniform> uniforms;  // within the target, by rising bits
  std::string taken;  // the scheme whose uniform recipe moved less and is the recipe now; empty: none
};

// What SchemeGenerator::Refine found.
struct Refined {
  int64_t evaluations = 0;           // recipes that it measured, the choice by scores among them
  int64_t nsamples = 0, seqlen = 0;  // the rows that it measured on
  std::string tokens_sha256;
  double avg_bits_before = 0;                 // those of the choice by scores
  double kl_before = 0, kl_error_before = 0;  // the same choice's, as in RecipeEvaluation
  double kl = 0, kl_error = 0;                // the recipe's that it gave
  bool changed = false;                       // whether that is another one
};

struct Recipe {
  double target_avg_bits = 0;  // what was asked for
  double avg_bits = 0;         // what the choice costs: total_bits / total_params
  double loss = 0;             // predicted: sum of the chosen layers' losses
  // No choice within the target that the rules for embedding and head allow (docs/algorithm.md 8.4, 8.5) has less loss
  // than loss - gap; 0 = proven optimal.
  double gap = 0;
  int64_t total_bits = 0;    // storage bits of all layers, scales included unless ignored (docs/algorithm.md 7.1)
  int64_t total_params = 0;  // weights of all layers, fixed ones included
  int64_t target_bytes = 0;  // the whole model's, if that was asked for instead; target_avg_bits is then avg_bits
  // What the layers take in the files that runtimes load (block sizes, scales and zero points as they are stored), and
  // the whole model with its other tensors at their stored size; 0 where the table does not say how large those are.
  int64_t layer_bytes = 0;
  int64_t model_bytes = 0;
  std::vector<LayerChoice> layers;  // in the order of ScoreTable::layers
  std::optional<Refined> refined;
  std::optional<Verified> verified;
};

struct SelectOptions {
  std::vector<double> avg_bits;       // targets, bits per weight; each gives one recipe
  std::vector<int64_t> target_bytes;  // further targets: size of the whole model as it is stored; each gives one recipe
  std::vector<std::string> schemes;   // menu, a subset of the table's schemes by name; empty = all of them
  bool ignore_scale_zp_bits = false;  // count only bits x weights (docs/algorithm.md 7.1)
  // Layers that must get the same scheme: each entry is one group of patterns (docs/algorithm.md 2.6). Where some of a
  // group are fixed, the others take their scheme.
  std::vector<std::vector<std::string>> shared_layers;
  // Charge and choose as the reference does, for comparison with it: k-quants are charged as themselves where stand-ins
  // replace them afterwards, so a recipe may cost more than its target; a larger target may give more loss; fixed
  // layers split a group of shared_layers. INVALID_ARGUMENT for scores that were measured with stand-ins.
  bool reference_rules = false;
};

// Solves for every target from one table: within the target, and never with more loss than a smaller target gives (but
// for `gap`). Pure and deterministic; never touches the model. Errors: INVALID_ARGUMENT for no target, a target out of
// reach (names the reachable range), an unknown scheme, a size for a table without other_bytes, a group of
// shared_layers that no one scheme can serve (names its layers and schemes); DATA_LOSS when a layer has no finite loss
// under any scheme (names it).
absl::StatusOr<std::vector<Recipe>> SelectRecipes(const ScoreTable& table, const SelectOptions& options,
                                                  const Context& context = {});

// File formats (docs/formats.md, which also says how files are written: whole, and through links). CheckOutputs
// (output.h) says beforehand whether they can be.
absl::Status WriteScores(const Context& context, const ScoreTable& table, const std::string& path);
absl::StatusOr<ScoreTable> ReadScores(const Context& context, const std::string& path);
absl::Status WriteRecipes(const Context& context, const std::vector<Recipe>& recipes, const std::string& path);
std::string ScoresToJson(const ScoreTable& table);
std::string RecipesToJson(const std::vector<Recipe>& recipes);

}  // namespace autoscheme

#endif  // AUTOSCHEME_RECIPE_H_
