// Which engine reads a checkpoint fastest, tried on the file itself.
#ifndef AUTOSCHEME_STREAM_ENGINE_TRIAL_H_
#define AUTOSCHEME_STREAM_ENGINE_TRIAL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "checkpoint/checkpoint.h"
#include "stream/extents.h"

namespace autoscheme {

struct EngineTrial {
  IoEngine engine = IoEngine::kBuffered;
  uint64_t read_bytes = 0;  // what the trial cost; at most 64 MiB
};

// Reads stretches of the extents with each engine in turn, twice, and takes the faster time of each. Gives up after 0.3
// s (a slow disk, where no engine makes a difference) or a cancel, and then says buffered. `slot` is page-aligned
// scratch. Never fails: an error that lasts is met again where it can be named. The checkpoint's record learns the
// outcome.
EngineTrial TryEngines(const Context& context, const Checkpoint& checkpoint, absl::Span<const Extent> extents,
                       std::byte* slot, uint64_t slot_bytes);

}  // namespace autoscheme

#endif  // AUTOSCHEME_STREAM_ENGINE_TRIAL_H_
