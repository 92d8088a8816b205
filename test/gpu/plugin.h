// Loading a plugin's table, for the programs of this folder: what fails ends the program with one line.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "device/device_api.h"

namespace autoscheme {

[[noreturn]] inline void Fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

inline const DeviceApi& LoadPlugin(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) Fail(std::string("loading ") + path + ": " + dlerror());
  const auto table = reinterpret_cast<DeviceApiFunction>(dlsym(library, kDeviceApiSymbol));
  if (table == nullptr) Fail(std::string(path) + " exports no " + kDeviceApiSymbol);
  const DeviceApi* api = table();
  if (api == nullptr || api->version != kDeviceApiVersion || api->bytes != sizeof(DeviceApi)) {
    Fail(std::string(path) + " has a table of version " + std::to_string(api == nullptr ? 0 : api->version) +
         ", this program knows " + std::to_string(kDeviceApiVersion));
  }
  return *api;
}

}  // namespace autoscheme
