// Numbers in messages: a number and what it counts, a shape.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace autoscheme {

// "1 tensor", "2 tensors", "0 tensors". `plural` where it is not the noun with an s: Count(n, "batch", "batches").
inline std::string Count(uint64_t n, absl::string_view noun, absl::string_view plural = "") {
  if (n == 1) return absl::StrCat("1 ", noun);
  return plural.empty() ? absl::StrCat(n, " ", noun, "s") : absl::StrCat(n, " ", plural);
}

// "[3, 4]".
inline std::string ShapeText(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace autoscheme
