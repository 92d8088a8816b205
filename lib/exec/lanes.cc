#include "exec/lanes.h"

#include "base/status_macros.h"

namespace autoscheme {

absl::Status Lanes::Meet(const std::function<absl::Status()>& together) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!failed_.ok()) return failed_;
  if (++waiting_ < count()) {
    const int64_t own = meetings_;
    changed_.wait(lock, [&] { return meetings_ != own || !failed_.ok(); });
    return failed_;
  }
  waiting_ = 0;
  failed_ = together();
  ++meetings_;
  changed_.notify_all();
  return failed_;
}

absl::Status Lanes::Begin(const Context& context, const Checkpoint& checkpoint, std::vector<UploadStep> order,
                          const UploadRing::Options& options) {
  return Meet([&]() -> absl::Status {
    ring_.reset();  // first: two rings at a time would not keep to the plan
    ended_ = 0;
    AUTOSCHEME_ASSIGN_OR_RETURN(ring_, UploadRing::Create(context, checkpoint, devices_, std::move(order), options));
    return absl::OkStatus();
  });
}

absl::StatusOr<UploadedStep> Lanes::Next() {
  AUTOSCHEME_RETURN_IF_ERROR(Meet([&]() -> absl::Status {
    AUTOSCHEME_ASSIGN_OR_RETURN(step_, ring_->Next());
    return absl::OkStatus();
  }));
  return step_;
}

void Lanes::End() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (++ended_ == count()) ring_.reset();
}

void Lanes::Fail(const absl::Status& why) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failed_.ok()) failed_ = why;
  changed_.notify_all();
}

}  // namespace autoscheme
