// The two macros that keep error paths to one line.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define AUTOSCHEME_RETURN_IF_ERROR(expr)                \
  do {                                                  \
    if (absl::Status status_ = (expr); !status_.ok()) { \
      return status_;                                   \
    }                                                   \
  } while (false)

#define AUTOSCHEME_CONCAT_INNER(a, b) a##b
#define AUTOSCHEME_CONCAT(a, b) AUTOSCHEME_CONCAT_INNER(a, b)
#define AUTOSCHEME_ASSIGN_OR_RETURN(lhs, expr) \
  AUTOSCHEME_ASSIGN_OR_RETURN_IMPL(AUTOSCHEME_CONCAT(statusor_, __LINE__), lhs, expr)
#define AUTOSCHEME_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                                     \
  if (!tmp.ok()) return std::move(tmp).status();         \
  lhs = std::move(tmp).value()
