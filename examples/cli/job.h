// What the commands over a model and token ids begin with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "commands.h"
#include "library.h"

namespace cli {

struct Job {
  SkeletonHandle skeleton;
  CalibrationHandle calibration;
};

// Opens the model and the ids, and looks at the result files: nothing fails late that can fail early. Sets the options
// by which a program differs from a host.
absl::StatusOr<Job> PrepareJob(const Session& session, const std::vector<std::string>& outputs);

// Every file that the command reads, of the model (which may be null) and by its flags.
std::vector<std::string> Inputs(const Session& session, const autoscheme_skeleton* model);
// Those of --recipes.
std::vector<std::string> RecipeFiles(const Flags& flags);

// As --max-ram gives it; 0 without one.
uint64_t MaxRam(const Session& session);
// The command's tables are printed unless the user does without, or stdout belongs to a result.
bool Prints(const Session& session, const std::vector<std::string>& outputs);

}  // namespace cli
