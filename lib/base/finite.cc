#include "base/finite.h"

#include "absl/strings/str_cat.h"
#include "base/io.h"

namespace autoscheme {

absl::Status FiniteStatus(const TensorInfo& info, int64_t count, int64_t first) {
  if (count == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("tensor ", Quoted(info.name), " holds ", count, " NaN or infinite values of ",
                                          info.numel(), ", the first at element ", first,
                                          "; the checkpoint is damaged or was saved from a diverged run"));
}

absl::Status NotComputable(const TensorInfo& info) {
  return absl::UnimplementedError(absl::StrCat("tensor ", Quoted(info.name), " is ", DtypeName(info.dtype),
                                               "; weights of BF16, F16 and F32 can be computed with"));
}

}  // namespace autoscheme
