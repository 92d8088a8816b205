// A device that appears in LibTorch after a backward pass of the process. LibTorch starts the threads for devices'
// nodes before the first backward pass and never again, so only GradientsOnThisThread lets such a device have
// gradients.
//
// A program of its own: what it registers cannot be taken back. The device's tensors lie in plain memory, and nothing
// but the bookkeeping of a backward pass ever happens to them.
#include <ATen/ATen.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdio>
#include <exception>
#include <string>
#include <thread>

#include "device/torch_devices.h"

namespace {

constexpr c10::DeviceType kType = at::kPrivateUse1;

// One device, whose every stream is the default one.
struct OneDevice final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Device getDevice() const override { return {kType, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, getDevice()); }
  c10::Stream exchangeStream(c10::Stream) const override { return getStream(getDevice()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

float place[2];
std::thread::id backward_thread;

at::Tensor OnDevice() {
  const at::Device device(kType, 0);
  return at::for_blob(place, {2}).options(at::TensorOptions().device(device)).target_device(device).make_tensor();
}

struct Same : torch::autograd::Function<Same> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor&) { return OnDevice(); }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*, torch::autograd::variable_list g) {
    backward_thread = std::this_thread::get_id();
    return g;
  }
};

// What went wrong, empty if nothing did.
std::string BackwardOnDevice() {
  try {
    const at::Tensor x = OnDevice().requires_grad_();
    const auto gradients = torch::autograd::grad({Same::apply(x)}, {x}, {OnDevice()});
    if (gradients.size() != 1 || gradients[0].device() != x.device()) return "no gradient came";
    return backward_thread == std::this_thread::get_id() ? "" : "another thread computed";
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

int main() {
  const at::Tensor x = at::ones({2}).requires_grad_();
  torch::autograd::grad({(x * x).sum()}, {x});
  static const OneDevice device;
  const c10::impl::DeviceGuardImplRegistrar registrar(kType, &device);
  c10::register_privateuse1_backend("late");
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);

  const std::string without = BackwardOnDevice();
  std::string with;
  {
    const autoscheme::GradientsOnThisThread here;
    with = BackwardOnDevice();
  }
  const std::string after = BackwardOnDevice();
  std::printf("without: %s\nwith: %s\n", without.substr(0, 200).c_str(), with.c_str());
  return without.empty() || !with.empty() || after.empty() ? 1 : 0;
}
