#include "base/nearest.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "base/io.h"

namespace autoscheme {
namespace {

// Characters to add, leave out or replace (Levenshtein's distance), by one row of the table after another.
size_t Difference(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const bool same = absl::ascii_tolower(static_cast<unsigned char>(a[i])) ==
                        absl::ascii_tolower(static_cast<unsigned char>(b[j]));
      const size_t replaced = diagonal + (same ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string Nearest(absl::string_view name, std::vector<std::string> known, size_t most) {
  name = name.substr(0, 100);  // the time grows with its length
  std::vector<std::pair<size_t, size_t>> order;
  for (size_t i = 0; i < known.size(); ++i) order.emplace_back(Difference(name, known[i]), i);
  std::sort(order.begin(), order.end());
  order.resize(std::min(order.size(), most));
  return absl::StrJoin(order, ", ", [&](std::string* out, const std::pair<size_t, size_t>& entry) {
    out->append(Quoted(known[entry.second]));
  });
}

}  // namespace autoscheme
