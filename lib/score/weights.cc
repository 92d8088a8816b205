#include "score/weights.h"

#include <cmath>
#include <cstring>
#include <functional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "base/io.h"

namespace autoscheme {
namespace {

at::ScalarType TorchType(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBF16: return at::kBFloat16;
    case Dtype::kF16: return at::kHalf;
    default: return at::kFloat;  // the skeleton accepts these three only
  }
}

at::Tensor Load(const std::byte* bytes, Dtype dtype, at::IntArrayRef sizes, at::ScalarType wanted, bool may_borrow) {
  const at::ScalarType stored = TorchType(dtype);
  std::byte* data = const_cast<std::byte*>(bytes);
  const bool aligned = reinterpret_cast<uintptr_t>(data) % at::elementSize(stored) == 0;
  if (!aligned) {
    at::Tensor copy = at::empty(sizes, at::TensorOptions().dtype(stored));
    std::memcpy(copy.data_ptr(), data, copy.nbytes());
    return copy.to(wanted);
  }
  at::Tensor borrowed = at::from_blob(data, sizes, at::TensorOptions().dtype(stored));
  if (stored != wanted) return borrowed.to(wanted);
  return may_borrow ? borrowed : borrowed.clone();
}

// Elements whose exponent bits are all ones, and the first of them.
struct NonFinite {
  int64_t count = 0;
  int64_t first = -1;
};

template <typename Word>
NonFinite FindNonFinite(const std::byte* data, int64_t n, Word exponent_mask) {
  NonFinite found;
  constexpr int64_t kStretch = 4096;
  for (int64_t begin = 0; begin < n; begin += kStretch) {
    const int64_t m = std::min(kStretch, n - begin);
    Word words[kStretch];
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
}

template <typename Grad, typename Value>
double SumOnCpu(const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq) {
  const Grad* g = grad.const_data_ptr<Grad>();
  const Value *a = w.const_data_ptr<Value>(), *b = wq.const_data_ptr<Value>();
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

at::Tensor LoadRows(const std::byte* data, Dtype stored, int64_t rows, int64_t cols, at::ScalarType dtype) {
  return Load(data, stored, {rows, cols}, dtype, /*may_borrow=*/true);
}

at::Tensor LoadTensor(const TensorView& view, at::ScalarType dtype) {
  return Load(view.data, view.info->dtype, view.info->shape, dtype, /*may_borrow=*/false);
}

absl::Status CheckFinite(const TensorView& view) {
  const TensorInfo& info = *view.info;
  const int64_t n = info.numel();
  NonFinite found;
  switch (info.dtype) {
    case Dtype::kBF16: found = FindNonFinite<uint16_t>(view.data, n, 0x7F80); break;
    case Dtype::kF16: found = FindNonFinite<uint16_t>(view.data, n, 0x7C00); break;
    default: found = FindNonFinite<uint32_t>(view.data, n, 0x7F800000u); break;
  }
  if (found.count == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("tensor ", Quoted(info.name), " holds ", found.count,
                                          " NaN or infinite values of ", n, ", the first at element ", found.first,
                                          "; the checkpoint is damaged or was saved from a diverged run"));
}

double SumAbsGradTimesError(const at::Tensor& grad, const at::Tensor& w, const at::Tensor& wq) {
  const at::ScalarType g = grad.scalar_type(), v = w.scalar_type();
  const bool plain = grad.is_cpu() && v == wq.scalar_type() && grad.is_contiguous() && w.is_contiguous() && wq.is_contiguous();
  if (plain && g == at::kFloat && v == at::kFloat) return SumOnCpu<float, float>(grad, w, wq);
  if (plain && g == at::kBFloat16 && v == at::kFloat) return SumOnCpu<at::BFloat16, float>(grad, w, wq);
  if (plain && g == at::kBFloat16 && v == at::kBFloat16) return SumOnCpu<at::BFloat16, at::BFloat16>(grad, w, wq);
  at::Tensor error = w.to(at::kFloat) - wq.to(at::kFloat);
  return error.mul_(grad).abs_().sum(at::kDouble).item<double>();
}

}  // namespace autoscheme
