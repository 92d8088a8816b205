// BlockStreamer: brings the blocks of a checkpoint from disk in a given order, reading ahead while the caller computes.
#ifndef AUTOSCHEME_BLOCK_STREAMER_H_
#define AUTOSCHEME_BLOCK_STREAMER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

class Checkpoint;

// Consecutive rows of a tensor; a row is a slice of the first dimension. A scalar has one row.
struct TensorRange {
  const TensorInfo* info = nullptr;  // borrowed
  int64_t first_row = 0;
  int64_t rows = 0;
};
TensorRange WholeTensor(const TensorInfo& info);

// The tensors of one step of the order, resident. Dies with the next call of Next().
struct BlockView {
  int step = 0;                          // index into the order
  absl::Span<const TensorView> tensors;  // in the step's order; data is the first byte of the range
  absl::Span<const TensorRange> ranges;  // parallel to tensors: the rows that are there
  // The tensor of that name. Null if the step does not hold it.
  const TensorView* Find(absl::string_view name) const;
};

struct StreamStats {
  uint64_t slot_bytes = 0;                // memory of all slots; they are allocated by Create
  uint64_t bytes_read = 0;                // bytes of tensors delivered into slots
  double read_s = 0;                      // time the reader thread spent in reads
  double stall_s = 0;                     // time Next() waited for the reader
  IoEngine engine = IoEngine::kBuffered;  // the one that reads: never kAuto
};

// Never maps files, and leaves nothing in the page cache: it reads past it (O_DIRECT) or drops what it read. Tensors
// that lie side by side in a shard are one extent to read; gaps are not read. Holds `slots` buffers, each as large as
// the largest step, allocated once. One reader thread, started by Create and joined by the destructor; with one slot,
// or where the system has no thread to give, Next() reads on its caller's thread instead.
//
// A process that is forked off must not use it: it has no reader, and destroying its copy would wait for one.
//
// Thread-safety: Next() from one thread. The context's cancel token and stats() from any.
// Errors of Next: OUT_OF_RANGE after the last step; DATA_LOSS when a shard ends early or has changed since it was
// opened (names tensor, shard, offset); UNAVAILABLE for other read errors; CANCELLED. Steps before the one that failed
// are still delivered, partial ones never. After an error every further call returns the same error.
class BlockStreamer {
 public:
  using Step = std::vector<const TensorInfo*>;  // tensors read together; borrowed, must outlive the streamer
  using RangeStep = std::vector<TensorRange>;   // the same for parts of tensors (tiles)

  struct Options {
    int slots = 2;  // 1 = no read-ahead; more than there are steps to read are not made
    // False leaves what was read in the page cache, for a second sweep where memory has room for it.
    bool drop_page_cache = true;
    // kAuto: buffered where the page cache is kept or less than 512 MiB are read in all, else direct. With the direct
    // engine a process that is forked off does not see the slots.
    IoEngine io_engine = IoEngine::kAuto;
    // For memory that a device copies from. `pin` is called for each slot once it is allocated, by the thread of
    // Create, whose error it may be; `unpin` for each that was pinned, before it goes back to the system, by the thread
    // of Stop(). None by default.
    std::function<absl::Status(std::byte* data, size_t bytes)> pin;
    std::function<void(std::byte* data)> unpin;
  };

  // INVALID_ARGUMENT for a step that is not of this checkpoint (names step and tensor). FAILED_PRECONDITION for the
  // checkpoint of a config.json alone, which has no weights. RESOURCE_EXHAUSTED where the
  // system has no memory for slots x largest step.
  static absl::StatusOr<std::unique_ptr<BlockStreamer>> Create(const Context& context, const Checkpoint& checkpoint,
                                                               std::vector<Step> order, const Options& options);
  static absl::StatusOr<std::unique_ptr<BlockStreamer>> CreateFromRanges(const Context& context,
                                                                         const Checkpoint& checkpoint,
                                                                         std::vector<RangeStep> order,
                                                                         const Options& options);
  // Room that a step takes in a slot: what a planner multiplies by `slots`. INVALID_ARGUMENT for rows out of range.
  static absl::StatusOr<uint64_t> SlotBytes(const RangeStep& step);
  static absl::StatusOr<uint64_t> SlotBytes(const Step& step);

  // Calls Stop().
  ~BlockStreamer();

  // Blocks until the next step of the order is resident. Gives the slot of the step before back to the reader.
  absl::StatusOr<BlockView> Next();
  // Ends reading: waits at most for the reads that are under way (16 MiB), then gives back threads, files and all slots
  // but the one of the last view, which lives on with this object. Every later Next() is CANCELLED. From the thread of
  // Next().
  void Stop();
  StreamStats stats() const;
  // Bytes that the whole order will read, known before the first read.
  uint64_t planned_bytes() const;

 private:
  struct Rep;
  explicit BlockStreamer(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_BLOCK_STREAMER_H_
