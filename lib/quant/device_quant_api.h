// DeviceQuantApi: the loops of kernels.h on another device, part of its DeviceApi. Data lies in the device's memory,
// work is given to DeviceStream::kCompute. Results are those of kernels.h: forward to the bit, sums of gradients in an
// order of their own, the same in every run.
#pragma once

#include <stdint.h>

#include "device/device_api.h"
#include "quant/kernels.h"

namespace autoscheme {

// Groups as fused.h lays them over a contiguous tensor: runs of `run` elements, each cut into groups of `size`, of
// which the last of a run may be shorter. With `tile_rows`, tiles of tile_rows x size over a matrix of rows of `run`.
// Where the tensor is one group, which has `whole` for its magnitude, run and size are `elements`.
struct DeviceGroups {
  int64_t elements, run, size, tile_rows;
};

struct DeviceQuantApi {
  // `whole`: the largest magnitude of the tensor, where the family or the layout asks for one; else null.
  DeviceResult (*forward)(void* device, const cpu::Format* format, const DeviceGroups* groups, const void* x,
                          Number x_type, const float* whole, void* y, Number y_type);
  // dx for dL/dy = grad, both of type `type`; dx may be grad. Not for tiles.
  DeviceResult (*backward)(void* device, const cpu::Format* format, const DeviceGroups* groups, const void* x,
                           Number x_type, const void* grad, const float* whole, int32_t constant_whole, void* dx,
                           Number type);
  // `importance`: as for FusedKQuant, or null. Sets *overflowed, in the device's memory, where a result is not finite.
  DeviceResult (*k_quant)(void* device, const cpu::KFormat* format, int64_t groups, const void* x, Number x_type,
                          const float* importance, int64_t importance_groups, void* y, Number y_type,
                          int32_t* overflowed);
  // *most: the largest magnitude, NaN where there is one.
  DeviceResult (*amax)(void* device, const void* x, Number x_type, int64_t count, float* most);
};

}  // namespace autoscheme
