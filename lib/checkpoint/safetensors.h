// The safetensors header: strict parsing of bytes that may be hostile.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "autoscheme/tensor.h"
#include "base/io.h"

namespace autoscheme {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // ordered by offset; offsets are from the start of the file
};

// Reads and checks the header of an open file; reads nothing else. DATA_LOSS (malformed, truncated), RESOURCE_EXHAUSTED
// (beyond a limit), UNIMPLEMENTED (another format or an unknown dtype). Messages name the file, the tensor, the byte
// counts and, where known, the likely cause (Git LFS pointer, HTML page, interrupted download).
absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const File& file);

}  // namespace autoscheme
