// How the weights are read from storage.
#ifndef AUTOSCHEME_IO_ENGINE_H_
#define AUTOSCHEME_IO_ENGINE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

// The bytes are the same whatever the engine. Where the file system refuses O_DIRECT, kBuffered takes over from
// kDirect, with one warning unless kAuto chose it.
enum class IoEngine : int32_t {
  kAuto = 0,      // kDirect for large streams, kBuffered for small ones and where the page cache is to keep the bytes
  kDirect = 1,    // pread from a few threads, past the page cache (O_DIRECT)
  kBuffered = 2,  // pread, after which the page cache is told to forget
};

// "auto", "direct", "buffered".
absl::string_view IoEngineName(IoEngine engine);
// INVALID_ARGUMENT naming the three.
absl::StatusOr<IoEngine> IoEngineFromName(absl::string_view name);

}  // namespace autoscheme

#endif  // AUTOSCHEME_IO_ENGINE_H_
