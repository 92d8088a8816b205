// DeviceApi: what a device other than the processor can do, as a table of C functions. CUDA's table is in a library of
// its own, which is loaded when a host asks for such a device; tests have one that works in plain memory.
//
// No LibTorch, no exceptions, nothing but plain types: both sides of the table may be built by different compilers.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace autoscheme {

// Raised with every change of this file or of those that it names.
inline constexpr uint32_t kDeviceApiVersion = 1;

// What a call came to. kBroken: the device refuses everything from now on, as CUDA's does after a fault in a kernel.
enum class DeviceResult : int32_t { kOk, kOutOfMemory, kNoDriver, kNoDevice, kBroken, kFailed };

// Work of one stream runs in the order in which it was given; of several, at the same time. kCompute is the stream on
// which LibTorch computes.
enum class DeviceStream : int32_t { kCompute, kUp, kDown };

enum class Number : int32_t { kF32, kBF16, kF16 };

// How factors are rounded before they are multiplied: not at all, or to the 11 significant bits of TF32. Sums are
// float32.
enum class ProductType : int32_t { kExact, kTf32 };

struct DeviceProperties {
  char name[128];
  int32_t major, minor;     // compute capability
  int32_t driver, runtime;  // 13020 is 13.2
  uint64_t total_bytes;
};

// A matrix in the device's memory: element (i, j) lies at i * row_stride + j * column_stride, one of which is 1.
struct DeviceMatrix {
  void* data;
  int64_t rows, columns, row_stride, column_stride;
  Number type;
};

struct NonFinite {
  int64_t count;  // values that are NaN or infinite
  int64_t first;  // index of the first of them, -1 for none
};

struct DeviceQuantApi;  // quant/device_quant_api.h

// A `device` is what open gave. Any thread may call; calls for one device that give work to one stream come from one
// thread at a time. Work is only given by them: it is done when an event behind it is, or after `synchronize`.
struct DeviceApi {
  uint32_t version;  // kDeviceApiVersion
  uint32_t bytes;    // sizeof(DeviceApi)
  const char* name;  // "cuda"

  // How many devices there are.
  DeviceResult (*count)(int32_t* devices);
  // Claims the device's context for this process. Not undone before the process ends.
  DeviceResult (*open)(int32_t index, void** device);
  void (*close)(void* device);
  // What the last call of this thread that did not give kOk has met, as one line. Never null.
  const char* (*last_error)();
  DeviceResult (*properties)(void* device, DeviceProperties* properties);
  // What is free on the device, and what this process holds of it: 0 where the system does not say.
  DeviceResult (*memory)(void* device, uint64_t* free_bytes, uint64_t* process_bytes);

  DeviceResult (*allocate)(void* device, size_t bytes, void** data);
  DeviceResult (*release)(void* device, void* data);
  // Host memory that is copied to and from every device of the table without a stop between: allocated so, or made so
  // in place.
  DeviceResult (*allocate_pinned)(void* device, size_t bytes, void** data);
  DeviceResult (*release_pinned)(void* device, void* data);
  DeviceResult (*pin)(void* device, void* data, size_t bytes);
  DeviceResult (*unpin)(void* device, void* data);

  DeviceResult (*copy_up)(void* device, DeviceStream stream, void* to, const void* from, size_t bytes);
  DeviceResult (*copy_down)(void* device, DeviceStream stream, void* to, const void* from, size_t bytes);
  DeviceResult (*synchronize)(void* device, DeviceStream stream);

  DeviceResult (*create_event)(void* device, void** event);
  DeviceResult (*destroy_event)(void* device, void* event);
  // The event is done when all that the stream was given before is.
  DeviceResult (*record)(void* device, DeviceStream stream, void* event);
  // The stream goes on when the event is done; the calling thread waits for it.
  DeviceResult (*stream_wait)(void* device, DeviceStream stream, void* event);
  DeviceResult (*wait)(void* device, void* event);
  // Seconds from one event to another, both done.
  DeviceResult (*elapsed)(void* device, void* from, void* to, double* seconds);

  // On kCompute. out = a b, or out += a b; a and b of one type, out of that or float32.
  DeviceResult (*multiply)(void* device, const DeviceMatrix* out, const DeviceMatrix* a, const DeviceMatrix* b,
                           ProductType type, int32_t add);
  // On the given stream; `found` in the device's memory.
  DeviceResult (*find_non_finite)(void* device, DeviceStream stream, const void* data, int64_t count, Number type,
                                  NonFinite* found);
  // On kCompute: *sum += sum |grad * (w - wq)|, products and differences in float32, sums in double and in a fixed
  // order. `count` numbers each; `sum` in the device's memory.
  DeviceResult (*add_abs_products)(void* device, const void* grad, Number grad_type, const void* w, Number w_type,
                                   const void* wq, Number wq_type, int64_t count, double* sum);
  // Null: quantizers run as LibTorch's operators.
  const DeviceQuantApi* quant;
};

// The name under which a plugin exports a function that gives its table, which lives as long as the process.
using DeviceApiFunction = const DeviceApi* (*)();
inline constexpr char kDeviceApiSymbol[] = "autoscheme_device_api";

}  // namespace autoscheme
