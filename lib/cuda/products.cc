// Matrix products by cuBLAS.
#include <algorithm>
#include <utility>

#include "cuda/cuda_device.h"

namespace autoscheme::cuda {
namespace {

cudaDataType TypeOf(Number type) {
  return type == Number::kF32 ? CUDA_R_32F : type == Number::kBF16 ? CUDA_R_16BF : CUDA_R_16F;
}

DeviceMatrix Transposed(const DeviceMatrix& m) {
  return {m.data, m.columns, m.rows, m.column_stride, m.row_stride, m.type};
}

// Whether rows lie one behind the other. A single row does whatever its stride says.
bool ByRows(const DeviceMatrix& m) { return m.column_stride == 1 && (m.rows <= 1 || m.row_stride >= m.columns); }
bool ByColumns(const DeviceMatrix& m) { return ByRows(Transposed(m)); }

// cuBLAS asks for a distance of at least a row's length, of a single row too.
int64_t Distance(const DeviceMatrix& m) {
  return ByRows(m) ? std::max<int64_t>({m.row_stride, m.columns, 1}) : std::max<int64_t>({m.column_stride, m.rows, 1});
}

// What cuBLAS is to do with a factor. It takes all matrices to lie by columns, so one that lies by rows is to it the
// transposed one.
cublasOperation_t OperationOn(const DeviceMatrix& m) { return ByRows(m) ? CUBLAS_OP_N : CUBLAS_OP_T; }

}  // namespace

DeviceResult Multiply(void* device, const DeviceMatrix* out, const DeviceMatrix* a, const DeviceMatrix* b,
                      ProductType type, int32_t add) {
  DeviceMatrix c = *out, x = *a, y = *b;
  if (!ByRows(c)) c = Transposed(c), x = Transposed(*b), y = Transposed(*a);
  const bool strides = ByRows(c) && (ByRows(x) || ByColumns(x)) && (ByRows(y) || ByColumns(y));
  const bool shapes = c.rows == x.rows && x.columns == y.rows && y.columns == c.columns;
  const bool types = x.type == y.type && (c.type == x.type || c.type == Number::kF32);
  if (!strides || !shapes || !types) {
    return Failed(DeviceResult::kFailed, "multiply: %lldx%lld = %lldx%lld times %lldx%lld %s", (long long)out->rows,
                  (long long)out->columns, (long long)a->rows, (long long)a->columns, (long long)b->rows,
                  (long long)b->columns,
                  !shapes    ? "are no shapes of a product"
                  : !strides ? "have a matrix that lies neither by rows nor by columns"
                             : "have types that do not go together");
  }
  if (c.rows == 0 || c.columns == 0) return DeviceResult::kOk;
  const cublasComputeType_t compute =
      x.type == Number::kF32 && type == ProductType::kTf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  const float one = 1, before = add != 0 ? 1 : 0;
  // c = x y by rows is, by columns, c^T = y^T x^T.
  return On(device, "cublasGemmEx", [&](const CudaDevice& d) {
    return cublasGemmEx_64(d.products, OperationOn(y), OperationOn(x), c.columns, c.rows, x.columns, &one, y.data,
                           TypeOf(y.type), Distance(y), x.data, TypeOf(x.type), Distance(x), &before, c.data,
                           TypeOf(c.type), Distance(c), compute, CUBLAS_GEMM_DEFAULT);
  });
}

}  // namespace autoscheme::cuda
