// What a ring brings to its devices: every byte, once, into slots that are not overwritten while they are used.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "stream/extents.h"
#include "stream/pieces.h"
#include "stream/upload_rig.h"
#include "support/safetensors_writer.h"

namespace autoscheme {
namespace {

using Step = BlockStreamer::Step;

uint64_t BytesOf(const std::vector<UploadStep>& order) {
  uint64_t bytes = 0;
  for (const UploadStep& step : order) {
    for (const TensorRange& range : step.tensors) bytes += FileBytes(range).end - FileBytes(range).begin;
  }
  return bytes;
}

TEST_CASE("every byte of every step arrives on every device, and is read once for all of them") {
  const StreamModel model = StreamModel::Blocks(4, 150);
  const auto checkpoint = model.Open();
  const std::vector<UploadStep> order = UploadSteps(ForwardAndBack(BlockSteps(*checkpoint)));
  for (const int devices : {1, 2}) {
    for (const int device_slots : {1, 2, 3, 20}) {
      for (const int host_slots : {1, 2, 8}) {
        for (const uint64_t piece_bytes : {4096, 8192, 1 << 20}) {
          CAPTURE(devices, device_slots, host_slots, piece_bytes);
          const UploadRig rig(AsynchronousStandIn(devices));
          UploadRing::Options options;
          options.device_slots = device_slots, options.host_slots = host_slots, options.piece_bytes = piece_bytes;
          const auto ring = MakeRing(rig, *checkpoint, order, options);
          CHECK(ring->planned_bytes() == BytesOf(order));
          int steps = 0;
          CHECK(absl::IsOutOfRange(Drain(*ring, rig, &steps)));
          CHECK(steps == 8);
          CHECK(absl::IsOutOfRange(ring->Next().status()));
          const StreamStats stats = ring->stats();
          CHECK(stats.bytes_read == ring->planned_bytes());
          CHECK(stats.slot_bytes <= host_slots * piece_bytes);
          CHECK(rig.stand_in.unpinned_copies() == 0);
          CHECK(rig.stand_in.most_used_bytes(0) == MostSlotBytes(order) * std::min(device_slots, 8));
          ring->Stop();
          CHECK(rig.stand_in.used_bytes(devices - 1) == 0);
          CHECK(ring->stats().bytes_read == stats.bytes_read);
        }
      }
    }
  }
}

TEST_CASE("both engines upload the same bytes, from files whose tensors start anywhere") {
  const StreamModel model({{{"odd", {3}},
                            {"blocks.0.w", {70, 131}, Dtype::kBF16},
                            {"blocks.0.row", {1, 50001}},
                            {"blocks.0.none", {0, 5}, Dtype::kF32},
                            {"blocks.0.scalar", {}, Dtype::kF32}}});
  const auto checkpoint = model.Open();
  const std::vector<UploadStep> order = UploadSteps(ForwardAndBack(BlockSteps(*checkpoint)));
  for (const IoEngine engine : {IoEngine::kBuffered, IoEngine::kDirect}) {
    const UploadRig rig;
    UploadRing::Options options;
    options.piece_bytes = 8192, options.io_engine = engine;
    const auto ring = MakeRing(rig, *checkpoint, order, options);
    CHECK(absl::IsOutOfRange(Drain(*ring, rig)));
    CHECK(ring->stats().bytes_read == BytesOf(order));
  }
}

TEST_CASE("rows of tensors are uploaded, in the order of the step") {
  const StreamModel model({{{"a", {100, 64}, Dtype::kBF16}, {"b", {50, 300}}}});
  const auto checkpoint = model.Open();
  const TensorInfo &a = *checkpoint->Find("a"), &b = *checkpoint->Find("b");
  const std::vector<UploadStep> order = {{{{&b, 7, 20}, {&a, 90, 10}}}, {{}}, {{{&a, 0, 1}, {&b, 0, 50}, {&a, 1, 60}}}};
  const UploadRig rig(AsynchronousStandIn(2));
  UploadRing::Options options;
  options.piece_bytes = 4096;
  const auto ring = MakeRing(rig, *checkpoint, order, options);
  int steps = 0;
  CHECK(absl::IsOutOfRange(Drain(*ring, rig, &steps)));
  CHECK(steps == 3);
  CHECK(ring->stats().bytes_read == BytesOf(order));
}

TEST_CASE("a ring without steps, or without bytes, ends at once") {
  const StreamModel model({{{"none", {0, 5}}, {"w", {4}}}});
  const auto checkpoint = model.Open();
  const UploadRig rig;
  CHECK(absl::IsOutOfRange(MakeRing(rig, *checkpoint, {})->Next().status()));
  int steps = 0;
  CHECK(absl::IsOutOfRange(
      Drain(*MakeRing(rig, *checkpoint, UploadSteps({{checkpoint->Find("none")}, {}})), rig, &steps)));
  CHECK(steps == 2);
}

TEST_CASE("a device slot is not overwritten while the device computes with it") {
  const StreamModel model = StreamModel::Blocks(4, 40);
  const auto checkpoint = model.Open();
  const std::vector<UploadStep> order = UploadSteps(ForwardAndBack(BlockSteps(*checkpoint)));
  for (const int device_slots : {1, 2}) {
    StandInOptions slow = AsynchronousStandIn(2);
    slow.copy_delay = std::chrono::milliseconds(2);  // Drain computes by copies, too
    const UploadRig rig(slow);
    // Work ahead of the copies down: all steps are asked for while the first ones still wait for it.
    for (const auto& device : rig.opened) {
      StandIn::Give(device->handle(), DeviceStream::kCompute,
                    [] { std::this_thread::sleep_for(std::chrono::milliseconds(30)); });
    }
    UploadRing::Options options;
    options.device_slots = device_slots;
    CHECK(absl::IsOutOfRange(Drain(*MakeRing(rig, *checkpoint, order, options), rig)));
  }
}

TEST_CASE("computation waits until a step is there, and reading until a piece is copied") {
  const StreamModel model = StreamModel::Blocks(3, 100);
  const auto checkpoint = model.Open();
  const std::vector<UploadStep> order = UploadSteps(ForwardAndBack(BlockSteps(*checkpoint)));
  for (const int host_slots : {1, 2, 3}) {
    const UploadRig rig(AsynchronousStandIn(2));
    for (const auto& device : rig.opened) {
      for (int i = 0; i < 3; ++i) {
        StandIn::Give(device->handle(), DeviceStream::kUp,
                      [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
      }
    }
    UploadRing::Options options;
    options.piece_bytes = 4096, options.host_slots = host_slots;
    CHECK(absl::IsOutOfRange(Drain(*MakeRing(rig, *checkpoint, order, options), rig)));
  }
}

TEST_CASE("a step that is done makes room before the next one is asked for") {
  const StreamModel model = StreamModel::Blocks(3, 10);
  const auto checkpoint = model.Open();
  const UploadRig rig;
  UploadRing::Options options;
  options.device_slots = 1;
  const auto ring = MakeRing(rig, *checkpoint, UploadSteps(BlockSteps(*checkpoint)), options);
  CHECK(ring->Done().ok());  // there is none yet
  REQUIRE(ring->Next().ok());
  REQUIRE(ring->Done().ok());
  CHECK(ring->Done().ok());
  while (ring->stats().bytes_read < ring->planned_bytes()) std::this_thread::yield();
  CHECK(absl::IsOutOfRange(Drain(*MakeRing(rig, *checkpoint, UploadSteps(BlockSteps(*checkpoint))), rig)));
}

// A checkpoint of one matrix of 6 x 40 numbers and a vector of 10, all 1 but those at `bad` of the matrix.
std::string NumbersWith(const std::string& dtype, const std::string& one, const std::string& other,
                        const std::vector<int>& bad) {
  RawTensor matrix{"w", dtype, {6, 40}, ""}, vector{"v", dtype, {10}, ""};
  for (int i = 0; i < 240; ++i) matrix.bytes += std::count(bad.begin(), bad.end(), i) > 0 ? other : one;
  for (int i = 0; i < 10; ++i) vector.bytes += one;
  return SafetensorsBytes({vector, matrix});
}

TEST_CASE("NaN and infinite weights are DATA_LOSS where they are looked for, in the words of the processor's path") {
  struct Type {
    const char* name;
    std::string one, nan, infinite;
  };
  const Type types[] = {
      {"BF16", std::string("\x80\x3F", 2), std::string("\xC0\x7F", 2), std::string("\x80\xFF", 2)},
      {"F16", std::string("\x00\x3C", 2), std::string("\x01\x7C", 2), std::string("\x00\xFC", 2)},
      {"F32", std::string("\x00\x00\x80\x3F", 4), std::string("\x01\x00\x80\xFF", 4),
       std::string("\x00\x00\x80\x7F", 4)},
  };
  for (const Type& type : types) {
    for (const std::string& bad : {type.nan, type.infinite}) {
      const TempDir dir;
      dir.Write("config.json", R"({"model_type":"llama"})");
      dir.Write("model.safetensors", NumbersWith(type.name, type.one, bad, {47, 201}));
      const auto checkpoint = Checkpoint::Open({}, dir.path()).value();
      const TensorInfo &w = *checkpoint->Find("w"), &v = *checkpoint->Find("v");
      const UploadRig rig(AsynchronousStandIn(2));
      const TensorRange all = WholeTensor(w), vector = WholeTensor(v);
      const auto ring =
          MakeRing(rig, *checkpoint, {{{all}, false}, {{vector, {&w, 2, 3}}, true}, {{vector, all}, true}});
      CHECK(ring->Next().ok());  // not looked for
      CHECK(ring->Next().ok());  // not in those rows
      const absl::Status status = ring->Next().status();
      CHECK(status ==
            absl::DataLossError("tensor \"w\" holds 2 NaN or infinite values of 240, the first at element 47; "
                                "the checkpoint is damaged or was saved from a diverged run"));
      CHECK(ring->Next().status() == status);
      const auto rows = MakeRing(rig, *checkpoint, {{{{&w, 1, 4}}, true}});
      CHECK(absl::StrContains(rows->Next().status().message(),
                              "1 NaN or infinite values of 240, the first at element 47"));
    }
  }
}

TEST_CASE("values of a type that nothing computes with are not looked through") {
  const StreamModel model({{{"w", {4}, Dtype::kI32}}});
  const auto checkpoint = model.Open();
  const UploadRig rig;
  const auto ring =
      UploadRing::Create({}, *checkpoint, rig.devices(), {{{WholeTensor(*checkpoint->Find("w"))}, true}}, {});
  CHECK(ring.status() ==
        absl::UnimplementedError("tensor \"w\" is I32; weights of BF16, F16 and F32 can be computed with"));
}

TEST_CASE("pieces fit their slot, follow the file, and hold every byte once") {
  const StreamModel model = StreamModel::Blocks(3, 300);
  const auto checkpoint = model.Open();
  for (const Step& step : BlockSteps(*checkpoint)) {
    BlockStreamer::RangeStep ranges;
    for (auto info = step.rbegin(); info != step.rend(); ++info) ranges.push_back(WholeTensor(**info));
    for (const uint64_t piece_bytes : {4096, 3 * 4096, 1 << 20}) {
      ByteTensors tensors;
      const auto pieces = CutIntoPieces(ranges, piece_bytes, tensors);
      std::vector<uint64_t> next(ranges.size(), 0);
      for (size_t p = 0; p < pieces.size(); ++p) {
        BlockStreamer::RangeStep read;
        for (const PiecePart& part : pieces[p]) {
          CHECK(part.offset == next[part.tensor]);
          next[part.tensor] += part.bytes.rows;
          CHECK(FileBytes(part.bytes).begin == FileBytes(ranges[part.tensor]).begin + part.offset);
          read.push_back(part.bytes);
        }
        const uint64_t slot_bytes = BlockStreamer::SlotBytes(read).value();
        CHECK(slot_bytes <= piece_bytes);
        if (p + 1 < pieces.size()) CHECK(slot_bytes == piece_bytes);
      }
      for (size_t i = 0; i < ranges.size(); ++i) CHECK(next[i] == ranges[i].info->bytes);
      if (piece_bytes == 1 << 20) CHECK(pieces.size() == 1);
    }
  }
}

}  // namespace
}  // namespace autoscheme
