#include "exec/weight_stream.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "exec/loaded.h"
#include "support/stand_in_device.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {
namespace {

// Whole tensors, then rows 16 to 40 of one.
std::vector<WeightStream::Step> TwoSteps(const MetaSkeleton& skeleton) {
  const Block& block = skeleton.blocks()[0];
  WeightStream::Step whole;
  for (const TensorInfo* info : block.tensors) whole.ranges.push_back(WholeTensor(*info));
  return {whole, {{{block.linears[4].weight, 16, 24}}, false}};
}

void CheckArrival(RunResources& run, const MetaSkeleton& skeleton) {
  const auto stream = WeightStream::Create(run, skeleton.checkpoint(), TwoSteps(skeleton), {}).value();
  const Block& block = skeleton.blocks()[0];
  const WeightStream::Arrived whole = stream->Next().value();
  REQUIRE(whole.tensors.size() == block.tensors.size());
  for (size_t i = 0; i < block.tensors.size(); ++i) {
    CHECK(whole.tensors[i].info == block.tensors[i]);
    const std::vector<std::byte> expected = BytesOf(skeleton, *block.tensors[i]);
    CHECK(std::memcmp(whole.tensors[i].data, expected.data(), expected.size()) == 0);
  }
  const WeightStream::Arrived rows = stream->Next().value();
  CHECK(rows.tensors[0].info->shape == std::vector<int64_t>{24, 32});
  CHECK(rows.ranges[0].first_row == 16);
  const std::vector<std::byte> expected = BytesOf(skeleton, *block.linears[4].weight);
  CHECK(std::memcmp(rows.tensors[0].data, expected.data() + 16 * 32 * 2, 24 * 32 * 2) == 0);
  CHECK(stream->Next().status().code() == absl::StatusCode::kOutOfRange);
}

TEST_CASE("steps come as they were asked for, in host memory and on a device") {
  const TinySkeleton tiny;
  const Context context;
  RunResources on_processor(context);
  CheckArrival(on_processor, *tiny);

  StandIn stand_in;
  {
    const std::shared_ptr<const Device> device = Device::Open(stand_in.api(), 0).value();
    Lanes lanes({device.get()});
    RunResources run(context);
    run.device.device = device, run.lanes = &lanes;
    CheckArrival(run, *tiny);
    CHECK(stand_in.calls(StandInCall::kCopyUp) > 0);
  }
  CHECK(stand_in.Leaks() == "");
  CHECK(stand_in.Misuse() == "");
}

TEST_CASE("a tensor that is not finite is named where its step is looked through, and nowhere else") {
  TinyModel model;
  model.dtype = "F32";
  std::vector<RawTensor> tensors = MakeTinyTensors(model);
  for (RawTensor& tensor : tensors) {
    if (tensor.name != "model.layers.0.mlp.gate_proj.weight") continue;
    const float infinite = INFINITY;
    std::memcpy(tensor.bytes.data() + 21 * 32 * 4, &infinite, 4);
  }
  const TinySkeleton tiny(model, tensors);
  StandIn stand_in;
  for (const bool on_device : {false, true}) {
    const Context context;
    RunResources run(context);
    const std::shared_ptr<const Device> device = Device::Open(stand_in.api(), 0).value();
    if (on_device) run.device.device = device;
    for (const bool checks : {false, true}) {
      Lanes lanes({device.get()});
      run.lanes = &lanes;
      std::vector<WeightStream::Step> steps = TwoSteps(*tiny);
      steps[1].check_finite = checks;
      const auto stream = WeightStream::Create(run, tiny->checkpoint(), steps, {}).value();
      CHECK(stream->Next().ok());
      const absl::Status second = stream->Next().status();
      CHECK(second.ok() == !checks);
      if (!checks) continue;
      CHECK(second.code() == absl::StatusCode::kDataLoss);
      CHECK_THAT(std::string(second.message()), Catch::Contains("gate_proj.weight\" holds 1 NaN or infinite"));
    }
  }
}

}  // namespace
}  // namespace autoscheme
