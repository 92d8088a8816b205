// The table of subcommands and their flags.
#include "commands.h"

#include "absl/strings/str_cat.h"

namespace cli {
namespace {

constexpr Flag kModel{"model", "DIR", 0,
                      "Folder with config.json and safetensors files, or a repo id (org/name, org/name@revision) "
                      "that is in the local Hugging Face cache. No network is used. For 'plan' and 'inspect' also a "
                      "config.json, whose weights need not be there.",
                      true};
constexpr Flag kAliases{"aliases", "FILE", 0,
                        "JSON file of model types that are others under another name: "
                        "{\"model_type\": \"mymodel\", \"as\": \"llama\", \"rename\": {\"their_key\": "
                        "\"our_key\"}, \"set\": {\"key\": value}}, or a list of such. rename and set are about keys "
                        "of config.json."};
constexpr Flag kTokens{"tokens", "FILE", 0,
                       "Calibration token ids: .json (list of equally long lists, or objects with input_ids), .npy "
                       "(int32 or int64, two dimensions) or .safetensors (input_ids). Rows without padding.",
                       true};
constexpr Flag kTokensOfPlan{"tokens", "FILE", 0,
                             "Calibration token ids, as for 'autoscheme score'. Without it --nsamples and --seqlen say "
                             "how many there will be, 16 rows of 256 by default, or of as many as the model has "
                             "positions if these are fewer; no two of them count as alike."};
constexpr Flag kScoresIn{"scores", "FILE", 0, "Scores to select from, as written by 'autoscheme score'.", true};
constexpr Flag kScoresOut{"out", "FILE", 0,
                          "Where to write the scores (JSON); - is stdout, where then nothing else is printed.", true};
constexpr Flag kRecipeOut{"out", "FILE", 0,
                          "Where to write the recipes (JSON); - is stdout, where then nothing else is printed. Each "
                          "layer_config in it is what AutoRound takes. Needed with --avg-bits or --target-size."};
constexpr Flag kPareto{"pareto", "FILE", 0,
                       "Where to write all efficient choices of bits and loss, with the value of a further bit at each "
                       "(JSON); - is stdout."};
constexpr Flag kKeepScores{"save-scores", "FILE", 0,
                           "Also write the scores (JSON), to select for other budgets without scoring again."};
constexpr Flag kFit{"schemes", "LIST",   0, "Presets: also say which of them do not suit which layers, and why.",
                    false,     "options"};
constexpr Flag kAll{"all", nullptr, 0, "List every block. Without it blocks that are alike are listed once."};
constexpr Flag kJson{"json", nullptr, 0, "Print JSON instead of a table."};

constexpr Flag kSchemes{"schemes",
                        "LIST",
                        AUTOSCHEME_OPTION_SCHEMES,
                        "Schemes to choose from, comma separated: W2A16,W4A16,W8A16; or a JSON file with names and "
                        "objects of scheme fields. 'autoscheme schemes' lists the names.",
                        true,
                        "options"};
constexpr Flag kSubset{"schemes",
                       "LIST",
                       AUTOSCHEME_OPTION_SCHEMES,
                       "Choose from these schemes only; they must be among those that were scored.",
                       false,
                       "options"};
constexpr Flag kAvgBits{"avg-bits", "BITS[,BITS]", AUTOSCHEME_OPTION_AVG_BITS, nullptr};
constexpr Flag kTargetSize{"target-size", "SIZE[,SIZE]", AUTOSCHEME_OPTION_TARGET_SIZE, nullptr};
constexpr Flag kMaxRam{
    "max-ram", "SIZE", AUTOSCHEME_OPTION_MAX_RAM_BYTES,
    "Peak resident memory of this process that must not be exceeded: 400MiB, 2GiB, 1.5GB; 2G is "
    "2GiB, and so are K, M and T. Refused "
    "before any work if it cannot be kept. Default: the larger of 1 GiB and what full speed needs without "
    "saved activations, but at most half of what the system or the cgroup has free. 'free': no limit, and up "
    "to a quarter of what is free may serve to save time."};

constexpr Flag kMaxVram{"max-vram", "SIZE", AUTOSCHEME_OPTION_MAX_VRAM_BYTES,
                        "The same for the memory of a GPU (--device cuda), the context of this process included. "
                        "Default: nine tenths of what is free there. 'plan' needs it where there is no GPU."};

// How much of the calibration is used.
const std::vector<Flag> kCalibration = {
    {"nsamples", "N", 0, "Use the first N rows of the calibration."},
    {"seqlen", "N", 0, "Use the first N ids of each row."},
    {"max-tokens", "N", 0, "Use as many whole rows as N ids hold."},
    {"batch-size", "N", AUTOSCHEME_OPTION_BATCH_SIZE, nullptr},
    {"imatrix", "FILE", AUTOSCHEME_OPTION_IMATRIX_FILE, nullptr},
};
// What is evaluated, and on what.
constexpr Flag kEvalTokens{
    "tokens", "FILE", 0,
    "Token ids to measure on, as for 'autoscheme score'. Give others than those that the recipes "
    "were scored with, on which they may look better than they are.",
    true};
const std::vector<Flag> kEvaluated = {
    {"recipes", "FILE[,FILE]", 0, "Recipes to evaluate, as 'autoscheme run' and 'autoscheme select' write them."},
    {"schemes", "LIST", AUTOSCHEME_OPTION_SCHEMES,
     "Schemes to evaluate, each in all layers, comma separated; or a JSON file with names and objects of scheme "
     "fields.",
     false, "options"},
    {"out", "FILE", 0, "Where to write the figures (JSON); - is stdout, where then nothing else is printed."},
    kJson,
    {"worst-tokens", "N", AUTOSCHEME_OPTION_WORST_TOKENS, nullptr},
    {"by-position", nullptr, AUTOSCHEME_OPTION_BY_POSITION,
     "Also give the mean KL at each position of the rows (in the JSON)."},
    {"nsamples", "N", 0, "Use the first N rows of the tokens."},
    {"seqlen", "N", 0, "Use the first N ids of each row."},
    {"max-tokens", "N", 0, "Use as many whole rows as N ids hold."},
    {"batch-size", "N", AUTOSCHEME_OPTION_BATCH_SIZE,
     "Rows that are computed together. Figures depend on it only where the scale of activations spans a batch."},
    {"imatrix", "FILE", AUTOSCHEME_OPTION_IMATRIX_FILE,
     "Importance matrix that llama-imatrix has made of this model (.gguf or .dat), for k-quants. Without it they are "
     "searched unweighed: the tokens that are measured never enter a quantizer."},
    {"ignore-scale-zp-bits", nullptr, AUTOSCHEME_OPTION_IGNORE_SCALE_ZP_BITS, nullptr},
};
// Which layers take part, and how they are counted.
const std::vector<Flag> kRules = {
    {"ignore-layers", "LIST", AUTOSCHEME_OPTION_IGNORE_LAYERS, nullptr},
    {"layer-config", "FILE", AUTOSCHEME_OPTION_LAYER_CONFIG,
     "JSON file with an object of schemes fixed beforehand: a layer's name, a part of it or a regular expression -> a "
     "scheme's name or an object of its fields; or a recipe.json of one recipe."},
    {"quant-lm-head", nullptr, AUTOSCHEME_OPTION_QUANT_LM_HEAD, nullptr},
};
const std::vector<Flag> kSelection = {
    {"shared-layers", "GROUPS", AUTOSCHEME_OPTION_SHARED_LAYERS, nullptr},
    {"ignore-scale-zp-bits", nullptr, AUTOSCHEME_OPTION_IGNORE_SCALE_ZP_BITS, nullptr},
};
constexpr Flag kReferenceRules{"reference-rules", nullptr, AUTOSCHEME_OPTION_REFERENCE_RULES, nullptr};
constexpr Flag kScorer{
    "scorer", "auto|deltaloss|fisher|fisher-labels", AUTOSCHEME_OPTION_SCORER,
    "How the loss of a scheme is measured: deltaloss by the gradients of the network that is quantized with it, as "
    "AutoRound does; fisher by one gradient for all schemes, fisher-labels by another (docs/scorers.md). Default: "
    "auto, what chooses best, which is fisher; with --reference-rules deltaloss."};
const std::vector<Flag> kMachine = {
    {"threads", "N", AUTOSCHEME_OPTION_THREADS,
     "Threads that compute. Default: as many as LibTorch takes, but no more than the CPU quota of the cgroup gives "
     "time to."},
    {"dtype", "NAME", AUTOSCHEME_OPTION_DTYPE, nullptr},
    {"device", "cpu|cuda|cuda:N|cuda:0,cuda:1", AUTOSCHEME_OPTION_DEVICE, nullptr},
    {"work-dir", "DIR", AUTOSCHEME_OPTION_WORK_DIR,
     "Folder for spill files, and for results whose own place fails at the end; empty means TMPDIR, else /tmp."},
    {"no-spill", nullptr, AUTOSCHEME_OPTION_NO_SPILL, nullptr},
    {"io-engine", "NAME", AUTOSCHEME_OPTION_IO_ENGINE, nullptr},
};
const std::vector<Flag> kVerify = {
    {"verify", nullptr, 0,
     "Measure the recipe, and the uniform schemes that keep to its target, on the last quarter of the rows, which is "
     "then not scored; if a uniform one moves the predictions less, it is taken. Default with --scorer auto from four "
     "rows on."},
    {"no-verify", nullptr, 0, "Score all rows and measure nothing."},
    {"verify-tokens", "FILE", 0,
     "Measure on all of these rows instead (--nsamples, --seqlen and --max-tokens do not shorten them), and score all "
     "of --tokens."},
};
constexpr Flag kUntilStable{
    "until-stable", nullptr, 0,
    "Score one batch of the calibration, then as many rows as so far again and again, and stop when the choice no "
    "longer changes: when layers of at most 1% of the weights have another scheme than before. Each step reads the "
    "model again."};
constexpr Flag kRefine{
    "refine",
    "N",
    0,
    "Also measure N recipes near the choice, on the rows of the verification, and take the one that is surely better, "
    "if one is. Three forward sweeps, whose cost is said before they begin. Implies --verify.",
};
const std::vector<Flag> kReport = {
    {"progress", "bar|json|none", 0, "Progress on stderr. Default: bar on a terminal, else none."},
    {"quiet", nullptr, 0, "No progress, no warnings, no table."},
};

bool HasTarget(const Flags& flags) { return !flags.Get("avg-bits").empty() || !flags.Get("target-size").empty(); }

absl::Status CheckScorer(const Flags& flags) {
  const std::string& scorer = flags.Get("scorer");
  if (flags.Has("reference-rules") && !scorer.empty() && scorer != "auto" && scorer != "deltaloss") {
    return absl::InvalidArgumentError(
        absl::StrCat("--reference-rules does as AutoRound does, whose scorer is deltaloss; --scorer is ", scorer));
  }
  return absl::OkStatus();
}

absl::Status CheckRun(const Flags& flags) {
  const absl::Status scorer = CheckScorer(flags);
  if (!scorer.ok()) return scorer;
  if (!HasTarget(flags)) return absl::InvalidArgumentError("no target: give --avg-bits BITS or --target-size SIZE");
  if (flags.Get("out").empty()) return absl::InvalidArgumentError("flag --out FILE is missing");
  if (flags.Get("out") == flags.Get("save-scores")) {
    return absl::InvalidArgumentError(absl::StrCat("--out and --save-scores are the same file, ", flags.Get("out")));
  }
  const absl::StatusOr<int64_t> refine = flags.GetCount("refine");
  if (!refine.ok()) return refine.status();
  if (flags.Has("no-verify") && flags.Has("refine")) {
    return absl::InvalidArgumentError(
        "--refine measures on the rows that --no-verify does not hold back: give one of them");
  }
  if (flags.Has("no-verify") && (flags.Has("verify") || flags.Has("verify-tokens"))) {
    return absl::InvalidArgumentError("--no-verify goes with neither --verify nor --verify-tokens");
  }
  return absl::OkStatus();
}

absl::Status CheckSelect(const Flags& flags) {
  const bool has_pareto = !flags.Get("pareto").empty(), has_out = !flags.Get("out").empty();
  if (!HasTarget(flags) && !has_pareto) {
    return absl::InvalidArgumentError("nothing to do: give --avg-bits BITS or --target-size SIZE, or --pareto FILE");
  }
  if (HasTarget(flags) && !has_out) return absl::InvalidArgumentError("flag --out FILE is missing");
  if (!HasTarget(flags) && has_out) {
    return absl::InvalidArgumentError("--out has nothing to hold: give --avg-bits BITS or --target-size SIZE");
  }
  if (has_out && flags.Get("out") == flags.Get("pareto")) {
    return absl::InvalidArgumentError(absl::StrCat("--out and --pareto are the same file, ", flags.Get("out")));
  }
  return absl::OkStatus();
}

absl::Status CheckEval(const Flags& flags) {
  if (flags.Get("recipes").empty() && flags.Get("schemes").empty()) {
    return absl::InvalidArgumentError("nothing to evaluate: give --recipes FILE, or --schemes LIST, or both");
  }
  if (flags.Has("by-position") && !flags.Has("json") && flags.Get("out").empty()) {
    return absl::InvalidArgumentError("--by-position goes into the JSON: give --out FILE or --json with it");
  }
  return absl::OkStatus();
}

std::vector<Flag> Join(const std::vector<std::vector<Flag>>& parts) {
  std::vector<Flag> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace

const std::vector<Command>& Commands() {
  static const auto* const commands = new std::vector<Command>{
      {"inspect",
       "Print a model's structure: blocks, tensors, what of it can be quantized",
       {kModel, kAliases, kFit, kAll, kJson},
       Inspect,
       CheckInspect},
      {"plan", "Print what scoring would hold in memory and read, without running it",
       Join({{kModel, kAliases, kSchemes, kTokensOfPlan, kReferenceRules, kScorer, kMaxRam, kMaxVram, kJson},
             kCalibration,
             kRules,
             kMachine}),
       MakePlan, CheckScorer},
      {"score", "Measure every layer under every scheme and write the scores",
       Join({{kModel, kAliases, kSchemes, kTokens, kScoresOut, kReferenceRules, kScorer, kMaxRam, kMaxVram},
             kCalibration,
             kRules,
             kMachine,
             kReport}),
       Score, CheckScorer},
      {"select", "Choose a scheme for each layer from stored scores, for one or several budgets",
       Join({{kScoresIn, kAvgBits, kTargetSize, kRecipeOut, kPareto, kSubset, kReferenceRules}, kSelection, kReport}),
       Select, CheckSelect},
      {"run", "Score, select and measure the choice in one",
       Join({{kModel, kAliases, kSchemes, kTokens, kAvgBits, kTargetSize, kRecipeOut, kKeepScores, kReferenceRules,
              kScorer, kUntilStable, kRefine, kMaxRam, kMaxVram},
             kCalibration,
             kRules,
             kSelection,
             kVerify,
             kMachine,
             kReport}),
       Run, CheckRun},
      {"eval", "Measure what recipes and schemes do to the model's predictions, side by side",
       Join({{kModel, kAliases, kEvalTokens}, kEvaluated, kRules, {kMaxRam, kMaxVram}, kMachine, kReport}), Eval,
       CheckEval},
      {"schemes", "List the schemes that are known by name", {}, Schemes},
  };
  return *commands;
}

}  // namespace cli
