// What this machine can do, measured in well under a second, for a plan's time estimate.
#pragma once

#include <ATen/core/ScalarType.h>

#include "absl/status/statusor.h"
#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/meta_skeleton.h"
#include "plan/machine_rates.h"

namespace autoscheme {

// Multiplies matrices of a block's size for a quarter of a second, and streams up to 64 MiB of the first block. (From
// the page cache, if it is there.) Without weights the rate of reading stays as it is assumed; the spill rate always
// does, since measuring it would write. Errors: those of reading.
absl::StatusOr<MachineRates> MeasureRates(const Context& context, const MetaSkeleton& skeleton, at::ScalarType dtype,
                                          IoEngine engine);

}  // namespace autoscheme
