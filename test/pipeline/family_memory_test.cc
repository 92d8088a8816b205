// The memory plan of every family, made from its config alone, against what runs allocate: the configs of the golden
// models, eight times as wide, and weights of random numbers.
#include <ATen/Parallel.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "autoscheme/scheme.h"
#include "checkpoint/checkpoint.h"
#include "planner/cost_model.h"
#include "support/family_configs.h"
#include "support/scored_run.h"
#include "support/temp_dir.h"
#include "support/tensor_memory.h"
#include "support/tiny_model.h"
#include "tensor/products.h"

namespace autoscheme {
namespace {

// The folder that the skeleton of a config alone describes: numbers of about 1/16, norms of about 1.
void WriteModel(const MetaSkeleton& alone, const TempDir& dir) {
  dir.Write("config.json", alone.checkpoint().config_text());
  std::vector<RawTensor> tensors;
  uint32_t state = 1;
  for (const TensorInfo& info : alone.checkpoint().tensors()) {
    REQUIRE(info.dtype == Dtype::kBF16);
    RawTensor tensor{info.name, "BF16", info.shape, ""};
    const uint16_t base = info.shape.size() == 1 && info.name.find("bias") == std::string::npos ? 0x3F80 : 0x3D00;
    for (int64_t i = 0; i < info.numel(); ++i) {
      state = state * 1664525 + 1013904223;
      const uint16_t number = base | (state >> 24 & 0x7F) | (base == 0x3D00 ? state >> 16 & 0x8000 : 0);
      tensor.bytes += static_cast<char>(number & 0xFF), tensor.bytes += static_cast<char>(number >> 8);
    }
    tensors.push_back(std::move(tensor));
  }
  WriteTinyWeights(tensors, 1, dir.path());
}

uint64_t TensorBytes(const std::vector<PlanItem>& items) {
  uint64_t bytes = 0;
  for (const PlanItem& item : items) {
    for (const char* name : {"activations", "temporaries of activation quantizers", "dequantized weights", "row chunks",
                             "gradient of a row chunk", "weight gradients of a batch", "saved activations",
                             "operands of the backward pass", "scratch of attention and row chunks",
                             "norms, positions and rotary tables", "operands widened to float32",
                             "dequantized head tile", "gradient of a head tile", "logits of a tile", "hidden states"}) {
      bytes += item.name == name ? item.bytes : 0;
    }
  }
  return bytes;
}

struct Choice {
  const char* name;
  int sublayers_per_unit, saved_units;
  int64_t micro_batch_rows;
  bool tiled;
};
constexpr Choice kChoices[] = {
    {"blocks", 0, 0, 0, false}, {"kept", 0, 1, 0, false}, {"slices", 0, 0, 2, false}, {"tiles", 1, 0, 0, true}};

void Compare(const std::string& family, const MetaSkeleton& alone, const MetaSkeleton& stored, const char* scheme,
             const char* precision) {
  Calibration calibration;
  calibration.nsamples = 8, calibration.seqlen = 64;
  for (int32_t i = 0; i < 8 * 64; ++i) calibration.ids.push_back(i * 37 % static_cast<int32_t>(stored.vocab_size()));
  for (const Choice& variant : kChoices) {
    ScoredRun run(stored, scheme, LayersOf(stored, /*with_head=*/false));
    run.run.precision = ParsePrecision(precision, {false, MultipliesBfloat16()}).value();
    ExecutionPlan choice;
    choice.sublayers_per_unit = variant.sublayers_per_unit, choice.saved_units = variant.saved_units;
    choice.micro_batch_rows = variant.micro_batch_rows, choice.tiled = variant.tiled;
    choice.head_tile_rows = 64, choice.cache_weights = !variant.tiled, choice.chunk_bytes = 64 << 10;
    PlanInput input;
    input.precision = run.run.precision;
    input.skeleton = &alone, input.calibration = &calibration, input.needs = &run.scorers.all().needs();
    const CostModel costs(input);
    const uint64_t planned = TensorBytes(costs.Footprint(choice));
    TensorMemory memory;
    const auto swept = run.Sweep(calibration, choice);
    INFO(family << " " << scheme << " " << precision << " " << variant.name << ": " << swept.status());
    REQUIRE(swept.ok());
    const double ratio = static_cast<double>(planned) / static_cast<double>(memory.peak_bytes());
    std::printf("%-20s %-6s %-9s %-7s %12llu %12lld %6.3f\n", family.c_str(), scheme, precision, variant.name,
                static_cast<unsigned long long>(planned), static_cast<long long>(memory.peak_bytes()), ratio);
    CHECK(run.run.stats.read_bytes == costs.ReadBytes(choice));
    CHECK(ratio >= 1.0);
    CHECK(ratio <= (input.precision.operands == Dtype::kF32 ? 1.3 : 1.4));
  }
}

TEST_CASE("tensors at the peak are what the plan of config.json alone says, for every family") {
  at::set_num_threads(1);
  int compared = 0;
  for (const std::string& family : GoldenFamilies()) {
    INFO(family);
    const auto alone = MetaSkeleton::FromConfig({}, WideConfig(family));
    if (absl::IsUnimplemented(alone.status())) continue;  // variants that are refused by name
    REQUIRE(alone.ok());
    const TempDir dir;
    WriteModel(**alone, dir);
    const auto stored = MetaSkeleton::Open({}, dir.path()).value();
    for (const char* scheme : {"W4A16", "MXFP4"}) Compare(family, **alone, *stored, scheme, "float32");
    Compare(family, **alone, *stored, "W4A16", "bfloat16");
    ++compared;
  }
  CHECK(compared >= 49);
}

}  // namespace
}  // namespace autoscheme
