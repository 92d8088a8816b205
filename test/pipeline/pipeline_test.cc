// The whole through the C++ API, on a tiny model of two blocks.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "autoscheme/scheme_generator.h"
#include "base/system_limits.h"
#include "support/made_system.h"

namespace autoscheme {
namespace {

const std::string kCase = std::string(AUTOSCHEME_GOLDEN_DIR) + "/scores/llama_ragged";

struct Fixture {
  std::unique_ptr<MetaSkeleton> skeleton = MetaSkeleton::Open({}, kCase + "/model").value();
  Calibration calibration = ReadCalibration({}, kCase + "/tokens.json").value();
  Options options;
  Context context;
  Fixture() {
    options.schemes = ParseSchemeList("W2A16,MXFP4").value();
    options.batch_size = 2;  // 5 rows: the last batch has 1
  }
  absl::StatusOr<ScoreTable> Score() {
    auto generator = SchemeGenerator::Create(context, *skeleton, options);
    if (!generator.ok()) return generator.status();
    auto table = (*generator)->Score(calibration);
    stats = (*generator)->stats();
    return table;
  }
  RunStats stats;
};

double WorstDifference(const ScoreTable& a, const ScoreTable& b) {
  double worst = 0;
  auto compare = [&](double x, double y) { worst = std::max(worst, std::abs(x - y) / std::max(std::abs(x), 1e-9)); };
  for (size_t s = 0; s < a.scores.size(); ++s) {
    for (size_t l = 0; l < a.layers.size(); ++l) {
      compare(a.scores[s][l].weight, b.scores[s][l].weight);
      compare(a.scores[s][l].activation, b.scores[s][l].activation);
    }
  }
  return worst;
}

TEST_CASE("the blocks are read exactly twice whatever the number of schemes and batches") {
  Fixture f;
  uint64_t blocks = 0;
  for (const Block& block : f.skeleton->blocks()) blocks += block.bytes;
  std::vector<int32_t> distinct = f.calibration.ids;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  const uint64_t row_bytes = f.skeleton->embedding()->bytes / f.skeleton->embedding()->shape[0];
  const uint64_t norm_bytes = f.skeleton->other_tensors()[0]->bytes;
  for (const char* menu : {"W4A16", "W2A16,W4A16,W8A16,MXFP4"}) {
    for (const int64_t batch_size : {1, 3, 8}) {
      f.options.schemes = ParseSchemeList(menu).value();
      f.options.batch_size = batch_size;
      REQUIRE(f.Score().ok());
      CHECK(f.stats.read_bytes ==
            2 * blocks + f.skeleton->head().weight->bytes + distinct.size() * row_bytes + norm_bytes);
      CHECK(f.stats.read_bytes == f.stats.planned_read_bytes);
    }
  }
}

TEST_CASE("every I/O engine gives the same scores from the same bytes") {
  Fixture f;
  f.options.io_engine = IoEngine::kBuffered;
  const ScoreTable reference = f.Score().value();
  CHECK(f.stats.io_engine == IoEngine::kBuffered);
  for (const IoEngine engine : {IoEngine::kDirect, IoEngine::kAuto}) {
    f.options.io_engine = engine;
    const ScoreTable table = f.Score().value();
    CHECK(WorstDifference(reference, table) == 0);
    CHECK(f.stats.read_bytes == f.stats.planned_read_bytes);
    if (engine == IoEngine::kAuto) CHECK(f.stats.io_engine == IoEngine::kBuffered);  // a small model
  }
}

TEST_CASE("any feasible budget gives the same scores") {
  Fixture f;
  const auto generator = SchemeGenerator::Create({}, *f.skeleton, f.options).value();
  const Plan free = generator->MakePlan(f.calibration).value();
  CHECK(free.inputs_in_ram);
  CHECK(free.least_bytes < free.peak_bytes);
  const ScoreTable unlimited = f.Score().value();
  bool spilled = false;
  for (int step = 0; step <= 6; ++step) {
    f.options.max_ram_bytes = static_cast<int64_t>(free.least_bytes + (free.peak_bytes - free.least_bytes) * step / 6);
    const auto table = f.Score();
    REQUIRE(table.ok());
    CHECK(f.stats.planned_peak_bytes <= static_cast<uint64_t>(f.options.max_ram_bytes));
    CHECK(WorstDifference(unlimited, *table) < 1e-5);
    spilled = spilled || f.stats.spill_bytes > 0;
  }
  CHECK(spilled);
}

TEST_CASE("one gradient for all schemes gives the same scores under any budget, and computes what was planned") {
  Fixture f;
  f.options.schemes = ParseSchemeList("W2A16,W4A16,W8A16,MXFP4,FP8_STATIC").value();
  f.options.scorer = "fisher";
  f.options.quant_lm_head = true;
  const auto generator = SchemeGenerator::Create({}, *f.skeleton, f.options).value();
  const Plan free = generator->MakePlan(f.calibration).value();
  const ScoreTable unlimited = f.Score().value();
  CHECK(unlimited.scorer == "fisher");
  for (const std::vector<double>& losses : unlimited.ce_loss) CHECK(losses.empty());
  for (int step = 0; step <= 4; ++step) {
    f.options.max_ram_bytes = static_cast<int64_t>(free.least_bytes + (free.peak_bytes - free.least_bytes) * step / 4);
    const Plan plan = SchemeGenerator::Create({}, *f.skeleton, f.options).value()->MakePlan(f.calibration).value();
    const auto table = f.Score();
    REQUIRE(table.ok());
    CHECK(f.stats.read_bytes == f.stats.planned_read_bytes);
    CHECK(f.stats.product_flops == Approx(plan.flops).epsilon(0.01));
    CHECK(WorstDifference(unlimited, *table) < 2e-5);
  }
}

// What is free on the made system; of a plan there.
std::string Meminfo(uint64_t available_bytes) {
  return "MemAvailable: " + std::to_string(available_bytes / 1024) + " kB\n";
}

struct PlanOn {
  Fixture fixture;
  std::vector<std::string> warnings;
  absl::StatusOr<Plan> operator()(const std::map<std::string, std::string>& files) {
    MadeSystem system(files);
    Context context;
    context.io = &system;
    context.log = [&](LogLevel level, absl::string_view text) {
      if (level == LogLevel::kWarning) warnings.emplace_back(text);
    };
    const auto generator = SchemeGenerator::Create(context, *fixture.skeleton, fixture.options);
    if (!generator.ok()) return generator.status();
    return (*generator)->MakePlan(fixture.calibration);
  }
};

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST_CASE("without a budget a plan keeps to 1 GiB, or what full speed needs, and to half of what is free") {
  PlanOn plan_on;
  const Plan plenty = plan_on({{"/proc/meminfo", Meminfo(64 * kGiB)}}).value();
  CHECK(plenty.budget_bytes == kGiB);
  CHECK(plenty.budget_reason == "the default");
  CHECK(plenty.saved_units > 0);
  CHECK(plenty.cached_units == 0);
  const Plan unknown = plan_on({}).value();
  CHECK(unknown.budget_bytes == kGiB);
  plan_on.fixture.options.max_ram_bytes = static_cast<int64_t>(2 * kGiB);
  CHECK(plan_on({}).value().budget_bytes == 2 * kGiB);
  CHECK(plan_on({}).value().budget_reason == "as given");
  plan_on.fixture.options.max_ram_bytes = 0;

  const uint64_t between = (plenty.least_bytes + plenty.peak_bytes) / 2 / 1024 * 1024;
  const Plan half = plan_on({{"/proc/meminfo", Meminfo(2 * between)}}).value();
  CHECK(half.budget_bytes == between);
  CHECK(half.budget_reason == "half of what the system has free");
  CHECK(half.peak_bytes <= between);
  const Plan group = plan_on({{"/proc/meminfo", Meminfo(64 * kGiB)},
                              {"/proc/self/cgroup", "0::/job\n"},
                              {"/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"},
                              {"/sys/fs/cgroup/job/memory.max", std::to_string(2 * between + 1000)},
                              {"/sys/fs/cgroup/job/memory.current", "1000"}})
                         .value();
  CHECK(group.budget_bytes == between);
  CHECK(group.budget_reason == "half of what cgroup \"/sys/fs/cgroup/job\" has free");
  CHECK(plan_on.warnings.empty());

  // The inputs of so many tokens are more than 1 GiB.
  plan_on.fixture.calibration.nsamples = int64_t{1} << 18;
  plan_on.fixture.calibration.seqlen = 32;
  plan_on.fixture.calibration.ids.assign(size_t{1} << 23, 7);
  const Plan large = plan_on({{"/proc/meminfo", Meminfo(640 * kGiB)}}).value();
  CHECK(large.budget_bytes > kGiB);
  CHECK(large.budget_reason == "what full speed needs without saved activations");
  CHECK(large.inputs_in_ram);
  CHECK(large.peak_bytes <= large.budget_bytes);
  const Plan spilled = plan_on({{"/proc/meminfo", Meminfo(kGiB)}}).value();
  CHECK(spilled.peak_bytes <= kGiB / 2);
  CHECK_FALSE(spilled.inputs_in_ram);
}

TEST_CASE(
    "where half of what is free is too little the least plan is taken with a warning, and never more than is free") {
  PlanOn plan_on;
  const uint64_t least = plan_on({}).value().least_bytes;
  const Plan plan = plan_on({{"/proc/meminfo", Meminfo(least * 3 / 2)}}).value();
  CHECK(plan.budget_bytes == least);
  CHECK(plan.peak_bytes <= least);
  REQUIRE(plan_on.warnings.size() == 1);
  CHECK_THAT(plan_on.warnings[0], Catch::Contains(std::to_string(least)) && Catch::Contains("more than half of the"));
  const auto refused = plan_on({{"/proc/meminfo", Meminfo(least * 9 / 10)}});
  CHECK(refused.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(refused.status().message()),
             Catch::Contains("at least " + std::to_string(least)) &&
                 Catch::Contains(std::to_string(least * 9 / 10 / 1024 * 1024)));
  // Who names a budget, or none, knows better.
  for (const int64_t named : {static_cast<int64_t>(least), Options::kAllThatServes}) {
    plan_on.fixture.options.max_ram_bytes = named;
    CHECK(plan_on({{"/proc/meminfo", Meminfo(1024)}}).ok());
  }
  plan_on.fixture.options.max_ram_bytes = -2;
  CHECK(plan_on({}).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("a limit of nothing keeps activations as far as a quarter of what is free goes") {
  PlanOn plan_on;
  plan_on.fixture.options.max_ram_bytes = Options::kAllThatServes;
  const Plan none = plan_on({{"/proc/meminfo", Meminfo(1024)}}).value(),
             all = plan_on({{"/proc/meminfo", Meminfo(64 * kGiB)}}).value();
  CHECK(none.saved_units == 0);
  CHECK(all.saved_units == all.units);
  CHECK(all.budget_bytes == 0);
}

TEST_CASE("threads by the CPU quota are no more than it gives time to") {
  PlanOn plan_on;
  plan_on.fixture.options.process_budget = true;  // the plan then counts what each thread holds
  const auto runtime_bytes = [&](int threads, const std::string& quota) {
    plan_on.fixture.options.threads = threads;
    const Plan plan = plan_on({{"/proc/self/cgroup", "0::/job\n"},
                               {"/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"},
                               {"/sys/fs/cgroup/job/cpu.max", quota}})
                          .value();
    for (const PlanItem& item : plan.resident) {
      if (item.name == "LibTorch's code and buffers") return item.bytes;
    }
    return uint64_t{0};
  };
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  CHECK(runtime_bytes(-1, "50000 100000") == runtime_bytes(1, "max 100000"));
  CHECK(runtime_bytes(-1, "120000 100000") == runtime_bytes(2, "max 100000"));
  CHECK(runtime_bytes(-1, "900000 100000") == runtime_bytes(3, "max 100000"));
  CHECK(runtime_bytes(-1, "max 100000") == runtime_bytes(3, "max 100000"));
  CHECK(runtime_bytes(0, "50000 100000") == runtime_bytes(3, "max 100000"));  // the host's own are left alone
  CHECK(runtime_bytes(1, "max 100000") < runtime_bytes(2, "max 100000"));
  CHECK(at::get_num_threads() == 3);
  at::set_num_threads(before);
}

TEST_CASE("a run that may not spill computes inputs again, with the same scores") {
  Fixture f;
  const ScoreTable unlimited = f.Score().value();
  f.options.no_spill = true;
  const Plan free = SchemeGenerator::Create({}, *f.skeleton, f.options).value()->MakePlan(f.calibration).value();
  CHECK(free.input_interval == 1);
  f.options.work_dir = "/nonexistent";  // nobody looks
  f.options.max_ram_bytes = static_cast<int64_t>(free.least_bytes);
  const Plan least = SchemeGenerator::Create({}, *f.skeleton, f.options).value()->MakePlan(f.calibration).value();
  CHECK(least.input_interval > 1);
  CHECK(least.spill_bytes == 0);
  CHECK(least.read_bytes > free.read_bytes);
  const auto table = f.Score();
  REQUIRE(table.ok());
  CHECK(WorstDifference(unlimited, *table) < 1e-5);
  CHECK(f.stats.spill_bytes == 0);
  CHECK(f.stats.read_bytes == f.stats.planned_read_bytes);
  f.options.no_spill = false;
  f.options.work_dir.clear();
  CHECK(SchemeGenerator::Create({}, *f.skeleton, f.options).value()->MakePlan(f.calibration).value().least_bytes <
        free.least_bytes);
  f.options.no_spill = true;
  f.options.max_ram_bytes = static_cast<int64_t>(free.least_bytes) - 1;
  const absl::Status status = f.Score().status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Catch::Contains("may spill"));
}

TEST_CASE("a plan that spills is refused where a run would be, for want of the folder") {
  Fixture f;
  f.options.max_ram_bytes = static_cast<int64_t>(
      SchemeGenerator::Create({}, *f.skeleton, f.options).value()->MakePlan(f.calibration).value().least_bytes);
  const auto generator = [&](const std::string& work_dir) {
    f.options.work_dir = work_dir;
    return SchemeGenerator::Create({}, *f.skeleton, f.options).value();
  };
  CHECK(generator("")->MakePlan(f.calibration).value().spill_bytes > 0);
  const absl::Status planned = generator("/nonexistent")->MakePlan(f.calibration).status();
  const absl::Status scored = generator("/nonexistent")->Score(f.calibration).status();
  CHECK(planned.code() == scored.code());
  CHECK(planned.code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(planned.message()),
             Catch::Contains("a run would spill ") && Catch::Contains("\"/nonexistent\" (option work_dir)"));
}

TEST_CASE("a budget that cannot be met is refused at once and names the least that works") {
  Fixture f;
  f.options.max_ram_bytes = 1000;
  const absl::Status status = f.Score().status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  const auto generator = SchemeGenerator::Create({}, *f.skeleton, f.options).value();
  CHECK(generator->MakePlan(f.calibration).status().code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Catch::Contains("A budget without a unit is in bytes"));
  f.options.max_ram_bytes = 0;
  const auto unlimited = SchemeGenerator::Create({}, *f.skeleton, f.options).value();
  const uint64_t least = unlimited->MakePlan(f.calibration).value().least_bytes;
  CHECK_THAT(std::string(status.message()), Catch::Contains(std::to_string(least)));
  f.options.max_ram_bytes = static_cast<int64_t>(least) - 1;
  const absl::Status close = f.Score().status();
  CHECK(close.code() == absl::StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(close.message()), !Catch::Contains("without a unit"));
  f.options.max_ram_bytes = static_cast<int64_t>(least);
  CHECK(f.Score().ok());
}

TEST_CASE("a plan refuses calibration that scoring would refuse, in the same words") {
  Fixture f;
  f.calibration.ids[1] = static_cast<int32_t>(f.skeleton->vocab_size());
  const absl::Status scored = f.Score().status();
  CHECK(scored.code() == absl::StatusCode::kInvalidArgument);
  CHECK(SchemeGenerator::Create({}, *f.skeleton, f.options).value()->MakePlan(f.calibration).status() == scored);
}

TEST_CASE("cancel during every step of every stage stops the run, and the next run is right") {
  Fixture f;
  const ScoreTable reference = f.Score().value();
  CancelToken cancel;
  std::vector<std::string> stages;
  int cancel_at = 0, seen = 0;
  f.context.cancel = &cancel;
  f.context.progress = [&](const Progress& p) {
    if (stages.empty() || stages.back() != p.stage) stages.emplace_back(p.stage);
    if (seen++ == cancel_at) cancel.Cancel();
    return absl::OkStatus();
  };
  int cancelled = 0;
  for (;; ++cancel_at) {
    seen = 0;
    cancel.Reset();
    const auto table = f.Score();
    if (seen <= cancel_at) break;  // the run ended before that step
    if (table.ok()) {
      CHECK(seen == cancel_at + 1);  // only after the last step is it too late
      continue;
    }
    CHECK(table.status().code() == absl::StatusCode::kCancelled);
    CHECK(seen == cancel_at + 1);
    ++cancelled;
    cancel.Reset();
    f.context.progress = nullptr;
    CHECK(WorstDifference(reference, f.Score().value()) < 1e-6);
    f.context.progress = [&](const Progress& p) {
      if (stages.empty() || stages.back() != p.stage) stages.emplace_back(p.stage);
      if (seen++ == cancel_at) cancel.Cancel();
      return absl::OkStatus();
    };
  }
  CHECK(cancelled >= 4);
  CHECK(std::count(stages.begin(), stages.end(), "forward") > 0);
  CHECK(std::count(stages.begin(), stages.end(), "head") > 0);
  CHECK(std::count(stages.begin(), stages.end(), "backward") > 0);
}

TEST_CASE("a progress callback's own status comes back") {
  Fixture f;
  f.context.progress = [](const Progress&) { return absl::AbortedError("the host had enough"); };
  CHECK(f.Score().status() == absl::AbortedError("the host had enough"));
}

TEST_CASE("calibration that does not fit the model is refused with row and column") {
  Fixture f;
  f.calibration.ids[f.calibration.seqlen + 3] = 256;
  const absl::Status outside = f.Score().status();
  CHECK(outside.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(outside.message()), Catch::Contains("row 1, column 3") && Catch::Contains("256"));
  f.calibration = {1, 1, {7}};
  CHECK(f.Score().status().code() == absl::StatusCode::kInvalidArgument);
  f.calibration = {};
  CHECK(f.Score().status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("two tokens are enough") {
  Fixture f;
  f.calibration = {1, 2, {7, 9}};
  const ScoreTable table = f.Score().value();
  for (const LayerScore& score : table.scores[0]) CHECK(score.weight >= 0);
  CHECK(table.ce_loss[0].size() == 1);
  CHECK(table.ce_loss[0][0] > 0);
}

TEST_CASE("a menu of 16-bit schemes needs no run") {
  Fixture f;
  f.options.schemes = ParseSchemeList("BF16").value();
  const ScoreTable table = f.Score().value();
  CHECK(f.stats.read_bytes == 0);
  SelectOptions select;
  select.avg_bits = {16};
  const auto recipes = SelectRecipes(table, select).value();
  CHECK(recipes[0].avg_bits == 16);
  CHECK(recipes[0].loss == 0);
}

TEST_CASE("bfloat16 scores lie near the float32 ones") {
  Fixture f;
  f.options.schemes = ParseSchemeList("W4A16").value();
  const ScoreTable wide = f.Score().value();
  f.options.dtype = "bfloat16";
  const ScoreTable narrow = f.Score().value();
  CHECK(narrow.dtype == "bfloat16");
  const double difference = WorstDifference(wide, narrow);
  CHECK(difference > 1e-6);
  CHECK(difference < 0.05);
}

TEST_CASE("the host's thread count and gradient mode stay as they were") {
  Fixture f;
  const int threads = at::get_num_threads();
  f.options.threads = threads + 1;
  at::GradMode::set_enabled(false);
  REQUIRE(f.Score().ok());
  CHECK(at::get_num_threads() == threads);
  CHECK_FALSE(at::GradMode::is_enabled());
  at::GradMode::set_enabled(true);
  REQUIRE(f.Score().ok());
  CHECK(at::GradMode::is_enabled());
}

TEST_CASE("threads that the host starts during a run and after it have the number of their own") {
  const auto in_new_thread = [] {
    int threads = 0;
    std::thread([&] { threads = at::get_num_threads(); }).join();
    return threads;
  };
  Fixture f;
  const int own = in_new_thread();
  f.options.threads = own + 1;
  int calls = 0, others = 0, here = 0;
  f.context.progress = [&](const Progress&) {
    ++calls;
    if (in_new_thread() != own) ++others;
    here = at::get_num_threads();
    return absl::OkStatus();
  };
  REQUIRE(f.Score().ok());
  CHECK(calls >= 5);
  CHECK(others == 0);
  CHECK(here == own + 1);
  CHECK(in_new_thread() == own);
}

TEST_CASE("a request to stop that is left over stops neither making a generator nor planning") {
  Fixture f;
  CancelToken cancel;
  f.context.cancel = &cancel;
  cancel.Cancel();
  const auto generator = SchemeGenerator::Create(f.context, *f.skeleton, f.options);
  REQUIRE(generator.ok());
  CHECK((*generator)->MakePlan(f.calibration).ok());
  CHECK(absl::IsCancelled((*generator)->Score(f.calibration).status()));
}

TEST_CASE("the reference's rules go with the reference's scorer") {
  Fixture f;
  f.options.reference_rules = true;
  f.options.scorer = "auto";
  CHECK(f.Score().value().scorer == "deltaloss");
  f.options.scorer = "fisher";
  CHECK(f.Score().status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("bad options are named") {
  Fixture f;
  auto code = [&] { return f.Score().status(); };
  f.options.batch_size = 0;
  CHECK_THAT(std::string(code().message()), Catch::Contains("batch_size"));
  f.options.batch_size = 2;
  f.options.dtype = "float16";
  CHECK_THAT(std::string(code().message()), Catch::Contains("float16"));
  f.options.dtype = "float32";
  f.options.device = "cuda";
  CHECK(code().code() == absl::StatusCode::kUnimplemented);
  f.options.device = "cpu";
  f.options.schemes.clear();
  CHECK(code().code() == absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace autoscheme
