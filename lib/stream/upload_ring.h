// UploadRing: brings the steps of a checkpoint into the memory of one or more devices in a given order, reading and
// copying ahead while they compute.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/block_streamer.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/tensor.h"
#include "device/device.h"

namespace autoscheme {

class Checkpoint;

// Tensors, or rows of them, that are uploaded together.
struct UploadStep {
  std::vector<TensorRange> tensors;  // whose infos are borrowed, and outlive the ring
  bool find_non_finite = false;      // look through them on the first device
};

// A step in the memory of the devices. Dies with Done(), Next() or Stop().
struct UploadedStep {
  int step = 0;  // index into the order
  // By device, then in the step's order. `data` is where the first byte of the range lies in that device's memory, at a
  // multiple of 256. Only work that DeviceStream::kCompute is given may touch it.
  absl::Span<const std::vector<TensorView>> tensors;
  absl::Span<const TensorRange> ranges;  // in the step's order: the rows that are there
};

// One read for all devices: a BlockStreamer reads pieces of at most `piece_bytes` into pinned host memory, and a thread
// of the ring copies each to every device in turn. On each device there are `device_slots` slots, as large as the
// largest step, which the steps take in turns. Bytes go up as they are stored.
//
// The caller waits for no copy and no computation: streams of the devices wait for each other. While the ring lives,
// nothing but its thread gives work to DeviceStream::kUp of its devices.
//
// Where the system has no thread to give, Next() uploads on its caller's thread instead.
//
// Thread-safety: all from one thread, the one that gives work to kCompute, but for stats() and the context's cancel
// token, which any may use.
// Errors of Next: those of BlockStreamer (which counts its steps by pieces) and of the devices; DATA_LOSS for NaN and
// infinite values, naming the tensor. Steps before the one that failed are still delivered, partial ones never. After
// an error every further call returns the same error.
class UploadRing {
 public:
  struct Options {
    int device_slots = 2;  // 1: nothing is copied ahead
    int host_slots = 8;
    uint64_t piece_bytes = uint64_t{16} << 20;  // bytes of a host slot; a multiple of 4,096
    bool drop_page_cache = true;                // as BlockStreamer::Options has it
    IoEngine io_engine = IoEngine::kAuto;
  };

  // `devices` are of one table and outlive the ring. INVALID_ARGUMENT for a step that is not of this checkpoint, and
  // for options out of range; UNIMPLEMENTED where values are to be looked through whose type is not BF16, F16 or F32;
  // RESOURCE_EXHAUSTED where the host or a device has no memory for the slots.
  static absl::StatusOr<std::unique_ptr<UploadRing>> Create(const Context& context, const Checkpoint& checkpoint,
                                                            std::vector<const Device*> devices,
                                                            std::vector<UploadStep> order, const Options& options);
  // Room that a step takes in a slot of a device. INVALID_ARGUMENT for rows out of range.
  static absl::StatusOr<uint64_t> SlotBytes(const UploadStep& step);

  ~UploadRing();  // Stop()
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  // Blocks until the next step is on its way up, and lets kCompute of each device wait until it is there. Calls Done()
  // for the step before.
  absl::StatusOr<UploadedStep> Next();
  // All work on the current step has been given to kCompute: its slots are overwritten as soon as that is done. Errors
  // are those of Next(), which return them again.
  absl::Status Done();
  // Ends the upload: waits for the read that is under way and for all that kUp and kCompute were given, then gives back
  // threads, files and memory. Every later Next() is CANCELLED.
  void Stop();
  // slot_bytes is pinned host memory; stall_s the time that Next() waited.
  StreamStats stats() const;
  // Bytes that the whole order will read, known before the first read.
  uint64_t planned_bytes() const;

 private:
  struct Rep;
  explicit UploadRing(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace autoscheme
