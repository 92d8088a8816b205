#include "autoscheme/io_engine.h"

#include "absl/strings/str_cat.h"
#include "base/io.h"

namespace autoscheme {
namespace {

constexpr const char* kNames[] = {"auto", "direct", "buffered"};

}  // namespace

absl::string_view IoEngineName(IoEngine engine) { return kNames[static_cast<int32_t>(engine)]; }

absl::StatusOr<IoEngine> IoEngineFromName(absl::string_view name) {
  for (int32_t i = 0; i < 3; ++i) {
    if (name == kNames[i]) return static_cast<IoEngine>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat("io_engine is ", Quoted(name), "; known: auto, direct, buffered"));
}

}  // namespace autoscheme
