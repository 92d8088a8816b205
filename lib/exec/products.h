// Matrix products, timed: what a run spends in them is what it cannot spend less of.
#pragma once

#include <ATen/ATen.h>

#include <chrono>
#include <vector>

#include "absl/status/status.h"
#include "device/device.h"
#include "tensor/products.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {

// What products took. One thread. A device computes later than it is asked to: there the time is that between events
// before and behind each product, which are read when there are many of them.
class ProductMeter {
 public:
  // The device outlives this. RESOURCE_EXHAUSTED where it has no events to give.
  absl::Status UseDevice(const Device& device);

  template <typename Product>
  void Time(double flops, const Product& product) {
    flops_ += flops;
    if (device_ == nullptr) {
      const auto start = std::chrono::steady_clock::now();
      product();
      seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      return;
    }
    if (pending_ == kPairs) Settle();
    Mark(starts_[pending_]);
    product();
    Mark(ends_[pending_++]);
  }
  // Sum over all products so far; on a device waits for them.
  double seconds() {
    Settle();
    return seconds_;
  }
  double flops() const { return flops_; }  // multiplications and additions

 private:
  static constexpr size_t kPairs = 256;
  // A mark that fails leaves a time out; what the device has met shows in the next product or copy.
  void Mark(const DeviceEvent& event);
  void Settle();

  const Device* device_ = nullptr;
  std::vector<DeviceEvent> starts_, ends_;
  size_t pending_ = 0;
  double seconds_ = 0, flops_ = 0;
};

template <typename Product>
void Metered(ProductMeter& meter, const at::Tensor& a, const at::Tensor& b, const Product& product) {
  meter.Time(2.0 * static_cast<double>(a.size(0)) * static_cast<double>(a.size(1)) * static_cast<double>(b.size(1)),
             product);
}

inline at::Tensor Product(ProductMeter& meter, const at::Tensor& a, const at::Tensor& b,
                          ProductType type = ProductType::kExact) {
  at::Tensor out = NewLike(a, {a.size(0), b.size(1)}, a.scalar_type());
  Metered(meter, a, b, [&] { Multiply(out, a, b, type); });
  return out;
}
// out = a b, for matrices; out may be a view, and of another dtype than the operands.
inline void MultiplyInto(ProductMeter& meter, at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                         ProductType type = ProductType::kExact) {
  if (out.scalar_type() != a.scalar_type()) {
    out.copy_(Product(meter, a, b, type));
    return;
  }
  Metered(meter, a, b, [&] { Multiply(out, a, b, type); });
}
// out += a b, likewise.
inline void AddProduct(ProductMeter& meter, at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                       ProductType type = ProductType::kExact) {
  if (out.scalar_type() != a.scalar_type()) {
    out.add_(Product(meter, a, b, type));
    return;
  }
  Metered(meter, a, b, [&] { AddMultiplied(out, a, b, type); });
}

}  // namespace autoscheme
