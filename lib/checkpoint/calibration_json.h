// Token ids as JSON: lists of ids, an object of columns, or a list of objects as the datasets library writes it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "autoscheme/calibration.h"
#include "autoscheme/context.h"
#include "base/json.h"

namespace autoscheme {

// All ids; `part` is of what stands beside them. `path` is for messages. INVALID_ARGUMENT as in ReadCalibration.
absl::StatusOr<Calibration> CalibrationFromJson(const JsonValue& json, const std::string& path,
                                                const CalibrationPart& part, const Context& context);

// Whether text that is no JSON is JSON Lines: a value in the first line, and more after it.
bool IsJsonLines(absl::string_view text);

}  // namespace autoscheme
