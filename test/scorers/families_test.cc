// Every golden model under quantized weights and activations, in every compute dtype.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <string>

#include "support/scored_run.h"
#include "tensor/products.h"

namespace autoscheme {
namespace {

// INT8 comes first: it quantizes layers of every shape, and hardly changes the loss.
constexpr char kMenu[] = "INT8,W4A16,MXFP4";

struct Swept {
  Losses losses;
  ScoreTerms scores;
};

Swept Sweep(const std::string& folder, const char* dtype, int64_t micro_batch_rows = 0) {
  const auto skeleton = MetaSkeleton::Open({}, folder + "/model").value();
  const Calibration tokens = ReadCalibration({}, folder + "/tokens.json").value();
  ScoredRun run(*skeleton, kMenu, LayersOf(*skeleton, /*with_head=*/true));
  run.run.precision = ParsePrecision(dtype, {false, MultipliesBfloat16()}).value();
  ExecutionPlan plan;
  plan.batch_size = tokens.nsamples, plan.micro_batch_rows = micro_batch_rows;
  Swept swept{run.Sweep(tokens, plan).value(), run.scorers.terms()};
  CHECK(run.run.stats.read_bytes == run.run.stats.planned_read_bytes);
  for (size_t s = 0; s < swept.scores.terms.size(); ++s) {
    for (size_t l = 0; l < swept.scores.terms[s][0].size(); ++l) {
      INFO("scheme " << s << ", layer " << l);
      const double weight = swept.scores.terms[s][0][l], activation = swept.scores.terms[s][1][l];
      CHECK((std::isfinite(weight) && weight > 0));
      CHECK((std::isfinite(activation) && (activation > 0) == (s != 1)));
    }
  }
  return swept;
}

TEST_CASE("every golden model scores in every dtype, and in micro-batches as in whole batches") {
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(AUTOSCHEME_GOLDEN_DIR "/families")) {
    if (!entry.is_directory()) continue;
    ++models;
    const std::string folder = entry.path().string();
    INFO(folder);
    const Swept wide = Sweep(folder, "float32"), parts = Sweep(folder, "float32", 1);
    for (size_t s = 0; s < wide.losses.size(); ++s) {
      CHECK(parts.losses[s][0] == Approx(wide.losses[s][0]).epsilon(1e-6));
      for (size_t l = 0; l < wide.scores.terms[s][0].size(); ++l) {
        for (const int term : {0, 1}) {
          INFO("scheme " << s << ", layer " << l << ", term " << term);
          CHECK(parts.scores.terms[s][term][l] == Approx(wide.scores.terms[s][term][l]).epsilon(1e-4));
        }
      }
    }
    for (const char* dtype : {"mixed", "bfloat16"}) {
      INFO(dtype);
      const Swept narrow = Sweep(folder, dtype);
      CHECK(narrow.losses[0][0] == Approx(wide.losses[0][0]).epsilon(std::string(dtype) == "mixed" ? 1e-7 : 0.02));
    }
  }
  CHECK(models > 50);
}

}  // namespace
}  // namespace autoscheme
