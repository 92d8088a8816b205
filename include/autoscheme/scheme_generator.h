// SchemeGenerator: options + calibration tokens -> scores -> recipes. Runs the whole (lib/pipeline.cc).
#ifndef AUTOSCHEME_SCHEME_GENERATOR_H_
#define AUTOSCHEME_SCHEME_GENERATOR_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "autoscheme/calibration.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/meta_skeleton.h"
#include "autoscheme/recipe.h"
#include "autoscheme/run_stats.h"
#include "autoscheme/score_table.h"

namespace autoscheme {

struct Options {
  std::vector<Scheme> schemes;       // the menu; the first one decides the shape rules (docs/algorithm.md 2.5)
  int64_t batch_size = 8;            // sequences whose loss is one mean (docs/algorithm.md 6.2)
  std::string scorer = "deltaloss";  // one of those that capi/option_table.cc lists and explains
  // What is computed in: "float32"; "bfloat16"; "mixed", float32 but for the matrix products of the backward
  // pass, whose operands are bfloat16; "tf32", the same with operands that a GPU rounds to TF32; "auto": tf32 on a GPU,
  // mixed on a CPU that multiplies bfloat16 in hardware, else float32; "default": tf32 on a GPU, else float32. On a CPU
  // without such hardware products of bfloat16 are formed in float32 and rounded, in about the time of float32.
  std::string dtype = "default";
  // "cpu", "cuda", "cuda:N", or several of the latter, comma separated, which share the schemes. INVALID_ARGUMENT for a
  // malformed name, UNIMPLEMENTED for an unknown one; NOT_FOUND and FAILED_PRECONDITION where it cannot be used here.
  std::string device = "cpu";
  // A promise like max_ram_bytes, for the device's memory: what this process takes of it, its context included. 0: nine
  // tenths of what is free there. Without effect on a CPU.
  int64_t max_vram_bytes = 0;
  // The generator is for MakePlan alone, and the device need not be there: max_vram_bytes must then be given.
  bool plan_only = false;
  // LibTorch's threads, for the calling thread only; 0 = leave as the process has it, -1 = the same, but no more than
  // the cgroups' CPU quota gives time to.
  int threads = 0;
  // A promise: with process_budget the peak RSS of the whole process (what the autoscheme program uses), else what the
  // library itself holds. 0: the larger of 1 GiB and what full speed needs without saved activations, but at most half
  // of what the system and the cgroups have free. kAllThatServes: no limit, and up to a quarter of what is free for
  // what only saves time.
  int64_t max_ram_bytes = 0;
  static constexpr int64_t kAllThatServes = -1;
  // Counts on an allocator that gives freed buffers above 1 MiB back to the system: the program sets malloc so; the
  // library leaves the host's alone.
  bool process_budget = false;
  std::string work_dir;   // for the spill file; empty: TMPDIR, else /tmp
  bool no_spill = false;  // nothing is written to disk: what memory has no room for is computed again
  IoEngine io_engine = IoEngine::kAuto;
  // An importance matrix that llama-imatrix has made of this model (GGUF or .dat), for k-quants; empty: it is
  // collected from the calibration. Layers that the file lacks are quantized without one.
  std::string imatrix_file;
  std::string ignore_layers;  // comma separated: these stay at 16 bits (docs/algorithm.md 2.3)
  // Layers fixed by the user: pattern -> scheme (docs/algorithm.md 2.3).
  std::vector<std::pair<std::string, Scheme>> layer_config;
  bool quant_lm_head = false;  // score and budget the head too
  bool ignore_scale_zp_bits = false;
  std::vector<std::vector<std::string>> shared_layers;
  // Score k-quants themselves where stand-ins will replace them, and select by SelectOptions::reference_rules.
  bool reference_rules = false;
};

// What a run will hold and read, known before any work. Bytes.
struct PlanItem {
  std::string name;
  uint64_t bytes = 0;
};
struct Plan {
  std::vector<PlanItem> resident;  // what is alive at the peak, by item
  uint64_t peak_bytes = 0;         // their sum: the promised peak
  uint64_t least_bytes = 0;        // the smallest max_ram_bytes that is sure to do
  uint64_t budget_bytes = 0;       // what the peak keeps to; 0 = none
  std::string budget_reason;       // whose number that is, in words
  uint64_t read_bytes = 0;         // from the checkpoint
  uint64_t spill_bytes = 0;        // size of the spill files, 0 when saved inputs stay in RAM
  bool inputs_in_ram = true;
  int64_t input_interval = 1;  // inputs of every so many units are stored; those between are computed again
  double flops = 0;            // multiplications and additions of the matrix products
  double estimated_s = 0;      // by a short measurement of this machine's products and reads
  // Choices. A unit is read, computed and differentiated as a whole: a block, or one sublayer of it (attention, MLP).
  int64_t units = 0;
  int64_t slots = 0;             // units in memory at once while they stream; 1 = no read-ahead
  int64_t micro_batch_rows = 0;  // rows of a batch that are computed at once
  uint64_t tile_bytes = 0;       // size of a row tile, where not even one unit fits; 0 = whole units
  int64_t saved_units = 0;       // units whose activations stay, so that they need not be computed twice
  int64_t cached_units = 0;      // units whose weights stay, so that they need not be read twice
  // On a device other than the processor, bytes of its memory, as above; nothing and 0 without one. No figure of a GPU
  // is behind these yet (docs/cuda.md names what is assumed).
  std::string device = "cpu";
  std::vector<PlanItem> vram_resident;
  uint64_t vram_peak_bytes = 0, vram_least_bytes = 0, vram_budget_bytes = 0;
  std::string vram_budget_reason;
  bool inputs_in_vram = false;  // saved inputs; else inputs_in_ram says where they are
};

// Thread-safety: one thread at a time; cancel Score and Select through the context from any. FAILED_PRECONDITION in a
// thread that computed before its process was forked off.
class SchemeGenerator {
 public:
  // `skeleton` is borrowed. INVALID_ARGUMENT for a bad option (names it); UNIMPLEMENTED for a scheme or device that
  // this build cannot run.
  static absl::StatusOr<std::unique_ptr<SchemeGenerator>> Create(const Context& context, const MetaSkeleton& skeleton,
                                                                 Options options);
  ~SchemeGenerator();

