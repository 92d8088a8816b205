// The subcommands. Each gets its parsed flags and the options set from them, and prints its result to stdout.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "flags.h"
#include "library.h"

namespace cli {

// What all commands work with.
struct Session {
  Flags flags;
  ContextHandle context;
  OptionsHandle options;
};

struct Command {
  const char* name;
  const char* summary;  // one line
  std::vector<Flag> flags;
  absl::Status (*run)(Session& session);
  absl::Status (*check)(const Flags& flags) = nullptr;  // flags that need or exclude one another
};

const std::vector<Command>& Commands();

absl::Status Inspect(Session& session);
absl::Status CheckInspect(const Flags& flags);
absl::Status Schemes(Session& session);
absl::Status MakePlan(Session& session);
absl::Status Score(Session& session);
absl::Status Select(Session& session);
absl::Status Run(Session& session);
absl::Status Eval(Session& session);

}  // namespace cli
