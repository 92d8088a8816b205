// Tables on stdout.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "library.h"

namespace cli {

std::string HumanBytes(uint64_t bytes);                // "381.5 MiB"
std::string HumanSeconds(double seconds);              // "4.2 s", "12 min 3 s"
std::string HumanCount(int64_t count);                 // "134.5 M"
std::string Count(int64_t n, absl::string_view noun);  // "1 tensor", "2 tensors"

// Columns as wide as their widest cell.
class Table {
 public:
  // `sides`: for each column whether it is set to the left (l) or to the right (r); the last one also for those beyond.
  explicit Table(std::string sides = "lr") : sides_(std::move(sides)) {}
  // Cells are made Printable.
  void Add(const std::vector<std::string>& row);
  std::string ToString() const;

 private:
  const std::string sides_;
  std::vector<std::vector<std::string>> rows_;
};

// For each recipe: bits, predicted loss, and how many layers and weights get which scheme. `scores` are those that the
// recipes were selected from.
absl::Status PrintRecipes(const autoscheme_recipes* recipes, const autoscheme_scores* scores);
// What a run has read, held and taken. `max_ram_bytes` 0: no limit was given.
void PrintStats(const autoscheme_stats& stats, uint64_t max_ram_bytes);

}  // namespace cli