  // RESOURCE_EXHAUSTED when max_ram_bytes cannot be met, or without one when less is free than the run needs at least;
  // the message names the smallest budget that would do. Calibration that Score would refuse: INVALID_ARGUMENT. Where
  // the plan spills and work_dir takes no file: as Score, NOT_FOUND or PERMISSION_DENIED.
  // For a skeleton without weights the rate of reading, of which the estimated time is made, is assumed to be 1.5 GB/s.
  absl::StatusOr<Plan> MakePlan(const Calibration& calibration) const;

  // The two sweeps. Ids outside the vocabulary: INVALID_ARGUMENT with row, column and id. NaN or infinite weights:
  // DATA_LOSS with the tensor, the count and the first index. FAILED_PRECONDITION at once where the skeleton has no
  // weights.
  absl::StatusOr<ScoreTable> Score(const Calibration& calibration);

  // Scores the first batch, then as many rows as so far again and again, until what Select gives for each target has
  // the scheme of before for all layers but such with at most 1% of the weights, or the rows are used up (which is
  // logged, as each step is). ScoreTable::nsamples tells how many rows were used: the table is that of one run over
  // these, but for k-quants that are weighed by what each part has collected. The model is read once more for each
  // step. Errors: as Score and CheckTargets, and INVALID_ARGUMENT without a target.
  absl::StatusOr<ScoreTable> ScoreUntilStable(const Calibration& calibration, const std::vector<double>& avg_bits,
                                              const std::vector<int64_t>& target_bytes = {});

  // INVALID_ARGUMENT where Select would refuse a target whatever the scores: known from shapes and menu, before any
  // work.
  absl::Status CheckTargets(const std::vector<double>& avg_bits, const std::vector<int64_t>& target_bytes) const;

  // SelectRecipes with this generator's options.
  absl::StatusOr<std::vector<Recipe>> Select(const ScoreTable& table, const std::vector<double>& avg_bits,
                                             const std::vector<int64_t>& target_bytes = {}) const;

  // Measures recipes near those that Select gave from this table, `evaluations` (1 to 1000) further ones for each, in
  // up to three forward sweeps over `held_back`: rows that nothing was scored on. What one sweep has measured corrects
  // the losses by which the next one's recipes are chosen (docs/scorers.md, "Refinement"). The one whose KL is most
  // surely below the recipe's takes its place, which stays where none surely is; Recipe::refined says what was found,
  // Recipe::loss is still by the table. k-quants are weighed as by Verify. What it will cost is logged before it
  // begins. Deterministic. Stages of the progress: "refine forward", "refine head". Errors: as Evaluate, and
  // INVALID_ARGUMENT for another number of evaluations; nothing is changed then.
  absl::Status Refine(const ScoreTable& table, const Calibration& held_back, int64_t evaluations,
                      std::vector<Recipe>& recipes);

  // What Refine would hold at most and read in all for as many recipes, before anything is scored; as PlanVerify.
  absl::StatusOr<Plan> PlanRefine(const Calibration& held_back, int64_t recipes, int64_t evaluations) const;

  // What Verify would hold and read for as many recipes, before anything is scored; its time is by assumed rates.
  // Errors: as Evaluate, so that rows or a budget that Verify would refuse cost no scoring.
  absl::StatusOr<Plan> PlanVerify(const Calibration& held_back, int64_t recipes) const;

  // Measures recipes that Select gave from this table, refined or not, and beside them the uniform recipe of every
  // scheme of the menu that keeps to a recipe's target, all in one forward sweep over `held_back`: rows that nothing
  // was scored on, else the figures flatter the recipe. Where a uniform recipe moves the predictions less, it takes the
  // recipe's place, and Recipe::verified says so. k-quants are weighed by the importance matrix of options or, without
  // one, by what this generator's last Score collected; where neither is, a message says so. Stages of the progress:
  // "verify forward", "verify head". Errors: as Evaluate; nothing is changed then.
  absl::Status Verify(const ScoreTable& table, const Calibration& held_back, std::vector<Recipe>& recipes);

  // The figures of the last Score(), of the last Refine() over all its sweeps, and of the last Verify().
  const RunStats& stats() const;
  const RunStats& refine_stats() const;
  const RunStats& verify_stats() const;

 private:
  struct Rep;
  explicit SchemeGenerator(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCHEME_GENERATOR_H_
