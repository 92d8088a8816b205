#include "autoscheme/build_info.h"

#include <torch/version.h>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "device/load_cuda.h"

namespace autoscheme {

std::string BuildInfo() {
  const auto plugin = FindCudaPlugin();
  return absl::StrCat("LibTorch ", TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR, ".", TORCH_VERSION_PATCH,
                      "; devices: cpu",
                      plugin.ok() ? absl::StrCat(", cuda by ", Quoted(*plugin)) : "; no plugin for cuda");
}

}  // namespace autoscheme
