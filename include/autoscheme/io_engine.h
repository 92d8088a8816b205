// How the weights are read from storage.
#ifndef AUTOSCHEME_IO_ENGINE_H_
#define AUTOSCHEME_IO_ENGINE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

// The bytes are the same whatever the engine. One that does not work here (no io_uring in the kernel or behind the
// sandbox's filter, a file system without O_DIRECT) gives way to the next of the list, with one warning.
enum class IoEngine : int32_t {
  kAuto = 0,      // the fastest, by a short trial on the file itself; small models are read with kBuffered
  kUring = 1,     // io_uring, past the page cache (O_DIRECT)
  kDirect = 2,    // pread from a few threads, past the page cache
  kBuffered = 3,  // pread, after which the page cache is told to forget
};

// "auto", "uring", "direct", "buffered".
absl::string_view IoEngineName(IoEngine engine);
// INVALID_ARGUMENT naming the four.
absl::StatusOr<IoEngine> IoEngineFromName(absl::string_view name);

}  // namespace autoscheme

#endif  // AUTOSCHEME_IO_ENGINE_H_
