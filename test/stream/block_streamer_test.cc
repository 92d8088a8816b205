#include "autoscheme/block_streamer.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "stream/stream_model.h"

namespace autoscheme {
namespace {

using Step = BlockStreamer::Step;

std::unique_ptr<BlockStreamer> MakeStreamer(const Context& context, const Checkpoint& checkpoint,
                                            std::vector<Step> order, BlockStreamer::Options options = {}) {
  auto streamer = BlockStreamer::Create(context, checkpoint, std::move(order), options);
  INFO(streamer.status());
  REQUIRE(streamer.ok());
  return *std::move(streamer);
}

// Gives a reader thread time to do what it should not do.
void Settle() { std::this_thread::sleep_for(std::chrono::milliseconds(30)); }

TEST_CASE("a forward and a reverse sweep deliver every block's bytes, each read exactly twice") {
  const StreamModel model = StreamModel::Blocks(5);
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = model.Open(context);
  const std::vector<Step> blocks = BlockSteps(*checkpoint);
  REQUIRE(blocks.size() == 5);
  uint64_t all_bytes = 0;
  for (const Step& block : blocks) all_bytes += BytesOf(block);

  for (int slots : {1, 2, 3, 10}) {
    CAPTURE(slots);
    io.Clear();
    BlockStreamer::Options options;
    options.slots = slots;
    const auto streamer = MakeStreamer(context, *checkpoint, ForwardAndBack(blocks), options);
    CHECK(streamer->planned_bytes() == 2 * all_bytes);
    int steps = 0;
    CHECK(absl::IsOutOfRange(Drain(*streamer, &steps)));
    CHECK(steps == 10);
    CHECK(streamer->stats().bytes_read == 2 * all_bytes);
    CHECK(streamer->stats().read_s > 0);

    // Neither the embedding nor the norms that lie between were read.
    uint64_t read = 0;
    for (const auto& access : io.read_log()) read += access.size;
    CHECK(read == 2 * all_bytes);
    CHECK(absl::IsOutOfRange(streamer->Next().status()));
  }
}

TEST_CASE("the bytes are those of a direct read of the checkpoint") {
  const StreamModel model = StreamModel::Blocks(3);
  const auto checkpoint = model.Open();
  const auto streamer = MakeStreamer({}, *checkpoint, ForwardAndBack(BlockSteps(*checkpoint)));
  for (int step = 0; step < 6; ++step) {
    const auto view = streamer->Next();
    REQUIRE(view.ok());
    CHECK(view->step == step);
    for (const TensorView& tensor : view->tensors) {
      std::vector<std::byte> direct(tensor.info->bytes);
      REQUIRE(checkpoint->Read(*tensor.info, 0, absl::MakeSpan(direct)).ok());
      CHECK(std::equal(direct.begin(), direct.end(), tensor.data));
    }
    const std::string name = absl::StrCat("blocks.", step < 3 ? step : 5 - step, ".b");
    REQUIRE(view->Find(name) != nullptr);
    CHECK(view->Find(name)->info->name == name);
    CHECK(view->Find("embedding") == nullptr);
  }
}

TEST_CASE("memory is slots times the largest step, and no more slots than steps") {
  const StreamModel model = StreamModel::Blocks(6, 300);
  const auto checkpoint = model.Open();
  const std::vector<Step> blocks = BlockSteps(*checkpoint);
  const uint64_t largest = *BlockStreamer::SlotBytes(blocks[5]);
  CHECK(largest >= BytesOf(blocks[5]));
  CHECK(largest < BytesOf(blocks[5]) + 3 * 2 * 4096);  // the pages that its pieces begin and end on
  for (const int slots : {1, 2, 4, 1000}) {
    CAPTURE(slots);
    BlockStreamer::Options options;
    options.slots = slots;
    const auto streamer = MakeStreamer({}, *checkpoint, blocks, options);
    const uint64_t expected = static_cast<uint64_t>(std::min(slots, 6)) * largest;
    CHECK(streamer->stats().slot_bytes == expected);
    CHECK(absl::IsOutOfRange(Drain(*streamer)));
    CHECK(streamer->stats().slot_bytes == expected);
  }
}

TEST_CASE("reading runs as far ahead as there are slots, and no further") {
  const StreamModel model = StreamModel::Blocks(6);
  const auto checkpoint = model.Open();
  const std::vector<Step> blocks = BlockSteps(*checkpoint);
  const auto bytes_of_first = [&](int n) {
    uint64_t bytes = 0;
    for (int b = 0; b < n; ++b) bytes += BytesOf(blocks[b]);
    return bytes;
  };
  for (int slots : {1, 2, 3}) {
    BlockStreamer::Options options;
    options.slots = slots;
    const auto streamer = MakeStreamer({}, *checkpoint, blocks, options);
    for (int step = -1; step < 6; ++step) {
      CAPTURE(slots, step);
      if (step >= 0) REQUIRE(streamer->Next().ok());
      // Before the first step is asked for, all slots are free; one slot alone is filled on demand.
      const uint64_t ahead = bytes_of_first(step < 0 ? (slots == 1 ? 0 : slots) : std::min(6, step + slots));
      for (int tries = 0; tries < 2000 && streamer->stats().bytes_read < ahead; ++tries) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      Settle();
      CHECK(streamer->stats().bytes_read == ahead);
    }
  }
}

TEST_CASE("a stream that is stopped keeps its last view and its figures, and delivers no more") {
  const StreamModel model = StreamModel::Blocks(4);
  const auto checkpoint = model.Open();
  const std::vector<Step> blocks = BlockSteps(*checkpoint);
  for (const int slots : {1, 2, 3}) {
    for (const int steps : {0, 1, 2, 4}) {
      CAPTURE(slots, steps);
      BlockStreamer::Options options;
      options.slots = slots;
      const auto streamer = MakeStreamer({}, *checkpoint, blocks, options);
      BlockView view;
      for (int step = 0; step < steps; ++step) view = streamer->Next().value();
      streamer->Stop();
      const uint64_t read = streamer->stats().bytes_read;
      uint64_t delivered = 0;
      for (int step = 0; step < steps; ++step) delivered += BytesOf(blocks[step]);
      CHECK(read >= delivered);
      Settle();
      CHECK(streamer->stats().bytes_read == read);
      for (size_t i = 0; i < view.tensors.size(); ++i) CHECK(HasExpectedBytes(view.tensors[i], view.ranges[i]));
      CHECK(absl::IsCancelled(streamer->Next().status()));
      streamer->Stop();
      CHECK(streamer->stats().bytes_read == read);
    }
  }
}

TEST_CASE("a view stays intact while later steps are read") {
  const StreamModel model = StreamModel::Blocks(4);
  const auto checkpoint = model.Open();
  const auto streamer = MakeStreamer({}, *checkpoint, ForwardAndBack(BlockSteps(*checkpoint)));
  for (int step = 0; step < 8; ++step) {
    const auto view = streamer->Next();
    REQUIRE(view.ok());
    Settle();
    for (size_t i = 0; i < view->tensors.size(); ++i) CHECK(HasExpectedBytes(view->tensors[i], view->ranges[i]));
  }
}

TEST_CASE("tensors that lie side by side are one read") {
  const StreamModel model({{{"a", {64}}, {"b", {64}}, {"gap", {5}}, {"c", {64}}}});
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = model.Open(context);
  const TensorInfo &a = *checkpoint->Find("a"), &b = *checkpoint->Find("b"), &c = *checkpoint->Find("c");
  io.Clear();
  const auto streamer = MakeStreamer(context, *checkpoint, {{&c, &b, &a}});
  CHECK(absl::IsOutOfRange(Drain(*streamer)));
  CHECK(io.read_log() == std::vector<WatchedIo::Access>{{a.offset, 128}, {c.offset, 64}});
}

TEST_CASE("tensors larger than one read arrive whole, in reads cut at pages") {
  const StreamModel model({{{"odd", {3}}, {"large", {9, 1 << 20}}, {"after", {5}}}});
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = model.Open(context);
  io.Clear();
  const auto streamer = MakeStreamer(context, *checkpoint, {{checkpoint->Find("large")}});
  CHECK(absl::IsOutOfRange(Drain(*streamer)));
  const auto reads = io.read_log();
  REQUIRE(reads.size() == 3);
  for (size_t i = 1; i < reads.size(); ++i) CHECK(reads[i].offset % 4096 == 0);
}

TEST_CASE("row tiles of a tensor can be streamed instead of whole tensors") {
  const StreamModel model({{{"first", {10}}, {"w", {100, 7}, Dtype::kBF16}, {"bias", {9}}}});
  const auto checkpoint = model.Open();
  const TensorInfo &w = *checkpoint->Find("w"), &bias = *checkpoint->Find("bias");
  std::vector<BlockStreamer::RangeStep> order;
  for (int64_t row = 0; row < 100; row += 30) {
    order.push_back({{&w, row, std::min<int64_t>(30, 100 - row)}, WholeTensor(bias)});
  }
  auto streamer = BlockStreamer::CreateFromRanges({}, *checkpoint, order, {});
  REQUIRE(streamer.ok());
  CHECK((*streamer)->planned_bytes() == 100 * 7 * 2 + 4 * 9);
  CHECK((*streamer)->stats().slot_bytes == 2 * *BlockStreamer::SlotBytes(order[0]));
  int64_t row = 0;
  for (int step = 0; step < 4; ++step) {
    const auto view = (*streamer)->Next();
    REQUIRE(view.ok());
    REQUIRE(view->ranges.size() == 2);
    CHECK(view->ranges[0].first_row == row);
    CHECK(HasExpectedBytes(view->tensors[0], view->ranges[0]));
    CHECK(HasExpectedBytes(view->tensors[1], view->ranges[1]));
    row += view->ranges[0].rows;
  }
  CHECK(row == 100);
  CHECK(absl::IsOutOfRange((*streamer)->Next().status()));
  CHECK((*streamer)->stats().bytes_read == (*streamer)->planned_bytes());
}

TEST_CASE("a tensor that a step names twice is read once and seen twice") {
  const StreamModel model({{{"tied", {40}}, {"other", {8}}}});
  const auto checkpoint = model.Open();
  const TensorInfo *tied = checkpoint->Find("tied"), *other = checkpoint->Find("other");
  const auto streamer = MakeStreamer({}, *checkpoint, {{tied, other, tied}});
  CHECK(streamer->planned_bytes() == 48);
  const auto view = streamer->Next();
  REQUIRE(view.ok());
  REQUIRE(view->tensors.size() == 3);
  for (size_t i = 0; i < 3; ++i) CHECK(HasExpectedBytes(view->tensors[i], view->ranges[i]));
}

TEST_CASE("empty tensors, empty steps and an empty order are fine") {
  const StreamModel model({{{"zero", {0, 8}}, {"w", {4}}}});
  const auto checkpoint = model.Open();
  const TensorInfo *zero = checkpoint->Find("zero"), *w = checkpoint->Find("w");
  const auto streamer = MakeStreamer({}, *checkpoint, {{zero}, {}, {w, zero}});
  CHECK(streamer->planned_bytes() == 4);
  auto view = streamer->Next();
  REQUIRE(view.ok());
  REQUIRE(view->tensors.size() == 1);
  CHECK(view->tensors[0].data != nullptr);
  view = streamer->Next();
  REQUIRE(view.ok());
  CHECK(view->tensors.empty());
  view = streamer->Next();
  REQUIRE(view.ok());
  CHECK(HasExpectedBytes(view->tensors[0], view->ranges[0]));
  CHECK(absl::IsOutOfRange(streamer->Next().status()));

  const auto nothing = MakeStreamer({}, *checkpoint, {});
  CHECK(nothing->planned_bytes() == 0);
  CHECK(absl::IsOutOfRange(nothing->Next().status()));
}

TEST_CASE("what was read is dropped from the page cache, unless the host has room for it") {
  const StreamModel model = StreamModel::Blocks(3);
  WatchedIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = model.Open(context);
  BlockStreamer::Options options;
  options.slots = 1;  // in order, so that reads and drops pair up
  io.Clear();
  CHECK(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, BlockSteps(*checkpoint), options))));
  const auto reads = io.read_log(), drops = io.drop_log();
  REQUIRE(reads.size() == drops.size());
  for (size_t i = 0; i < reads.size(); ++i) {
    CHECK(drops[i].offset <= reads[i].offset);
    CHECK(drops[i].offset + drops[i].size >= reads[i].offset + reads[i].size);
  }
  options.drop_page_cache = false;
  io.Clear();
  CHECK(absl::IsOutOfRange(Drain(*MakeStreamer(context, *checkpoint, BlockSteps(*checkpoint), options))));
  CHECK(io.drop_log().empty());
}

TEST_CASE("steps that are not of this checkpoint are refused with step and tensor") {
  const StreamModel model = StreamModel::Blocks(2);
  const auto checkpoint = model.Open();
  const std::vector<Step> blocks = BlockSteps(*checkpoint);
  TensorInfo foreign = *blocks[0][0];
  foreign.name = "foreign";
  for (int what = 0; what < 3; ++what) {
    TensorInfo bad = foreign;
    if (what == 0) bad.shard = 2;
    if (what == 1) bad.shard = -1;
    if (what == 2) bad.offset += 1 << 20;
    const absl::Status status = BlockStreamer::Create({}, *checkpoint, {blocks[0], {&bad}}, {}).status();
    CHECK(absl::IsInvalidArgument(status));
    CHECK(absl::StrContains(status.message(), "step 1"));
    CHECK(absl::StrContains(status.message(), "\"foreign\""));
  }
  CHECK(absl::IsInvalidArgument(BlockStreamer::Create({}, *checkpoint, {{nullptr}}, {}).status()));
  BlockStreamer::Options none;
  none.slots = 0;
  CHECK(absl::IsInvalidArgument(BlockStreamer::Create({}, *checkpoint, blocks, none).status()));
}

}  // namespace
}  // namespace autoscheme
