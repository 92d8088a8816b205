#pragma once

#include <string>

namespace autoscheme {

// What this build can do, as one line: "LibTorch 2.11.0; devices: cpu, cuda by \"/opt/lib/libautoscheme_cuda.so\"", or
// "LibTorch 2.11.0; devices: cpu; no plugin for cuda". Says where the plugin lies, not whether this machine can use it:
// nothing is loaded. Any thread.
std::string BuildInfo();

}  // namespace autoscheme
