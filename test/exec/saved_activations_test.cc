// What is put comes back, wherever the plan lets it lie: five units, one forward-only variant and one with gradients.
#include "exec/saved_activations.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

namespace autoscheme {
namespace {

constexpr int kUnits = 5, kVariants = 2, kForwardOnly = 1, kGradients = 1;
// 4 rows of 3 tokens of 8 float32, in two micro-batches.
constexpr uint64_t kTensors = 4 * 3 * 8 * 4;

at::Tensor Full(double value) { return at::full({2, 3, 8}, value); }
bool Is(const absl::StatusOr<at::Tensor>& x, double value) { return x.ok() && at::equal(*x, Full(value)); }

ScorerNeeds OneForwardOnly() {
  ScorerNeeds needs;
  needs.variants.resize(kVariants);
  for (int v = 0; v < kForwardOnly; ++v) needs.variants[v].forward_only = true;
  return needs;
}

struct Saved {
  explicit Saved(const ExecutionPlan& execution_plan)
      : plan(execution_plan), activations(run, plan, shape, 8, 8, kUnits, needs) {
    REQUIRE(activations.Open().ok());
  }
  at::Tensor Take(Pass pass, int unit, int variant, int m) {
    activations.Announce({unit, pass}, variant, m);
    auto taken = activations.Take({unit, pass}, variant, m);
    REQUIRE(taken.ok());
    if (pass == Pass::kBackward) grad = taken->grad;
    return taken->x;
  }
  // Input k of variant v and micro-batch m is 100 k + 10 v + m; the embedded one is m.
  void Forward() {
    for (const int m : {0, 1}) REQUIRE(activations.PutEmbedded(0, m, Full(m)).ok());
    for (int unit = 0; unit < kUnits; ++unit) {
      for (int v = 0; v < kVariants; ++v) {
        for (const int m : {0, 1}) {
          const double expected = unit == 0 ? m : 100 * unit + 10 * v + m;
          CHECK(Is(Take(Pass::kForward, unit, v, m), expected));
          REQUIRE(activations.PutInput(unit + 1, v, m, Full(100 * (unit + 1) + 10 * v + m)).ok());
        }
      }
    }
    for (int v = 0; v < kVariants; ++v) {
      for (const int m : {0, 1}) CHECK(Is(activations.LastOutput(v, m), 100 * kUnits + 10 * v + m));
    }
  }
  Context context;
  RunResources run{context};
  const BatchShape shape{4, 3, 2, 0};
  const ExecutionPlan plan;
  const ScorerNeeds needs = OneForwardOnly();
  SavedActivations activations;
  at::Tensor grad;
};

TEST_CASE("saved inputs and gradients come back in the backward pass, and count as spilled where they lie on disk") {
  for (const Spilled spilled : {Spilled::kNothing, Spilled::kInputs, Spilled::kEverything}) {
    INFO("spilled " << static_cast<int>(spilled));
    ExecutionPlan plan;
    plan.spilled = spilled;
    Saved saved(plan);
    saved.Forward();
    for (const int m : {0, 1}) REQUIRE(saved.activations.PutGradient(kGradients, m, Full(-m)).ok());
    saved.activations.CloseForHead();
    for (int unit = kUnits - 1; unit >= 0; --unit) {
      for (const int m : {0, 1}) {
        CHECK(Is(saved.Take(Pass::kBackward, unit, kGradients, m), unit == 0 ? m : 100 * unit + 10 + m));
        CHECK(Is(saved.grad, -m));
      }
    }
    saved.activations.Close();
    // The embedded input and those of four units; all activations that pass, but those of the variant with gradients
    // that are taken from where they stay: 5 + 1; and the gradients.
    const uint64_t inputs = 1 + 4, passing = 5 + 1 + 1;
    CHECK(saved.run.stats.spill_bytes == kTensors * (spilled == Spilled::kNothing  ? 0
                                                     : spilled == Spilled::kInputs ? inputs
                                                                                   : inputs + passing));
  }
}

TEST_CASE("inputs that are not saved are put again before the backward pass comes to them") {
  for (const Spilled spilled : {Spilled::kNothing, Spilled::kInputs, Spilled::kEverything}) {
    ExecutionPlan plan;
    plan.spilled = spilled, plan.input_interval = 2;
    Saved saved(plan);
    saved.Forward();
    for (const int m : {0, 1}) {
      REQUIRE(saved.activations.PutGradient(kGradients, m, Full(7)).ok());
      CHECK(Is(saved.Take(Pass::kBackward, 4, kGradients, m), 410 + m));
    }
    for (const int m : {0, 1}) {
      CHECK(Is(saved.Take(Pass::kRecompute, 2, kGradients, m), 210 + m));
      REQUIRE(saved.activations.PutRecomputed(3, kGradients, m, Full(33 + m)).ok());
    }
    for (const int m : {0, 1}) CHECK(Is(saved.Take(Pass::kBackward, 3, kGradients, m), 33 + m));
    for (const int m : {0, 1}) {
      CHECK(Is(saved.Take(Pass::kBackward, 2, kGradients, m), 210 + m));
      CHECK(Is(saved.Take(Pass::kRecompute, 0, kGradients, m), m));
      REQUIRE(saved.activations.PutRecomputed(1, kGradients, m, Full(11 + m)).ok());
    }
    for (const int m : {0, 1}) CHECK(Is(saved.Take(Pass::kBackward, 1, kGradients, m), 11 + m));
  }
}

TEST_CASE("the uppermost group finds in the shared places what the forward pass left there") {
  ExecutionPlan plan;
  plan.input_interval = 3;  // input 3 is saved, inputs 1 and 4 share a place
  Saved saved(plan);
  saved.Forward();
  for (const int unit : {4, 3}) {
    for (const int m : {0, 1}) {
      REQUIRE(saved.activations.PutGradient(kGradients, m, Full(7)).ok());
      CHECK(Is(saved.Take(Pass::kBackward, unit, kGradients, m), 100 * unit + 10 + m));
    }
  }
}

TEST_CASE("what a saved graph holds goes from unit to unit as it is") {
  ExecutionPlan plan;
  plan.saved_units = 2;
  Saved saved(plan);
  CHECK_FALSE(saved.activations.SavesGraph(3, /*variant=*/0));  // forward only
  CHECK_FALSE(saved.activations.SavesGraph(2, kGradients));
  CHECK(saved.activations.SavesGraph(3, kGradients));
  saved.Forward();
  const at::Tensor x = Full(1);
  REQUIRE(saved.activations.PutInput(4, kGradients, 0, x).ok());
  CHECK(saved.Take(Pass::kForward, 4, kGradients, 0).const_data_ptr() == x.const_data_ptr());
  REQUIRE(saved.activations.PutGradient(kGradients, 0, Full(5)).ok());
  CHECK_FALSE(saved.Take(Pass::kBackward, 4, kGradients, 0).defined());
  CHECK(Is(saved.grad, 5));
  CHECK(Is(saved.Take(Pass::kBackward, 2, kGradients, 0), 210));
}

TEST_CASE("each variant takes the form of the embedding that it asks for") {
  for (const Spilled spilled : {Spilled::kNothing, Spilled::kInputs}) {
    ExecutionPlan plan;
    plan.spilled = spilled;
    ScorerNeeds needs;
    needs.variants.resize(3);
    for (VariantNeeds& variant : needs.variants) variant.forward_only = true;
    needs.variants[1].embedding = 1;
    Context context;
    RunResources run(context);
    SavedActivations activations(run, plan, {4, 3, 2, 0}, 8, 8, kUnits, needs);
    REQUIRE(activations.Open().ok());
    for (const int form : {0, 1}) {
      for (const int m : {0, 1}) REQUIRE(activations.PutEmbedded(form, m, Full(10 * form + m)).ok());
    }
    for (const int v : {0, 1, 2}) {
      for (const int m : {0, 1}) {
        const auto taken = activations.Take({0, Pass::kForward}, v, m);
        REQUIRE(taken.ok());
        CHECK(at::equal(taken->x, Full((v == 1 ? 10 : 0) + m)));
      }
    }
  }
}

}  // namespace
}  // namespace autoscheme
