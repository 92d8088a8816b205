// ScoredRun: a scorer over a skeleton's layers by a plan that the test chooses.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "autoscheme/scheme.h"
#include "autoscheme/score_table.h"
#include "exec/run_resources.h"
#include "exec/sweep.h"
#include "scorers/run_scorers.h"

namespace autoscheme {

// The linear layers of all blocks, and the head if it is asked for.
inline std::vector<LayerInfo> LayersOf(const MetaSkeleton& skeleton, bool with_head) {
  std::vector<LayerInfo> layers;
  for (size_t b = 0; b < skeleton.blocks().size(); ++b) {
    for (const LinearLayer& linear : skeleton.blocks()[b].linears) {
      LayerInfo info;
      info.name = linear.name, info.out_features = linear.out_features, info.in_features = linear.in_features;
      info.block = static_cast<int>(b);
      layers.push_back(info);
    }
  }
  if (!with_head) return layers;
  LayerInfo head;
  head.name = skeleton.head().name, head.out_features = skeleton.vocab_size(),
  head.in_features = skeleton.head().in_features;
  head.is_head = true;
  layers.push_back(head);
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
