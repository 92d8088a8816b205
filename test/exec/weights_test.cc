#include "exec/weights.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "support/generic_device.h"

namespace autoscheme {
namespace {

TEST_CASE("rows are borrowed as they are stored, and copied from odd addresses") {
  const std::vector<float> values = {1, -2, 3.5, 4, 5, -6};
  std::vector<std::byte> bytes(values.size() * 4 + 1);
  for (const size_t misalign : {0, 1}) {
    std::memcpy(bytes.data() + misalign, values.data(), values.size() * 4);
    const at::Tensor rows = StoredRows(bytes.data() + misalign, Dtype::kF32, 2, 3);
    CHECK(at::equal(rows, at::tensor(values).view({2, 3})));
    CHECK((rows.const_data_ptr() == bytes.data() + misalign) == (misalign == 0));
  }
  for (const auto& [dtype, type] : {std::pair(Dtype::kBF16, at::kBFloat16), {Dtype::kF16, at::kHalf}}) {
    const at::Tensor narrow = at::tensor(values).to(type);
    const at::Tensor rows = StoredRows(static_cast<const std::byte*>(narrow.const_data_ptr()), dtype, 3, 2);
    CHECK(rows.scalar_type() == type);
    CHECK(TorchType(dtype) == type);
    CHECK(at::equal(rows, narrow.view({3, 2})));
  }
}

TEST_CASE("a loaded tensor owns its memory, in the dtype that is asked for") {
  at::Tensor stored = at::tensor(std::vector<float>{1, 2, 3, 4}).to(at::kBFloat16);
  TensorInfo info;
  info.name = "norm", info.dtype = Dtype::kBF16, info.shape = {2, 2, 1}, info.bytes = 8;
  const TensorView view{&info, static_cast<const std::byte*>(stored.const_data_ptr())};
  const at::Tensor same = LoadTensor(view, at::kBFloat16), wide = LoadTensor(view, at::kFloat);
  stored.zero_();
  CHECK(at::equal(wide, at::tensor(std::vector<float>{1, 2, 3, 4}).view({2, 2, 1})));
  CHECK(at::equal(same, wide.to(at::kBFloat16)));
}

TEST_CASE("the folded sum takes each tensor in its own dtype and layout") {
  const at::Tensor grad = at::tensor(std::vector<float>{1, -2, 3, 4}).view({2, 2});
  const at::Tensor w = at::tensor(std::vector<float>{1, 1, 1, 1}).view({2, 2});
  const at::Tensor wq = at::tensor(std::vector<float>{0.5, 2, 1, -1}).view({2, 2});
  const double expected = 0.5 + 2 + 0 + 8;
  CHECK(SumAbsGradTimesError(grad, w, wq) == expected);
  CHECK(SumAbsGradTimesError(grad.to(at::kBFloat16), w.to(at::kHalf), wq) == expected);
  CHECK(SumAbsGradTimesError(grad.t().contiguous().t(), w, wq) == expected);
}

TEST_CASE("a NaN or infinite weight is named with its count and place") {
  for (const Dtype dtype : {Dtype::kBF16, Dtype::kF16, Dtype::kF32}) {
    const at::ScalarType type = dtype == Dtype::kBF16 ? at::kBFloat16 : dtype == Dtype::kF16 ? at::kHalf : at::kFloat;
    at::Tensor t = at::ones({1000, 900}).to(type);  // by several threads
    TensorInfo info;
    info.name = "model.norm.weight", info.dtype = dtype, info.shape = {1000, 900};
    const TensorView view{&info, static_cast<const std::byte*>(t.data_ptr())};
    CHECK(CheckFinite(view).ok());
    t.view({-1})[432109] = NAN;
    t.view({-1})[899999] = -INFINITY;
    const absl::Status status = CheckFinite(view);
    CHECK(status.code() == absl::StatusCode::kDataLoss);
    CHECK_THAT(std::string(status.message()), Catch::Contains("\"model.norm.weight\"") && Catch::Contains("2 NaN") &&
                                                  Catch::Contains("at element 432109;"));
  }
}

TEST_CASE("the folded sum keeps its digits over many elements") {
  const int64_t n = (1 << 20) + 13;
  const at::Tensor g = at::full({n}, 1e-3f), w = at::full({n}, 1.0f), q = at::full({n}, 0.5f);
  CHECK(SumAbsGradTimesError(g, w, q) == Approx(n * static_cast<double>(1e-3f) * 0.5).epsilon(1e-7));
  CHECK(SumAbsGradTimesError(-g, q, w) == Approx(n * static_cast<double>(1e-3f) * 0.5).epsilon(1e-7));
}

TEST_CASE("the folded sum is added to where the gradient lies, by LibTorch's operators or by a device's loop") {
  const at::Tensor grad = at::tensor(std::vector<float>{1, -2, 3, 4}).view({2, 2});
  const at::Tensor w = at::ones({2, 2}), wq = at::tensor(std::vector<float>{0.5, 2, 1, -1}).view({2, 2});
  const auto added = [&](const at::Tensor& of) {
    const at::Tensor sum = at::full({}, 100, at::kDouble);
    AddAbsGradTimesError(sum, of, w.to(at::kBFloat16), wq);
    return sum.item<double>();
  };
  CHECK(added(grad) == 110.5);
  {
    const GenericDevice device;
    CHECK(added(grad) == 110.5);
    CHECK(SumAbsGradTimesError(grad, w, wq) == 10.5);
  }
  DeviceApi api = {};
  api.add_abs_products = [](void*, const void*, Number grad_type, const void*, Number w_type, const void*,
                            Number wq_type, int64_t count, double* sum) {
    if (grad_type != Number::kF32 || w_type != Number::kBF16 || wq_type != Number::kF32) return DeviceResult::kFailed;
    *sum += static_cast<double>(count);
    return DeviceResult::kOk;
  };
  const GenericDevice device(api);
  CHECK(added(grad) == 104);
  CHECK(added(grad.t()) == 104);
}

}  // namespace
}  // namespace autoscheme
