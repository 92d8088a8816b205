// NumPy's .npy files of integers.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/io.h"

namespace autoscheme {

struct NpyHeader {
  int item_bytes = 0;          // 4 or 8, signed little-endian
  std::vector<int64_t> shape;  // C order
  uint64_t data_offset = 0;    // where the first item lies
};

// True if the first bytes of `file` are NumPy's.
bool IsNpy(absl::string_view first_bytes);

// Versions 1.0 and 2.0 (numpy.lib.format). DATA_LOSS when malformed, or when the file does not end with the last item;
// UNIMPLEMENTED for other versions, other types than int32 and int64, and Fortran order.
absl::StatusOr<NpyHeader> ReadNpyHeader(const File& file);

}  // namespace autoscheme
