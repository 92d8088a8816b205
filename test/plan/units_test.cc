#include "plan/units.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

// Two blocks in bfloat16: a norm of 32, q and o of 32 x 32, k and v of 16 x 32; a norm of 32, three matrices of 48
// x 32.
constexpr uint64_t kAttention = 2 * (32 + 2 * 1024 + 2 * 512), kMlp = 2 * (32 + 3 * 1536);

std::vector<std::string> NotRecomputed(const Unit& unit) {
  std::vector<std::string> names;
  for (const Unit::Linear& linear : unit.linears) {
    if (!linear.recomputed) names.push_back(linear.layer->name);
  }
  return names;
}

TEST_CASE("a unit is a block, or as many sublayers as are asked for") {
  const TinySkeleton tiny;
  struct Row {
    int sublayers;
    std::vector<uint64_t> bytes;
    std::vector<size_t> linears;
  };
  for (const Row& row : {Row{0, {kAttention + kMlp, kAttention + kMlp}, {7, 7}},
                         Row{1, {kAttention, kMlp, kAttention, kMlp}, {4, 3, 4, 3}},
                         Row{3, {2 * kAttention + kMlp, kMlp}, {11, 3}}, Row{100, {2 * (kAttention + kMlp)}, {14}}}) {
    INFO(row.sublayers << " sublayers");
    std::vector<uint64_t> bytes;
    std::vector<size_t> linears;
    for (const Unit& unit : MakeUnits(*tiny, row.sublayers)) {
      bytes.push_back(unit.bytes);
      linears.push_back(unit.linears.size());
      uint64_t sum = 0;
      for (const TensorInfo* info : unit.tensors) sum += info->bytes;
      CHECK(sum == unit.bytes);
    }
    CHECK(bytes == row.bytes);
    CHECK(linears == row.linears);
  }
}

TEST_CASE("a unit's last product is only added, and not computed again") {
  const TinySkeleton tiny;
  const std::vector<Unit> sublayers = MakeUnits(*tiny, 1), three = MakeUnits(*tiny, 3);
  CHECK(NotRecomputed(sublayers[0]) == std::vector<std::string>{"model.layers.0.self_attn.o_proj"});
  CHECK(NotRecomputed(sublayers[3]) == std::vector<std::string>{"model.layers.1.mlp.down_proj"});
  // What o_proj and down_proj of block 0 give is taken in by what follows in the unit.
  CHECK(NotRecomputed(three[0]) == std::vector<std::string>{"model.layers.1.self_attn.o_proj"});
  REQUIRE(three[0].parts.size() == 3);
  CHECK(three[0].parts[1].block == 0);
  CHECK(three[0].parts[1].sublayer == 1);
  CHECK(three[0].parts[2].block == 1);
  CHECK(three[0].parts[2].sublayer == 0);
}

}  // namespace
}  // namespace autoscheme
