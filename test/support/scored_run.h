// ScoredRun: a scorer over a skeleton's layers by a plan that the test chooses.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "autoscheme/scheme.h"
#include "autoscheme/score_table.h"
#include "exec/run_resources.h"
#include "exec/sweep.h"
#include "scorers/linear_layers.h"
#include "scorers/run_scorers.h"

namespace autoscheme {

// The linear layers of all blocks, and the head if it is asked for.
inline std::vector<LayerInfo> LayersOf(const MetaSkeleton& skeleton, bool with_head) {
  std::vector<LayerInfo> layers = LinearLayersOf(skeleton);
  if (!with_head) layers.pop_back();
  return layers;
}

// With an importance matrix of its own where the menu needs one.
struct ScoredRun {
  ScoredRun(const MetaSkeleton& of, const std::string& menu, std::vector<LayerInfo> layers,
            const std::string& scorer = "deltaloss")
      : skeleton(of),
        scorers(RunScorers::Create(scorer, {&of, ParseSchemeList(menu).value(), std::move(layers)}).value()),
        run(context) {}
  absl::StatusOr<Losses> Sweep(const Calibration& calibration, const ExecutionPlan& plan) {
    return RunSweeps(run, skeleton, calibration, plan, scorers.all());
  }
  double weight(int scheme, size_t layer) const { return scorers.terms().terms[scheme][0][layer]; }
  double activation(int scheme, size_t layer) const { return scorers.terms().terms[scheme][1][layer]; }

  const MetaSkeleton& skeleton;
  Context context;
  RunScorers scorers;
  RunResources run;
};

}  // namespace autoscheme
