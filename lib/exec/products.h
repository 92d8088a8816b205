// Matrix products, timed: what a run spends in them is what it cannot spend less of.
#pragma once

#include <ATen/ATen.h>

#include <chrono>

#include "tensor/products.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {

// One thread.
struct ProductMeter {
  double seconds = 0;
  double flops = 0;  // multiplications and additions
};

template <typename Product>
void Metered(ProductMeter& meter, const at::Tensor& a, const at::Tensor& b, const Product& product) {
  const auto start = std::chrono::steady_clock::now();
  product();
  meter.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  meter.flops += 2.0 * static_cast<double>(a.size(0)) * static_cast<double>(a.size(1)) * static_cast<double>(b.size(1));
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
