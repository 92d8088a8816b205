// DeviceQuantApi: the loops of kernels.h on another device, part of its DeviceApi. All data lies in the device's
// memory but `format` and `groups`, which are read before a call returns; work is given to DeviceStream::kCompute.
// Results are those of kernels.h to the bit, but for the gradient of a scale that spans the tensor, whose sum has an
// order of its own, the same in every run.
//
// x and what is differentiated are float32, bfloat16 or float16; y and dx float32 or bfloat16, where finite values and
// infinities come no further than the largest. kFailed: the arguments are none that the function takes.
#pragma once

#include <stdint.h>

#include "device/device_api.h"
#include "quant/kernels.h"

namespace autoscheme {

// Groups as fused.h lays them over a contiguous tensor: runs of `run` elements, each cut into groups of `size`, of
// which the last of a run may be shorter. With `tile_rows`, tiles of tile_rows x size over a matrix of rows of `run`.
// Size 0: the tensor is one group, for Family::kFp8 only, of which `whole` is the largest magnitude.
struct DeviceGroups {
  int64_t elements, run, size, tile_rows;
};

// The groups of GroupSize{size, rows} (autoscheme/scheme.h) over a tensor that is not empty, of rows of `width`.
inline DeviceGroups GroupsOf(int64_t size, int64_t rows, int64_t elements, int64_t width) {
  if (rows > 0) return {elements, width, size, rows};
  if (size == 0) return {elements, elements, 0, 0};
  const int64_t own = size < 0 || width < size ? width : size;
  return {elements, width % own == 0 ? elements : width, own, 0};
}

struct DeviceQuantApi {
  // `whole`: the largest magnitude of the tensor, where the family (kNvfp4) or the layout (size 0) asks for one; else
  // null. y may be x where their types are one.
  DeviceResult (*forward)(void* device, const cpu::Format* format, const DeviceGroups* groups, const void* x,
                          Number x_type, const float* whole, void* y, Number y_type);
  // dx for dL/dy = grad, both of type `type`; dx may be grad. Not for tiles, kIntAsym, nor for kFp8 where it is narrow.
  // `constant_whole`: no gradient flows through the scale of the tensor, where the family has one.
  DeviceResult (*backward)(void* device, const cpu::Format* format, const DeviceGroups* groups, const void* x,
                           Number x_type, const void* grad, const float* whole, int32_t constant_whole, void* dx,
                           Number type);
  // `groups` of format->group elements, whole super-groups. `importance`: one weight for each element of
  // `importance_groups` groups that repeat, or null. Sets *overflowed to 1 where a result is not finite, else leaves
  // it.
  DeviceResult (*k_quant)(void* device, const cpu::KFormat* format, int64_t groups, const void* x, Number x_type,
                          const float* importance, int64_t importance_groups, void* y, Number y_type,
                          int32_t* overflowed);
  // *most: the largest magnitude, NaN where there is one.
  DeviceResult (*amax)(void* device, const void* x, Number x_type, int64_t count, float* most);
};

}  // namespace autoscheme
