// Names of temporary files.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace autoscheme {

// "<dir>/.<stem>.<128 random bits>.tmp"; an empty dir is the working directory.
std::string TempName(const std::string& dir, absl::string_view stem);

}  // namespace autoscheme
