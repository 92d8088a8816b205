// Lanes: what the devices of one run do together. A lane is the part of a run that one device computes: some of the
// variants, in a thread of its own. All lanes go through the same weights at the same time, so that these are read
// once.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "stream/upload_ring.h"

namespace autoscheme {

// Each function but stats() is called by every lane, in the same order and with the same arguments but its own context;
// it returns when all lanes have come. The first error, also of Fail(), is every lane's, from then on.
class Lanes {
 public:
  explicit Lanes(std::vector<const Device*> devices) : devices_(std::move(devices)) {}
  int count() const { return static_cast<int>(devices_.size()); }

  // A ring over these steps takes the place of the one before.
  absl::Status Begin(const Context& context, const Checkpoint& checkpoint, std::vector<UploadStep> order,
                     const UploadRing::Options& options);
  // The next step of the ring, for all lanes; until the next call.
  absl::StatusOr<UploadedStep> Next();
  // The lane takes no more steps; does not wait.
  void End();
  // A lane ends before its time, and so do the others. Never waits.
  void Fail(const absl::Status& why);
  StreamStats stats() const { return ring_->stats(); }

 private:
  // Runs `together` once, in the lane that comes last.
  absl::Status Meet(const std::function<absl::Status()>& together);

  const std::vector<const Device*> devices_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0, ended_ = 0;
  int64_t meetings_ = 0;
  absl::Status failed_;
  std::unique_ptr<UploadRing> ring_;
  UploadedStep step_;
};

}  // namespace autoscheme
