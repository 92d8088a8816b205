// A table of functions that opens devices without memory, and fails as it is told.
#pragma once

#include <cstdlib>
#include <string>

#include "device/device_api.h"

namespace autoscheme {

struct MadeTable {
  static inline int32_t devices = 2;
  static inline int open = 0;  // opened and not closed
  static inline int held = 0;  // places and events that were given and not given back
  static inline DeviceResult result = DeviceResult::kOk;
  static inline std::string error = "it was told to fail";

  static DeviceApi Make(const char* name) {
    DeviceApi api = {};
    api.version = kDeviceApiVersion, api.bytes = sizeof(DeviceApi), api.name = name;
    api.count = [](int32_t* count) { return *count = devices, result; };
    api.open = [](int32_t index, void** device) {
      static int handles[2];
      if (result != DeviceResult::kOk) return result;
      ++open, *device = &handles[index];
      return DeviceResult::kOk;
    };
    api.close = [](void*) { --open; };
    api.last_error = []() { return error.c_str(); };
    api.properties = [](void*, DeviceProperties* p) { return *p = {"made", 9, 0, 13020, 13000, 1 << 30}, result; };
    api.memory = [](void*, uint64_t* free, uint64_t* process) { return *free = 77, *process = 0, result; };
    api.allocate = [](void*, size_t bytes, void** data) {
      if (result == DeviceResult::kOk) ++held, *data = malloc(bytes);
      return result;
    };
    api.release = [](void*, void* data) { return --held, free(data), DeviceResult::kOk; };
    api.allocate_pinned = api.allocate, api.release_pinned = api.release;
    api.synchronize = [](void*, DeviceStream) { return result; };
    api.create_event = [](void*, void** event) {
      if (result == DeviceResult::kOk) ++held, *event = malloc(1);
      return result;
    };
    api.destroy_event = api.release;
    api.record = [](void*, DeviceStream, void*) { return result; };
    api.stream_wait = api.record;
    api.wait = [](void*, void*) { return result; };
    return api;
  }
};

}  // namespace autoscheme
