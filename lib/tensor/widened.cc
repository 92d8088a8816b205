#include "tensor/widened.h"

#include <algorithm>

namespace autoscheme {

uint64_t WidenedBytes(int64_t m, int64_t k, int64_t n) {
  const uint64_t rows = std::min(m, kMostSide), columns = std::min(n, kMostSide), terms = std::min(k, kMostTerms);
  return (rows * terms + terms * columns + rows * columns) * sizeof(float);
}

}  // namespace autoscheme
