// SavedActivations: what the sweeps hand from unit to unit, and the inputs of units that wait for the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "exec/run_resources.h"
#include "exec/tensor_store.h"
#include "plan/execution_plan.h"
#include "plan/micro_batches.h"
#include "plan/schedule.h"
#include "plan/scorer_needs.h"

namespace autoscheme {

// Input k is what unit k takes; the input after the last unit is the head's. Each lies in the first of these that is
// meant for it:
// - the network's input, which all variants share that take the embedding in the same form;
// - a saved graph holds it: it goes from unit to unit as it is;
// - the saved inputs, and the places that those share which are recomputed (Schedule): until the backward pass has used
// them;
// - the activations that pass: one place for each variant and micro-batch, used anew by every unit.
// Gradients pass likewise on the way down.
class SavedActivations {
 public:
  SavedActivations(RunResources& run, const ExecutionPlan& plan, const BatchShape& shape, int64_t hidden,
                   int64_t head_width, int units, const ScorerNeeds& needs);

  // Makes all stores at once, though some are used late: a disk without room shows before any work, and memory is not
  // touched yet.
  absl::Status Open();
  void CloseForHead();  // what only the head has used
  void Close();

  struct Inputs {
    at::Tensor x;     // undefined where a saved graph holds it
    at::Tensor grad;  // backward
  };
  absl::StatusOr<Inputs> Take(const UnitStep& step, int variant, int m);
  // Take with the same arguments follows soon: what lies on disk is read while something else is computed.
  void Announce(const UnitStep& step, int variant, int m) const;

  absl::Status PutEmbedded(int embedding, int m, const at::Tensor& x) { return embedded_->Put(0, embedding, m, x); }
  // What unit k - 1 has given in its first forward pass.
  absl::Status PutInput(int k, int variant, int m, const at::Tensor& x);
  absl::Status PutRecomputed(int k, int variant, int m, const at::Tensor& x) {
    return StoreOf(k).Put(schedule_.Place(k), variant - forward_only_, m, x);
  }
  absl::StatusOr<at::Tensor> LastOutput(int variant, int m) { return activations_->Get(0, variant, m); }
  absl::Status PutGradient(int variant, int m, const at::Tensor& grad) {
    return gradients_->Put(0, variant - forward_only_, m, grad);
  }
  // What the head carries from tile to tile.
  TensorStore* sums() { return sums_.get(); }
  TensorStore* label_rows() { return label_rows_.get(); }

  const Schedule& schedule() const { return schedule_; }
  // Whether the unit is differentiated from the graph of its forward pass.
  bool SavesGraph(int unit, int variant) const { return variant >= forward_only_ && unit >= schedule_.first_saved(); }

 private:
  absl::Status Open(std::unique_ptr<TensorStore>& store, int64_t places, int64_t variants, StorePlace place,
                    const BatchShape& shape, int64_t width, at::ScalarType dtype);
  void Close(std::unique_ptr<TensorStore>& store);
  StorePlace PlaceOf(bool in_memory, bool on_device) const {
    return on_device ? StorePlace::kDevice : in_memory ? StorePlace::kRam : StorePlace::kDisk;
  }
  TensorStore& StoreOf(int k) const { return schedule_.Saved(k) ? *saved_ : *recomputed_; }
  // Whether the forward pass leaves it for the backward pass.
  bool IsLeft(int k, int variant) const;
  // Whether the forward pass itself takes it from there: not from disk while memory has a place for what passes.
  bool ReadFromStore(int k, int variant) const { return IsLeft(k, variant) && plan_.spilled != Spilled::kInputs; }

  RunResources& run_;
  const ExecutionPlan& plan_;
  const BatchShape shape_;
  const int64_t hidden_, head_width_;
  const ScorerNeeds& needs_;
  const int units_, variants_, forward_only_;
  const Schedule schedule_;
  std::unique_ptr<TensorStore> embedded_, saved_, recomputed_, activations_, gradients_, sums_, label_rows_;
  absl::flat_hash_map<std::pair<int, int>, at::Tensor>
      next_;  // (variant, micro-batch) -> input that a saved graph will hold
};

}  // namespace autoscheme
