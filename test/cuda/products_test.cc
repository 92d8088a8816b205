// Multiply: how matrices of every layout are put to cuBLAS, which knows matrices by columns only.
#include <catch2/catch.hpp>
#include <vector>

#include "cuda/fake_run_time.h"
#include "device/device.h"

extern "C" const autoscheme::DeviceApi* autoscheme_device_api();

namespace autoscheme {
namespace {

using cuda::Fake;

struct Matrix {
  int64_t rows, columns, row_stride, column_stride;
  std::vector<float> data;

  // By rows or by columns, with `gap` numbers between one and the next.
  Matrix(int64_t rows, int64_t columns, bool by_rows, int64_t gap)
      : rows(rows),
        columns(columns),
        row_stride(by_rows ? columns + gap : 1),
        column_stride(by_rows ? 1 : rows + gap),
        data(static_cast<size_t>((by_rows ? rows : columns) * ((by_rows ? columns : rows) + gap))) {
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i * 7 % 11) - 5;
  }
  float& at(int64_t i, int64_t j) { return data[static_cast<size_t>(i * row_stride + j * column_stride)]; }
  DeviceMatrix On() { return {data.data(), rows, columns, row_stride, column_stride, Number::kF32}; }
};

std::unique_ptr<Device> OpenOne() {
  Fake() = {};
  auto device = Device::Open(*autoscheme_device_api(), 0);
  REQUIRE(device.ok());
  return *std::move(device);
}

DeviceResult Multiply(const Device& device, const DeviceMatrix& out, const DeviceMatrix& a, const DeviceMatrix& b,
                      ProductType type = ProductType::kExact, int32_t add = 0) {
  return device.api().multiply(device.handle(), &out, &a, &b, type, add);
}

TEST_CASE("products of matrices that lie by rows and by columns, with gaps and without, are exact") {
  const auto device = OpenOne();
  int compared = 0;
  for (int layout = 0; layout < 64; ++layout) {
    for (const auto& [m, k, n] :
         {std::array<int64_t, 3>{3, 4, 5}, {1, 4, 5}, {3, 1, 5}, {3, 4, 1}, {1, 1, 1}, {2, 0, 2}}) {
      const int64_t gap = layout & 8 ? 3 : 0;
      Matrix out(m, n, layout & 1, gap), a(m, k, layout & 2, gap), b(k, n, layout & 4, layout & 16 ? 2 : 0);
      const int32_t add = layout & 32 ? 1 : 0;
      const Matrix before = out;
      CAPTURE(layout, m, k, n, device->api().last_error());
      REQUIRE(Multiply(*device, out.On(), a.On(), b.On(), ProductType::kExact, add) == DeviceResult::kOk);
      Matrix wanted = before;
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          float sum = add ? wanted.at(i, j) : 0;
          for (int64_t l = 0; l < k; ++l) sum += a.at(i, l) * b.at(l, j);
          wanted.at(i, j) = sum;
        }
      }
      CHECK(out.data == wanted.data);  // what lies between the rows too
      ++compared;
    }
  }
  CHECK(compared == 384);
}

TEST_CASE("a single row or column may have any stride") {
  const auto device = OpenOne();
  Matrix out(1, 1, true, 0), a(1, 4, true, 0), b(4, 1, true, 0);
  DeviceMatrix row = a.On();
  row.row_stride = 1;
  REQUIRE(Multiply(*device, out.On(), row, b.On()) == DeviceResult::kOk);
  float sum = 0;
  for (int64_t l = 0; l < 4; ++l) sum += a.at(0, l) * b.at(l, 0);
  CHECK(out.at(0, 0) == sum);
}

TEST_CASE("TF32 is asked for by the product that wants it, and for float32 factors alone") {
  const auto device = OpenOne();
  Matrix out(2, 2, true, 0), a(2, 2, true, 0), b(2, 2, true, 0);
  REQUIRE(Multiply(*device, out.On(), a.On(), b.On()) == DeviceResult::kOk);
  CHECK(Fake().compute == CUBLAS_COMPUTE_32F);
  REQUIRE(Multiply(*device, out.On(), a.On(), b.On(), ProductType::kTf32) == DeviceResult::kOk);
  CHECK(Fake().compute == CUBLAS_COMPUTE_32F_FAST_TF32);
  DeviceMatrix x = a.On(), y = b.On();
  x.type = y.type = Number::kBF16;
  REQUIRE(Multiply(*device, out.On(), x, y, ProductType::kTf32) == DeviceResult::kOk);
  CHECK(Fake().compute == CUBLAS_COMPUTE_32F);
}

TEST_CASE("shapes, strides and types that make no product are refused") {
  const auto device = OpenOne();
  Matrix out(2, 2, true, 0), a(2, 3, true, 0), b(3, 2, true, 0);
  CHECK(Multiply(*device, out.On(), b.On(), b.On()) == DeviceResult::kFailed);
  CHECK(std::string(device->api().last_error()) == "multiply: 2x2 = 3x2 times 3x2 are no shapes of a product");
  DeviceMatrix strange = a.On();
  strange.column_stride = 2;
  CHECK(Multiply(*device, out.On(), strange, b.On()) == DeviceResult::kFailed);
  DeviceMatrix overlapping = out.On();
  overlapping.row_stride = 0;
  CHECK(Multiply(*device, overlapping, a.On(), b.On()) == DeviceResult::kFailed);
  DeviceMatrix half = b.On();
  half.type = Number::kF16;
  CHECK(Multiply(*device, out.On(), a.On(), half) == DeviceResult::kFailed);
}

}  // namespace
}  // namespace autoscheme
