// A plugin whose device is plain memory, so that the programs of this folder can be tried without one. Its kernels are
// the processor's loops; AUTOSCHEME_STAND_IN_FAULT=forward, backward or k_quant makes one of them a little wrong.
#include <ATen/ATen.h>

#include <cstdlib>
#include <cstring>

#include "quant/device_quant_api.h"
#include "quant/fused.h"
#include "support/stand_in_device.h"

namespace autoscheme {
namespace {

at::ScalarType TypeOf(Number type) {
  return type == Number::kF32 ? at::kFloat : type == Number::kF16 ? at::kHalf : at::kBFloat16;
}

at::Tensor Matrix(const void* data, Number type, int64_t elements, int64_t width) {
  return at::from_blob(const_cast<void*>(data), {elements / width, width}, at::TensorOptions().dtype(TypeOf(type)));
}

bool IsFaulty(const char* name) {
  const char* fault = std::getenv("AUTOSCHEME_STAND_IN_FAULT");
  return fault != nullptr && std::strcmp(fault, name) == 0;
}

void Spoil(const char* name, at::Tensor& y) {
  if (IsFaulty(name)) *static_cast<uint8_t*>(y.mutable_data_ptr()) ^= 1;
}

GroupSize GroupOf(const DeviceGroups& groups) {
  if (groups.tile_rows > 0) return {static_cast<int>(groups.size), static_cast<int>(groups.tile_rows)};
  return {static_cast<int>(groups.size), 0};
}

at::Tensor WholeOf(const float* whole) { return whole == nullptr ? at::Tensor() : at::full({1}, *whole); }

// The width under which fused.h lays the same groups: that of a run, or of one group where runs are whole groups.
int64_t WidthOf(const DeviceGroups& groups) {
  return groups.tile_rows == 0 && groups.size > 0 && groups.run % groups.size == 0 ? groups.size : groups.run;
}

DeviceResult Forward(void* device, const cpu::Format* format, const DeviceGroups* groups, const void* x, Number x_type,
                     const float* whole, void* y, Number y_type) {
  return StandIn::Give(device, DeviceStream::kCompute, [=, f = *format, g = *groups] {
    const int64_t width = WidthOf(g);
    at::Tensor out = Matrix(y, y_type, g.elements, width);
    FusedForward(f, GroupOf(g), Matrix(x, x_type, g.elements, width), WholeOf(whole), out);
    Spoil("forward", out);
  });
}

DeviceResult Backward(void* device, const cpu::Format* format, const DeviceGroups* groups, const void* x, Number x_type,
                      const void* grad, const float* whole, int32_t constant_whole, void* dx, Number type) {
  return StandIn::Give(device, DeviceStream::kCompute, [=, f = *format, g = *groups] {
    const int64_t width = WidthOf(g);
    at::Tensor out = Matrix(dx, type, g.elements, width);
    FusedBackward(f, GroupOf(g), Matrix(x, x_type, g.elements, width), Matrix(grad, type, g.elements, width),
                  WholeOf(whole), constant_whole != 0, out);
    if (type == Number::kF32 && IsFaulty("backward")) out.mul_(1.00001);
  });
}

DeviceResult KQuant(void* device, const cpu::KFormat* format, int64_t groups, const void* x, Number x_type,
                    const float* importance, int64_t importance_groups, void* y, Number y_type, int32_t* overflowed) {
  return StandIn::Give(device, DeviceStream::kCompute, [=, f = *format] {
    const int64_t elements = groups * f.group, width = f.group;
    at::Tensor out = Matrix(y, y_type, elements, width);
    const at::Tensor weights =
        importance == nullptr ? at::Tensor() : Matrix(importance, Number::kF32, importance_groups * f.group, f.group);
    if (!FusedKQuant(f, Matrix(x, x_type, elements, width), weights, out)) *overflowed = 1;
    Spoil("k_quant", out);
  });
}

DeviceResult LargestMagnitude(void* device, const void* x, Number x_type, int64_t count, float* most) {
  return StandIn::Give(device, DeviceStream::kCompute,
                       [=] { *most = Amax(Matrix(x, x_type, count, count)).item<float>(); });
}

}  // namespace
}  // namespace autoscheme

extern "C" __attribute__((visibility("default"))) const autoscheme::DeviceApi* autoscheme_device_api() {
  using namespace autoscheme;
  static const DeviceQuantApi quant = {Forward, Backward, KQuant, LargestMagnitude};
  static StandIn* const stand_in = [] {
    StandInOptions options;
    options.quant = &quant;
    return new StandIn(options);
  }();
  return &stand_in->api();
}
