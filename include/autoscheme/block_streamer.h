// BlockStreamer: brings the blocks of a checkpoint from disk in a given order, reading ahead while the caller computes.
#ifndef AUTOSCHEME_BLOCK_STREAMER_H_
#define AUTOSCHEME_BLOCK_STREAMER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/tensor.h"

namespace autoscheme {

class Checkpoint;
class MemoryBudget;  // lib/base/budget.h

// The tensors of one step of the order, resident. Dies with the next call of Next().
struct BlockView {
  int step = 0;  // index into the order
  absl::Span<const TensorView> tensors;
  // The tensor of that name. Null if the step does not hold it.
  const TensorView* Find(absl::string_view name) const;
};

struct StreamStats {
  uint64_t bytes_read = 0;  // bytes of tensors delivered into slots
  double read_s = 0;        // time the reader thread spent in reads
  double stall_s = 0;       // time Next() waited for the reader
};

// Reads with pread only, never mmap, and drops what it read from the page cache. Holds `slots` buffers, each as large
// as the largest step, allocated once. One reader thread, started by Create and joined by the destructor.
//
// Thread-safety: Next() from one thread. The context's cancel token from any.
// Errors of Next: OUT_OF_RANGE after the last step; DATA_LOSS when a shard ends early or has changed since it was
// opened (names tensor, shard, offset); CANCELLED. After an error every further call returns the same error.
class BlockStreamer {
 public:
  using Step = std::vector<const TensorInfo*>;  // tensors read together; borrowed, must outlive the streamer

  struct Options {
    int slots = 2;  // 1 = no read-ahead
    // A step equal to the one before it (the turn of a forward-backward order) is not read again when true.
    bool reuse_repeated_step = false;
  };

  // RESOURCE_EXHAUSTED when slots x largest step does not fit `budget` (null: unlimited).
  static absl::StatusOr<std::unique_ptr<BlockStreamer>> Create(const Context& context, const Checkpoint& checkpoint,
                                                               std::vector<Step> order, const Options& options,
                                                               MemoryBudget* budget = nullptr);
  ~BlockStreamer();

  // Blocks until the next step of the order is resident.
  absl::StatusOr<BlockView> Next();
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
