// Stand-in devices with a checkpoint that is uploaded to them, for the tests of UploadRing.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "device/device.h"
#include "stream/stream_model.h"
#include "stream/upload_ring.h"
#include "support/stand_in_device.h"

namespace autoscheme {

// A thread for every stream of every device, and addresses that are checked.
StandInOptions AsynchronousStandIn(int devices = 1);

struct UploadRig {
  explicit UploadRig(const StandInOptions& options = AsynchronousStandIn());
  // Fails the test where something was left behind or misused.
  ~UploadRig();

  std::vector<const Device*> devices() const;

  StandIn stand_in;
  std::vector<std::unique_ptr<Device>> opened;
};

// What all tensors of the steps say, none of them looked through.
std::vector<UploadStep> UploadSteps(const std::vector<BlockStreamer::Step>& steps);
uint64_t MostSlotBytes(const std::vector<UploadStep>& order);

// Calls Next until it fails, computes with what is delivered (copies it down on kCompute), checks every byte at the end
// and returns the error: the ring's, or that of a call for the copies. `steps` counts the deliveries.
absl::Status Drain(UploadRing& ring, const UploadRig& rig, int* steps = nullptr);

// Create, which must work.
std::unique_ptr<UploadRing> MakeRing(const UploadRig& rig, const Checkpoint& checkpoint, std::vector<UploadStep> order,
                                     const UploadRing::Options& options = {}, const Context& context = {});

}  // namespace autoscheme
