// TinySkeleton: a small model's folder, opened; and needs that ask for each of its linear layers alike.
#pragma once

#include <memory>
#include <vector>

#include "autoscheme/calibration.h"
#include "autoscheme/meta_skeleton.h"
#include "plan/scorer_needs.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {

struct TinySkeleton {
  explicit TinySkeleton(const TinyModel& model = {}) {
    WriteTinyModel(model, dir.path());
    skeleton = MetaSkeleton::Open({}, dir.path()).value();
  }
  // With tensors that differ from the model's.
  TinySkeleton(const TinyModel& model, const std::vector<RawTensor>& tensors) {
    dir.Write("config.json", TinyConfig(model));
    WriteTinyWeights(tensors, 1, dir.path());
    skeleton = MetaSkeleton::Open({}, dir.path()).value();
  }
  const MetaSkeleton* operator->() const { return skeleton.get(); }
  const MetaSkeleton& operator*() const { return *skeleton; }

  TempDir dir;
  std::unique_ptr<MetaSkeleton> skeleton;
};

inline Calibration RowsOf(int64_t nsamples, int64_t seqlen, std::vector<int32_t> ids) {
  Calibration calibration;
  calibration.nsamples = nsamples, calibration.seqlen = seqlen, calibration.ids = std::move(ids);
  return calibration;
}

// One variant that asks `blocks` of the blocks' linear layers and `head` of the head.
inline ScorerNeeds NeedsOf(const MetaSkeleton& skeleton, const LinearNeeds& blocks, const LinearNeeds& head = {}) {
  VariantNeeds variant;
  variant.name = "test";
  variant.linears.assign(skeleton.head().index + 1, blocks);
  variant.linears.back() = head;
  ScorerNeeds needs;
  needs.variants = {variant};
  return needs;
}

}  // namespace autoscheme
