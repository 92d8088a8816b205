// Names of temporary files.
#ifndef AUTOSCHEME_BASE_TEMP_NAME_H_
#define AUTOSCHEME_BASE_TEMP_NAME_H_

#include <string>

#include "absl/strings/string_view.h"

namespace autoscheme {

// "<dir>/.<stem>.<128 random bits>.tmp"; an empty dir is the working directory.
std::string TempName(const std::string& dir, absl::string_view stem);

}  // namespace autoscheme

#endif  // AUTOSCHEME_BASE_TEMP_NAME_H_
