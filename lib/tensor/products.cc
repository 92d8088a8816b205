#include "tensor/products.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Version.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <string>

#include "device/torch_devices.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

bool ProcessorMultipliesBfloat16() {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

// Read as oneDNN reads its settings: under its present name, else under its former one.
std::string OneDnnSetting(const char* name) {
  for (const char* prefix : {"ONEDNN_", "DNNL_"}) {
    const char* value = std::getenv((std::string(prefix) + name).c_str());
    if (value != nullptr && *value != '\0') return value;
  }
  return "";
}

// In the layout that `panel` has, so that a transposed matrix is read as it lies in memory.
at::Tensor Widened(const at::Tensor& panel) {
  return panel.stride(0) == 1 && panel.stride(1) != 1 ? Converted(panel.t(), at::kFloat).t()
                                                      : Converted(panel, at::kFloat);
}

at::Tensor Dense(const at::Tensor& t) { return NewLike(t).copy_(t); }

bool MustWiden(const at::Tensor& a) { return a.scalar_type() == at::kBFloat16 && OnHost(a) && !MultipliesBfloat16(); }

// As a device reads it: rows or columns that are dense, one behind the other. Nullopt: the tensor lies otherwise.
std::optional<DeviceMatrix> MatrixOf(const at::Tensor& t) {
  const int64_t rows = t.size(0), columns = t.size(1);
  DeviceMatrix matrix{t.data_ptr(), rows, columns, t.stride(0), t.stride(1), NumberOf(t)};
  if ((t.stride(1) == 1 || columns == 1) && (t.stride(0) >= columns || rows == 1)) {
    matrix.column_stride = 1;
    if (rows == 1) matrix.row_stride = columns;
    return matrix;
  }
  if ((t.stride(0) == 1 || rows == 1) && (t.stride(1) >= rows || columns == 1)) {
    matrix.row_stride = 1;
    if (columns == 1) matrix.column_stride = rows;
    return matrix;
  }
  return std::nullopt;
}

// False where LibTorch is to multiply.
bool MultiplyOnDevice(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, ProductType type, bool add) {
  const Device* device = KernelsOf(a);
  if (device == nullptr || device->api().multiply == nullptr || a.numel() == 0 || b.numel() == 0) return false;
  const at::Tensor left = MatrixOf(a).has_value() ? a : Dense(a), right = MatrixOf(b).has_value() ? b : Dense(b);
  const at::Tensor to = MatrixOf(out).has_value() ? out : Dense(out);
  const DeviceMatrix out_matrix = *MatrixOf(to), a_matrix = *MatrixOf(left), b_matrix = *MatrixOf(right);
  RequireOk(
      *device,
      device->api().multiply(device->handle(), &out_matrix, &a_matrix, &b_matrix, type, static_cast<int32_t>(add)),
      "multiplying matrices");
  if (!to.is_same(out)) out.copy_(to);
  return true;
}

// body(first, count), over [0, all) by ranges of at most `most`.
template <typename Body>
void ForEachStretch(int64_t all, int64_t most, const Body& body) {
  for (int64_t first = 0; first < all; first += most) body(first, std::min(most, all - first));
}

}  // namespace

bool MultipliesBfloat16() {
  static const bool does = MultipliesBfloat16(ProcessorMultipliesBfloat16() && at::hasMKLDNN(),
                                              at::get_cpu_capability(), OneDnnSetting("MAX_CPU_ISA"));
  return does && at::globalContext().userEnabledMkldnn();
}

bool MultipliesBfloat16(bool processor_does, const std::string& capability, const std::string& onednn_most) {
  std::string most = onednn_most;
  std::transform(most.begin(), most.end(), most.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const char* lesser : {"sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_mic", "avx512_mic_4ops",
                             "avx512_core", "avx512_core_vnni"}) {
    if (most == lesser) return false;
  }
  return processor_does && capability == "AVX512";
}

void Multiply(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, ProductType type) {
  if (MultiplyOnDevice(out, a, b, type, /*add=*/false)) return;
  if (MustWiden(a)) return MultiplyWidened(out, a, b, /*add=*/false);
  at::mm_out(out, a, b);
}

void AddMultiplied(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, ProductType type) {
  if (MultiplyOnDevice(out, a, b, type, /*add=*/true)) return;
  if (MustWiden(a)) return MultiplyWidened(out, a, b, /*add=*/true);
  out.addmm_(a, b);
}

void MultiplyWidened(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool add) {
  ForEachStretch(b.size(1), kMostSide, [&](int64_t column, int64_t columns) {
    ForEachStretch(a.size(0), kMostSide, [&](int64_t row, int64_t rows) {
      at::Tensor part = out.narrow(0, row, rows).narrow(1, column, columns);
      at::Tensor sum = NewLike(a, {rows, columns}, at::kFloat);
      if (add) sum.copy_(part);
      ForEachStretch(a.size(1), kMostTerms, [&](int64_t term, int64_t terms) {
        const at::Tensor left = Widened(a.narrow(0, row, rows).narrow(1, term, terms));
        const at::Tensor right = Widened(b.narrow(0, term, terms).narrow(1, column, columns));
        if (add || term > 0) {
          sum.addmm_(left, right);
        } else {
          at::mm_out(sum, left, right);
        }
      });
      part.copy_(sum);
    });
  });
}

}  // namespace autoscheme
