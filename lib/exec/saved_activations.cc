#include "exec/saved_activations.h"

#include "base/status_macros.h"
#include "exec/head.h"

namespace autoscheme {

SavedActivations::SavedActivations(RunResources& run, const ExecutionPlan& plan, const BatchShape& shape,
                                   int64_t hidden, int64_t head_width, int units, const ScorerNeeds& needs)
    : run_(run),
      plan_(plan),
      shape_(shape),
      hidden_(hidden),
      head_width_(head_width),
      needs_(needs),
      units_(units),
      variants_(needs.count()),
      forward_only_(needs.forward_only()),
      schedule_(ScheduleOf(plan, units, forward_only_ < variants_)) {}

absl::Status SavedActivations::Open() {
  const int gradients = variants_ - forward_only_;
  const BatchShape head_shape = HeadStoreShape(shape_);
  const at::ScalarType dtype = run_.dtype();
  const StorePlace inputs = PlaceOf(plan_.inputs_in_ram(), plan_.inputs_on_device),
                   transient = PlaceOf(plan_.transient_in_ram(), run_.on_device());
  AUTOSCHEME_RETURN_IF_ERROR(Open(embedded_, 1, needs_.embeddings(), inputs, shape_, hidden_, dtype));
  AUTOSCHEME_RETURN_IF_ERROR(Open(saved_, schedule_.saved_count(), gradients, inputs, shape_, hidden_, dtype));
  AUTOSCHEME_RETURN_IF_ERROR(
      Open(recomputed_, schedule_.recomputed_count(), gradients, inputs, shape_, hidden_, dtype));
  AUTOSCHEME_RETURN_IF_ERROR(Open(activations_, 1, variants_, transient, shape_, hidden_, dtype));
  AUTOSCHEME_RETURN_IF_ERROR(Open(gradients_, 1, gradients, transient, shape_, hidden_, dtype));
  AUTOSCHEME_RETURN_IF_ERROR(Open(sums_, 1, gradients, transient, head_shape, head_width_, at::kFloat));
  return Open(label_rows_, 1, gradients, transient, head_shape, head_width_, dtype);
}

absl::Status SavedActivations::Open(std::unique_ptr<TensorStore>& store, int64_t places, int64_t variants,
                                    StorePlace place, const BatchShape& shape, int64_t width, at::ScalarType dtype) {
  if (places == 0 || variants == 0) return absl::OkStatus();
  AUTOSCHEME_ASSIGN_OR_RETURN(store, TensorStore::Create(run_, shape, width, places, variants, dtype, place));
  return absl::OkStatus();
}

void SavedActivations::Close(std::unique_ptr<TensorStore>& store) {
  if (store == nullptr) return;
  run_.stats.spill_bytes += store->spilled_bytes();
  store.reset();
}

void SavedActivations::CloseForHead() {
  for (auto* store : {&activations_, &sums_, &label_rows_}) Close(*store);
}

void SavedActivations::Close() {
  for (auto* store : {&embedded_, &saved_, &recomputed_, &gradients_}) Close(*store);
}

bool SavedActivations::IsLeft(int k, int variant) const {
  return variant >= forward_only_ && k > 0 && !SavesGraph(k, variant) && (schedule_.Saved(k) || k > schedule_.top());
}

absl::StatusOr<SavedActivations::Inputs> SavedActivations::Take(const UnitStep& step, int variant, int m) {
  const int k = step.unit;
  Inputs in;
  if (step.pass == Pass::kBackward) {
    AUTOSCHEME_ASSIGN_OR_RETURN(in.grad, gradients_->Get(0, variant - forward_only_, m));
    if (SavesGraph(k, variant)) return in;
  }
  if (k == 0) {
    AUTOSCHEME_ASSIGN_OR_RETURN(in.x, embedded_->Get(0, needs_.variants[variant].embedding, m));
  } else if (step.pass == Pass::kForward && SavesGraph(k, variant)) {
    in.x = std::move(next_[{variant, m}]);
  } else if (step.pass == Pass::kForward && !ReadFromStore(k, variant)) {
    AUTOSCHEME_ASSIGN_OR_RETURN(in.x, activations_->Get(0, variant, m));
  } else {
    AUTOSCHEME_ASSIGN_OR_RETURN(in.x, StoreOf(k).Get(schedule_.Place(k), variant - forward_only_, m));
  }
  return in;
}

void SavedActivations::Announce(const UnitStep& step, int variant, int m) const {
  if (step.pass == Pass::kBackward) gradients_->WillGet(0, variant - forward_only_, m);
  if (step.unit == 0 || SavesGraph(step.unit, variant)) return;
  if (step.pass == Pass::kForward && !ReadFromStore(step.unit, variant)) {
    activations_->WillGet(0, variant, m);
  } else {
    StoreOf(step.unit).WillGet(schedule_.Place(step.unit), variant - forward_only_, m);
  }
}

absl::Status SavedActivations::PutInput(int k, int variant, int m, const at::Tensor& x) {
  if (IsLeft(k, variant)) AUTOSCHEME_RETURN_IF_ERROR(StoreOf(k).Put(schedule_.Place(k), variant - forward_only_, m, x));
  if (ReadFromStore(k, variant)) return absl::OkStatus();
  if (SavesGraph(k, variant) && k < units_) {
    next_[{variant, m}] = x;
    return absl::OkStatus();
  }
  return activations_->Put(0, variant, m, x);
}

}  // namespace autoscheme
