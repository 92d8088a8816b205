#include "exec/weight_rows.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <utility>
#include <vector>

namespace autoscheme {
namespace {

// Element (r, c) of the logical matrix is 1000 r + c, whether it is stored as such or transposed.
template <typename Word>
void CheckRows(bool transposed, int64_t rows, int64_t columns, int64_t at_once) {
  std::vector<Word> stored(rows * columns);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      stored[transposed ? c * rows + r : r * columns + c] = static_cast<Word>(1000 * r + c);
    }
  }
  TensorInfo info;
  info.bytes = stored.size() * sizeof(Word);
  LinearLayer layer;
  layer.out_features = rows, layer.in_features = columns, layer.transposed = transposed, layer.weight = &info;
  int64_t next = 0;
  const Context context;
  const RunResources run(context);
  ForEachResidentRow(run, layer, reinterpret_cast<const std::byte*>(stored.data()), at_once,
                     [&](int64_t first, int64_t count, const std::byte* data) {
                       CHECK(first == next);
                       next += count;
                       for (int64_t i = 0; i < count * columns; ++i) {
                         Word value;
                         std::memcpy(&value, data + i * sizeof(Word), sizeof(Word));
                         REQUIRE(value == static_cast<Word>(1000 * (first + i / columns) + i % columns));
                       }
                     });
  CHECK(next == rows);
}

TEST_CASE("rows of a weight come in order, whether it is stored by rows or transposed") {
  for (const bool transposed : {false, true}) {
    CheckRows<uint32_t>(transposed, 150, 70, 64);
    CheckRows<uint16_t>(transposed, 7, 200, 3);
    CheckRows<uint16_t>(transposed, 1, 1, 8);
  }
}

}  // namespace
}  // namespace autoscheme
