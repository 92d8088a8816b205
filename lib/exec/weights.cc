#include "exec/weights.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "base/finite.h"
#include "device/torch_devices.h"

namespace autoscheme {

at::ScalarType TorchType(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBF16: return at::kBFloat16;
    case Dtype::kF16: return at::kHalf;
    default: return at::kFloat;  // the skeleton accepts these three only
  }
}

namespace {

at::Tensor Borrowed(const std::byte* data, at::IntArrayRef sizes, at::ScalarType type, at::Device device) {
  return at::for_blob(const_cast<std::byte*>(data), sizes)
      .options(at::TensorOptions().dtype(type).device(device))
      .target_device(device)
      .make_tensor();
}

at::Tensor Stored(const std::byte* data, Dtype dtype, at::IntArrayRef sizes, at::Device device) {
  const at::ScalarType stored = TorchType(dtype);
  const int64_t bytes = c10::multiply_integers(sizes) * static_cast<int64_t>(at::elementSize(stored));
  if (reinterpret_cast<uintptr_t>(data) % at::elementSize(stored) == 0) return Borrowed(data, sizes, stored, device);
  return Borrowed(data, {bytes}, at::kByte, device).clone().view(stored).view(sizes);
}

// Elements whose exponent bits are all ones.
template <typename Word>
NonFinite FindNonFinite(const std::byte* data, int64_t n, Word exponent_mask) {
  const auto look = [&](int64_t from, int64_t to, NonFinite found) {
    constexpr int64_t kChunk = 4096;
    for (int64_t begin = from; begin < to; begin += kChunk) {
      const int64_t m = std::min(kChunk, to - begin);
      Word words[kChunk];
      std::memcpy(words, data + begin * sizeof(Word), m * sizeof(Word));
      int64_t bad = 0;
      for (int64_t i = 0; i < m; ++i) bad += (words[i] & exponent_mask) == exponent_mask;
      if (bad == 0) continue;
      for (int64_t i = 0; found.first < 0 && i < m; ++i) {
        if ((words[i] & exponent_mask) == exponent_mask) found.first = begin + i;
      }
      found.count += bad;
    }
    return found;
  };
  const auto join = [](NonFinite a, NonFinite b) {
    return NonFinite{a.count + b.count, a.first >= 0 ? a.first : b.first};
  };
  return at::parallel_reduce(0, n, /*grain_size=*/int64_t{1} << 17, NonFinite{0, -1}, look, join);
}

// body(a value of t's type), where it is one that we know.
template <typename Body>
void WithType(const at::Tensor& t, const Body& body) {
  if (t.scalar_type() == at::kFloat) return body(float());
  if (t.scalar_type() == at::kBFloat16) return body(at::BFloat16());
  if (t.scalar_type() == at::kHalf) return body(at::Half());
}

template <typename Grad, typename Weight, typename Quantized>
double SumOnCpu(const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq) {
  const Grad* g = grad.const_data_ptr<Grad>();
  const Weight* a = w.const_data_ptr<Weight>();
  const Quantized* b = wq.const_data_ptr<Quantized>();
  const auto term = [&](int64_t i) {
    return std::fabs(static_cast<float>(g[i]) * (static_cast<float>(a[i]) - static_cast<float>(b[i])));
  };
  return at::parallel_reduce(
      0, grad.numel(), /*grain_size=*/int64_t{1} << 15, 0.0,
      [&](int64_t begin, int64_t end, double sum) {
        constexpr int kLanes = 8;  // independent sums, so that the loop vectorizes
        double lane[kLanes] = {};
        int64_t i = begin;
        for (; i + kLanes <= end; i += kLanes) {
          for (int j = 0; j < kLanes; ++j) lane[j] += term(i + j);
        }
        for (double v : lane) sum += v;
        for (; i < end; ++i) sum += term(i);
        return sum;
      },
      std::plus<double>());
}

}  // namespace

at::Tensor StoredRows(const std::byte* data, Dtype stored, int64_t rows, int64_t cols, at::Device device) {
  return Stored(data, stored, {rows, cols}, device);
}

at::Tensor LoadTensor(const TensorView& view, at::ScalarType dtype, at::Device device) {
  return Stored(view.data, view.info->dtype, view.info->shape, device).to(dtype, /*non_blocking=*/false, /*copy=*/true);
}

absl::Status CheckFinite(const TensorView& view) {
  const TensorInfo& info = *view.info;
  const int64_t n = info.numel();
  NonFinite found = {};
  switch (info.dtype) {
    case Dtype::kBF16: found = FindNonFinite<uint16_t>(view.data, n, 0x7F80); break;
    case Dtype::kF16: found = FindNonFinite<uint16_t>(view.data, n, 0x7C00); break;
    case Dtype::kF32: found = FindNonFinite<uint32_t>(view.data, n, 0x7F800000u); break;
    default: return NotComputable(info);
  }
  return FiniteStatus(info, found.count, found.first);
}

void AddAbsGradTimesError(const at::Tensor& sum, const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq) {
  const bool dense = grad.is_contiguous() && w.is_contiguous() && wq.is_contiguous();
  if (dense && OnHost(grad)) {
    bool known = false;
    WithType(grad, [&](auto g) {
      WithType(w, [&](auto v) {
        WithType(wq, [&](auto q) {
          *sum.mutable_data_ptr<double>() += SumOnCpu<decltype(g), decltype(v), decltype(q)>(grad, w, wq);
          known = true;
        });
      });
    });
    if (known) return;
  }
  if (const Device* device = KernelsOf(grad); device != nullptr && device->api().add_abs_products != nullptr) {
    const at::Tensor g = grad.contiguous(), a = w.contiguous(), b = wq.contiguous();
    const DeviceResult result = device->api().add_abs_products(device->handle(), g.const_data_ptr(), NumberOf(g),
                                                               a.const_data_ptr(), NumberOf(a), b.const_data_ptr(),
                                                               NumberOf(b), g.numel(), sum.mutable_data_ptr<double>());
    return RequireOk(*device, result, "summing up gradients times errors");
  }
  at::Tensor error = w.to(at::kFloat) - wq.to(at::kFloat);
  sum.add_(error.mul_(grad).abs_().sum(at::kDouble));
}

double SumAbsGradTimesError(const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq) {
  const at::Tensor sum = at::zeros({}, grad.options().dtype(at::kDouble));
  AddAbsGradTimesError(sum, grad, w, wq);
  return sum.item<double>();
}

}  // namespace autoscheme
