// Whole runs on a device that works in plain memory: the way of a GPU's run, but for the GPU.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "autoscheme/evaluate.h"
#include "autoscheme/scheme_generator.h"
#include "device/torch_devices.h"
#include "quant/one_lane.h"
#include "support/stand_in_device.h"

namespace autoscheme {
namespace {

const std::string kCase = std::string(AUTOSCHEME_GOLDEN_DIR) + "/scores/llama_ragged";
constexpr int64_t kMiB = int64_t{1} << 20;

// A stand-in that is found by its name.
struct OnStandIn {
  explicit OnStandIn(const StandInOptions& options = {})
      : stand_in(options), device(Device::Open(stand_in.api(), 0).value()), registered({device}) {}
  StandIn stand_in;
  std::shared_ptr<const Device> device;
  StandInDevices registered;
};

struct Run {
  std::unique_ptr<MetaSkeleton> skeleton = MetaSkeleton::Open({}, kCase + "/model").value();
  Calibration calibration = ReadCalibration({}, kCase + "/tokens.json").value();
  Context context;
  Options options;
  RunStats stats;
  Run() {
    options.schemes = ParseSchemeList("W2A16,W4A16,W8A16").value();
    options.batch_size = 2;  // there are 5 rows: the last batch has one
    options.dtype = "float32";
  }
  absl::StatusOr<ScoreTable> Score() {
    auto generator = SchemeGenerator::Create(context, *skeleton, options);
    if (!generator.ok()) return generator.status();
    auto table = (*generator)->Score(calibration);
    stats = (*generator)->stats();
    return table;
  }
  absl::StatusOr<Plan> MakePlan() {
    auto generator = SchemeGenerator::Create(context, *skeleton, options);
    if (!generator.ok()) return generator.status();
    return (*generator)->MakePlan(calibration);
  }
};

double WorstDifference(const ScoreTable& a, const ScoreTable& b) {
  double worst = 0;
  const auto compare = [&](double x, double y) {
    worst = std::max(worst, std::abs(x - y) / std::max(std::abs(x), 1e-9));
  };
  for (size_t s = 0; s < a.scores.size(); ++s) {
    for (size_t l = 0; l < a.layers.size(); ++l) {
      compare(a.scores[s][l].weight, b.scores[s][l].weight);
      compare(a.scores[s][l].activation, b.scores[s][l].activation);
    }
    for (size_t batch = 0; batch < a.ce_loss[s].size(); ++batch) compare(a.ce_loss[s][batch], b.ce_loss[s][batch]);
  }
  return worst;
}

// Calls `body` with a stand-in device that computes by LibTorch's operators, then with one that has kernels, which must
// be left empty and unharmed.
void OnBothKinds(Run& run, const std::function<void(OnStandIn& on)>& body) {
  for (const DeviceQuantApi* const quant : {static_cast<const DeviceQuantApi*>(nullptr), &kOneLaneQuant}) {
    StandInOptions options;
    options.quant = quant;
    OnStandIn on(options);
    run.options.device = "stand-in";
    INFO((quant == nullptr ? "by operators" : "by kernels"));
    body(on);
    CHECK(on.stand_in.used_bytes(0) == 0);
    CHECK(on.stand_in.Misuse() == "");
    run.options.device = "cpu";
  }
}

TEST_CASE("a run on a device gives the scores of the processor, and leaves nothing there") {
  for (const auto& [menu, most] :
       {std::pair("W2A16,W4A16,W8A16", 1e-6), {"MXFP4,NVFP4,FP8_STATIC", 2e-5}, {"W4A16,GGUF:Q4_K_S", 3e-3}}) {
    Run run;
    run.options.schemes = ParseSchemeList(menu).value();
    run.options.quant_lm_head = true;
    const ScoreTable on_processor = run.Score().value();
    INFO(menu);
    OnBothKinds(run, [&, most = most](OnStandIn& on) {
      const auto table = run.Score();
      INFO(table.status());
      REQUIRE(table.ok());
      CHECK(WorstDifference(on_processor, *table) < most);
      CHECK(run.stats.read_bytes == run.stats.planned_read_bytes);
      CHECK(on.stand_in.calls(StandInCall::kCopyUp) > 0);
      CHECK(on.stand_in.calls(StandInCall::kMultiply) > 0);
    });
  }
}

TEST_CASE("errors of candidates are on a device what they are on the processor") {
  // A last bit of an input may become a step of its code, which under 4 bits is a percent of a layer's loss.
  for (const auto& [menu, most] : {std::pair("W2A16,W4A16,W8A16", 1e-5), {"W4A16,MXFP4,FP8_STATIC", 3e-2}}) {
    Run run;
    run.options.schemes = ParseSchemeList(menu).value();
    run.options.scorer = "fisher";
    run.options.quant_lm_head = true;
    const ScoreTable on_processor = run.Score().value();
    INFO(menu);
    OnBothKinds(run, [&, most = most](OnStandIn& on) {
      const auto table = run.Score();
      INFO(table.status());
      REQUIRE(table.ok());
      CHECK(WorstDifference(on_processor, *table) < most);
      CHECK(on.stand_in.most_used_bytes(0) <= run.stats.planned_vram_bytes);
    });
  }
}

TEST_CASE("an evaluation on a device gives the figures of the processor, within what was planned") {
  Run run;
  std::vector<NamedRecipe> recipes;
  run.options.quant_lm_head = true;
  for (const char* scheme : {"W4A16", "MXFP8", "NVFP4"}) {
    recipes.push_back({scheme, UniformRecipe({}, *run.skeleton, *FindScheme(scheme), run.options).value()});
  }
  recipes[0].recipe.total_params = 0;
  recipes[0].recipe.layers.push_back({"model.embed_tokens", *FindScheme("W4A16"), false});
  const auto evaluate = [&] { return Evaluate({}, *run.skeleton, run.options, run.calibration, recipes, {}); };
  const Evaluation on_processor = evaluate().value();
  OnBothKinds(run, [&](OnStandIn& on) {
    const auto evaluation = evaluate();
    INFO(evaluation.status());
    REQUIRE(evaluation.ok());
    for (size_t r = 0; r < recipes.size(); ++r) {
      CHECK(evaluation->recipes[r].kl == Approx(on_processor.recipes[r].kl).epsilon(2e-5));
      CHECK(evaluation->recipes[r].top1 == on_processor.recipes[r].top1);
    }
    CHECK(evaluation->run.read_bytes == evaluation->run.planned_read_bytes);
    CHECK(on.stand_in.most_used_bytes(0) <= evaluation->run.planned_vram_bytes);
  });
}

TEST_CASE("any feasible budget of a device gives the same scores, and what is allocated there is what was planned") {
  Run run;
  const ScoreTable on_processor = run.Score().value();
  OnStandIn on;
  run.options.device = "stand-in";
  const Plan free = run.MakePlan().value();
  CHECK(free.device == "stand-in:0");
  CHECK(free.inputs_in_vram);
  CHECK(free.vram_least_bytes < free.vram_peak_bytes);
  for (int step = 0; step <= 4; ++step) {
    run.options.max_vram_bytes = static_cast<int64_t>(
        free.vram_least_bytes + (free.vram_peak_bytes - free.vram_least_bytes) * static_cast<uint64_t>(step) / 4);
    const auto table = run.Score();
    INFO(step << ": " << table.status());
    REQUIRE(table.ok());
    CHECK(WorstDifference(on_processor, *table) < 1e-6);
    CHECK(run.stats.planned_vram_bytes <= static_cast<uint64_t>(run.options.max_vram_bytes));
    CHECK(on.stand_in.most_used_bytes(0) <= run.stats.planned_vram_bytes);
  }
}

TEST_CASE("a device's budget that nothing fits names the least that does, and the handle stays of use") {
  Run run;
  OnStandIn on;
  run.options.device = "stand-in";
  run.options.max_vram_bytes = kMiB;
  const absl::Status small = run.Score().status();
  CHECK(small.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(small.message()), Catch::Contains("smallest max_vram_bytes that works is"));
  run.options.max_vram_bytes = 0;
  CHECK(run.Score().ok());
}

TEST_CASE("several devices share the variants and read the weights once") {
  Run run;
  run.options.schemes = ParseSchemeList("W2A16,W4A16,FP8_STATIC,MXFP4").value();
  run.options.quant_lm_head = true;
  const ScoreTable on_processor = run.Score().value();
  StandInOptions options;
  options.devices = 2;
  StandIn stand_in(options);
  // Tensors in plain memory are all taken for the first device's, whose products would come from both threads.
  setenv("AUTOSCHEME_DEVICE_KERNELS", "0", 1);
  std::vector<std::shared_ptr<const Device>> devices;
  for (int i = 0; i < 2; ++i) devices.push_back(Device::Open(stand_in.api(), i).value());
  unsetenv("AUTOSCHEME_DEVICE_KERNELS");
  StandInDevices registered(devices);
  run.options.device = "stand-in:0";
  const ScoreTable on_one = run.Score().value();
  const uint64_t read_by_one = run.stats.read_bytes;
  run.options.device = "stand-in:0,stand-in:1";
  std::string stages;
  run.context.progress = [&](const Progress& p) {
    if (p.done == 1) stages += std::string(p.stage) + " ";
    return absl::OkStatus();
  };
  const auto on_two = run.Score();
  INFO(on_two.status());
  REQUIRE(on_two.ok());
  CHECK(WorstDifference(on_one, *on_two) == 0);
  CHECK(WorstDifference(on_processor, *on_two) < 2e-5);
  CHECK(stages == "forward head backward ");
  CHECK(run.stats.read_bytes == run.stats.planned_read_bytes);
  CHECK(run.stats.read_bytes < read_by_one + read_by_one / 10);  // embedding rows and norms are read by each
  CHECK(stand_in.most_used_bytes(1) > 0);
  CHECK(stand_in.Misuse() == "");
  // A host that stops the run stops all devices.
  run.context.progress = [](const Progress&) { return absl::CancelledError("enough"); };
  CHECK(run.Score().status().code() == absl::StatusCode::kCancelled);
  CHECK(stand_in.used_bytes(0) == 0);
  CHECK(stand_in.used_bytes(1) == 0);
}

TEST_CASE("a plan for a device that is not here needs a budget, and says so") {
  Run run;
  run.options.device = "cuda:7";
  run.options.plan_only = true;
  CHECK(run.MakePlan().status().code() == absl::StatusCode::kInvalidArgument);
  run.options.max_vram_bytes = 4096 * kMiB;
  std::string warning;
  run.context.log = [&](LogLevel, absl::string_view text) { warning = std::string(text); };
  const Plan plan = run.MakePlan().value();
  CHECK(plan.vram_peak_bytes <= static_cast<uint64_t>(run.options.max_vram_bytes));
  CHECK_THAT(warning, Catch::Contains("not here"));
  CHECK(run.Score().status().code() == absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace autoscheme
