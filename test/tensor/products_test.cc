#include "tensor/products.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <catch2/catch.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "support/generic_device.h"
#include "support/tensor_memory.h"

namespace autoscheme {
namespace {

// Small whole numbers, so that every sum of products is exact in float32 in any order.
at::Tensor Whole(int64_t rows, int64_t cols, int64_t seed) {
  at::Tensor t = at::arange(rows * cols, at::kLong).mul_(7919).add_(seed).remainder_(13).sub_(6).view({rows, cols});
  return t.to(at::kBFloat16);
}

TEST_CASE("bfloat16 is left to LibTorch only where neither processor nor settings keep it from multiplying it") {
  struct Given {
    bool processor;
    const char *capability, *onednn;
    bool multiplies;
  };
  for (const Given& given : {Given{true, "AVX512", "", true},
                             {true, "AVX512", "ALL", true},
                             {true, "AVX512", "default", true},
                             {true, "AVX512", "AVX512_CORE_BF16", true},
                             {true, "AVX512", "avx512_core_amx", true},
                             {true, "AVX512", "AVX10_1_512", true},
                             {true, "AVX512", "no such set", true},
                             {true, "AVX512", "SSE41", false},
                             {true, "AVX512", "AVX", false},
                             {true, "AVX512", "AVX2", false},
                             {true, "AVX512", "avx2", false},
                             {true, "AVX512", "Avx2_Vnni", false},
                             {true, "AVX512", "AVX2_VNNI_2", false},
                             {true, "AVX512", "AVX512_CORE", false},
                             {true, "AVX512", "avx512_core_vnni", false},
                             {true, "AVX2", "", false},
                             {true, "DEFAULT", "ALL", false},
                             {true, "NO AVX", "", false},
                             {false, "AVX512", "", false},
                             {false, "AVX512", "ALL", false}}) {
    INFO(given.processor << " " << given.capability << " '" << given.onednn << "'");
    CHECK(MultipliesBfloat16(given.processor, given.capability, given.onednn) == given.multiplies);
  }
}

TEST_CASE("widened products are the sums of all terms, rounded once, whatever the layout and wherever a piece ends") {
  struct Shape {
    int64_t m, k, n;
  };
  for (const Shape& s : {Shape{1, 1, 1}, {3, 70, 5}, {1024, 2048, 8}, {1030, 33, 1029}, {9, 4100, 7}}) {
    INFO(s.m << " x " << s.k << " x " << s.n);
    const at::Tensor a = Whole(s.m, s.k, 3), b = Whole(s.k, s.n, 5), before = Whole(s.m, s.n, 1);
    const at::Tensor product = at::mm(a.to(at::kFloat), b.to(at::kFloat));
    for (const bool transposed : {false, true}) {
      // The same numbers, as columns of wider matrices where they lie in rows.
      const auto laid = [&](const at::Tensor& t) {
        if (transposed) return t.t().contiguous().t();
        return at::cat({t, t}, 1).narrow(1, t.size(1), t.size(1));
      };
      at::Tensor out = laid(at::full_like(before, 99)), sum = laid(before.clone());
      MultiplyWidened(out, laid(a), laid(b), /*add=*/false);
      MultiplyWidened(sum, laid(a), laid(b), /*add=*/true);
      CHECK(at::equal(out, product.to(at::kBFloat16)));
      CHECK(at::equal(sum, (product + before.to(at::kFloat)).to(at::kBFloat16)));
    }
  }
}

TEST_CASE(
    "bfloat16 products are near exact ones on every machine, and widened ones where nothing else multiplies them") {
  at::manual_seed(1);
  const at::Tensor a = at::randn({40, 300}).to(at::kBFloat16), w = at::randn({24, 300}).to(at::kBFloat16);
  const at::Tensor before = at::randn({40, 24}).to(at::kBFloat16);
  const at::Tensor exact = at::mm(a.to(at::kDouble), w.to(at::kDouble).t());
  at::Tensor out = at::empty({40, 24}, at::kBFloat16), sum = before.clone(), widened = at::empty_like(out);
  Multiply(out, a, w.t());
  AddMultiplied(sum, a, w.t());
  // A rounding to bfloat16 is off by at most 1/256 of the number; what float32 sums add is far less.
  CHECK(((out.to(at::kDouble) - exact).abs() <= exact.abs() / 256 + 1e-3).all().item<bool>());
  const at::Tensor exact_sum = exact + before.to(at::kDouble);
  CHECK(((sum.to(at::kDouble) - exact_sum).abs() <= exact_sum.abs() / 256 + 1e-3).all().item<bool>());
  MultiplyWidened(widened, a, w.t(), /*add=*/false);
  CHECK(((widened.to(at::kDouble) - exact).abs() <= exact.abs() / 256 + 1e-3).all().item<bool>());
  if (!MultipliesBfloat16()) CHECK(at::equal(out, widened));
}

TEST_CASE("a widened product holds the pieces it says, however large its operands") {
  at::set_num_threads(1);
  for (const int64_t size : {int64_t{200}, int64_t{3000}}) {
    const at::Tensor a = at::ones({size, size}, at::kBFloat16), b = at::ones({size, 64}, at::kBFloat16);
    at::Tensor out = at::empty({size, 64}, at::kBFloat16);
    TensorMemory memory;
    MultiplyWidened(out, a, b, /*add=*/false);
    CHECK(memory.peak_bytes() == static_cast<int64_t>(WidenedBytes(size, size, 64)));
  }
  CHECK(WidenedBytes(1 << 20, 1 << 20, 1 << 20) == 20 << 20);
}

// Multiplies in double, and notes what it was given.
struct Call {
  DeviceMatrix out, a, b;
  ProductType type;
};
std::vector<Call> calls;

double At(const DeviceMatrix& m, int64_t row, int64_t column) {
  const int64_t at = row * m.row_stride + column * m.column_stride;
  return m.type == Number::kF32 ? static_cast<double>(static_cast<const float*>(m.data)[at])
                                : static_cast<double>(static_cast<const at::BFloat16*>(m.data)[at]);
}

DeviceResult MultiplyPlainly(void*, const DeviceMatrix* out, const DeviceMatrix* a, const DeviceMatrix* b,
                             ProductType type, int32_t add) {
  calls.push_back({*out, *a, *b, type});
  for (int64_t i = 0; i < out->rows; ++i) {
    for (int64_t j = 0; j < out->columns; ++j) {
      double sum = add != 0 ? At(*out, i, j) : 0;
      for (int64_t k = 0; k < a->columns; ++k) sum += At(*a, i, k) * At(*b, k, j);
      const int64_t at = i * out->row_stride + j * out->column_stride;
      if (out->type == Number::kF32) static_cast<float*>(out->data)[at] = static_cast<float>(sum);
      if (out->type == Number::kBF16) static_cast<at::BFloat16*>(out->data)[at] = static_cast<float>(sum);
    }
  }
  return DeviceResult::kOk;
}

TEST_CASE("a device's product is given matrices as they lie, or dense copies of what lies otherwise") {
  DeviceApi api = {};
  api.multiply = MultiplyPlainly;
  const GenericDevice device(api);
  using Lay = at::Tensor (*)(const at::Tensor&);
  const Lay lays[] = {
      [](const at::Tensor& t) { return t.contiguous(); }, [](const at::Tensor& t) { return t.t().contiguous().t(); },
      [](const at::Tensor& t) {
        return at::cat({t, t}, 1).narrow(1, t.size(1), t.size(1));
      },
      [](const at::Tensor& t) {
        return at::stack({t, t}, 2).select(2, 1);
      },  // neither rows nor columns are dense
  };
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    for (const auto& [m, k, n] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{{3, 5, 4}, {1, 5, 4}, {3, 1, 1}}) {
      const at::Tensor a = Whole(m, k, 3).to(type), b = Whole(k, n, 5).to(type), before = Whole(m, n, 1).to(type);
      const at::Tensor product = at::mm(a.to(at::kFloat), b.to(at::kFloat));
      for (const Lay& lay : lays) {
        calls.clear();
        at::Tensor out = lay(at::full_like(before, 99)), sum = lay(before.clone());
        Multiply(out, lay(a), lay(b), ProductType::kTf32);
        AddMultiplied(sum, lay(a), lay(b));
        CHECK(at::equal(out, product.to(type)));
        CHECK(at::equal(sum, (product + before.to(at::kFloat)).to(type)));
        REQUIRE(calls.size() == 2);
        CHECK(calls[0].type == ProductType::kTf32);
        CHECK(calls[1].type == ProductType::kExact);
        for (const DeviceMatrix& matrix : {calls[0].out, calls[0].a, calls[0].b}) {
          const bool rows = matrix.column_stride == 1 && matrix.row_stride >= matrix.columns;
          const bool columns = matrix.row_stride == 1 && matrix.column_stride >= matrix.rows;
          CHECK((rows || columns));
        }
      }
      at::Tensor wide = at::empty({m, n});
      Multiply(wide, a, b);
      CHECK(at::equal(wide, product));
    }
  }
}

}  // namespace
}  // namespace autoscheme
