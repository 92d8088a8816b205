// An Io whose /proc and /sys are what a test says, and have nothing else; all other files are the operating system's.
#pragma once

#include <map>
#include <string>

#include "base/io.h"
#include "support/temp_dir.h"

namespace autoscheme {

class MadeSystem : public Io {
 public:
  explicit MadeSystem(const std::map<std::string, std::string>& files) {
    for (const auto& [path, text] : files) dir_.Write(path.substr(1), text);
  }
  int Open(const char* path, int flags, mode_t mode) override {
    const std::string wanted = path;
    const bool made = wanted.rfind("/proc/", 0) == 0 || wanted.rfind("/sys/", 0) == 0;
    return Io::Open(made ? (dir_.path() + wanted).c_str() : path, flags, mode);
  }

 private:
  TempDir dir_;
};

}  // namespace autoscheme
