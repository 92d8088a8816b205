#include "stream/upload_rig.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <utility>

#include "base/status_macros.h"
#include "stream/extents.h"

namespace autoscheme {
namespace {

// Where a tensor was copied down to.
struct Copy {
  TensorView view;
  TensorRange range;
};

uint64_t BytesOf(const TensorRange& range) { return FileBytes(range).end - FileBytes(range).begin; }

// Copies a step down from a device, into new memory.
absl::Status CopyDown(const Device& device, const std::vector<TensorView>& tensors,
                      absl::Span<const TensorRange> ranges, std::vector<DeviceMemory>& memory,
                      std::vector<Copy>& copies) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t bytes = BytesOf(ranges[i]);
    if (bytes == 0) continue;
    REQUIRE(reinterpret_cast<uintptr_t>(tensors[i].data) % 256 == 0);
    AUTOSCHEME_ASSIGN_OR_RETURN(DeviceMemory pinned,
                                DeviceMemory::Allocate(device, DeviceMemory::Kind::kPinned, bytes, "a test"));
    AUTOSCHEME_RETURN_IF_ERROR(device.Check(
        device.api().copy_down(device.handle(), DeviceStream::kCompute, pinned.data(), tensors[i].data, bytes),
        "a test's copy"));
    copies.push_back({{tensors[i].info, pinned.data()}, ranges[i]});
    memory.push_back(std::move(pinned));
  }
  return absl::OkStatus();
}

}  // namespace

StandInOptions AsynchronousStandIn(int devices) {
  StandInOptions options;
  options.devices = devices;
  options.compute_thread = true, options.own_memory_only = true;
  return options;
}

UploadRig::UploadRig(const StandInOptions& options) : stand_in(options) {
  for (int i = 0; i < options.devices; ++i) {
    auto device = Device::Open(stand_in.api(), i);
    REQUIRE(device.ok());
    opened.push_back(*std::move(device));
  }
}

UploadRig::~UploadRig() {
  opened.clear();
  CHECK(stand_in.Leaks() == "");
  CHECK(stand_in.Misuse() == "");
}

std::vector<const Device*> UploadRig::devices() const {
  std::vector<const Device*> devices;
  for (const auto& device : opened) devices.push_back(device.get());
  return devices;
}

std::vector<UploadStep> UploadSteps(const std::vector<BlockStreamer::Step>& steps) {
  std::vector<UploadStep> order;
  for (const BlockStreamer::Step& step : steps) {
    UploadStep& upload = order.emplace_back();
    for (const TensorInfo* info : step) upload.tensors.push_back(WholeTensor(*info));
  }
  return order;
}

uint64_t MostSlotBytes(const std::vector<UploadStep>& order) {
  uint64_t most = 0;
  for (const UploadStep& step : order) most = std::max(most, UploadRing::SlotBytes(step).value());
  return most;
}

absl::Status Drain(UploadRing& ring, const UploadRig& rig, int* steps) {
  std::vector<DeviceMemory> memory;
  std::vector<Copy> copies;
  absl::Status status;
  for (int step = 0; status.ok(); ++step) {
    absl::StatusOr<UploadedStep> there = ring.Next();
    if (steps != nullptr) *steps = step;
    status = there.status();
    if (!status.ok()) break;
    REQUIRE(there->step == step);
    REQUIRE(there->tensors.size() == rig.opened.size());
    for (size_t d = 0; status.ok() && d < rig.opened.size(); ++d) {
      REQUIRE(there->tensors[d].size() == there->ranges.size());
      status = CopyDown(*rig.opened[d], there->tensors[d], there->ranges, memory, copies);
    }
  }
  bool waited = true;
  for (const auto& device : rig.opened) {
    waited &= device->Synchronize(DeviceStream::kCompute).ok() || device->Synchronize(DeviceStream::kCompute).ok();
  }
  if (waited) {
    for (const Copy& copy : copies) REQUIRE(HasExpectedBytes(copy.view, copy.range));
  }
  return status;
}

std::unique_ptr<UploadRing> MakeRing(const UploadRig& rig, const Checkpoint& checkpoint, std::vector<UploadStep> order,
                                     const UploadRing::Options& options, const Context& context) {
  auto ring = UploadRing::Create(context, checkpoint, rig.devices(), std::move(order), options);
  INFO(ring.status());
  REQUIRE(ring.ok());
  return *std::move(ring);
}

}  // namespace autoscheme
