// The shape of a scoring run without its arithmetic: a forward sweep that keeps block inputs, a reverse sweep that
// reads them back, and a host that cancels from another thread. Under ThreadSanitizer this is the race test of
// streaming, since prebuilt LibTorch is not instrumented.
#include <catch2/catch.hpp>
#include <cstring>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "stream/record_store.h"
#include "stream/stream_model.h"

namespace autoscheme {
namespace {

using Step = BlockStreamer::Step;
using Activations = std::vector<uint64_t>;

constexpr int kBlocks = 5;
constexpr int kVariants = 3;  // schemes x batches
constexpr int kValues = 500;

Activations Input(int variant) {
  Activations x(kValues);
  for (int i = 0; i < kValues; ++i) x[i] = variant * 1000 + i;
  return x;
}

// What a block computes: every value meets every tensor.
void Forward(absl::Span<const TensorView> tensors, Activations& x) {
  for (const TensorView& tensor : tensors) {
    for (uint64_t i = 0; i < tensor.info->bytes; ++i) {
      uint64_t& value = x[i % kValues];
      value = (value ^ static_cast<uint64_t>(tensor.data[i])) * 0x100000001B3;
    }
  }
}

uint64_t Score(absl::Span<const TensorView> tensors, const Activations& x, const Activations& gradient) {
  uint64_t score = 0;
  for (const TensorView& tensor : tensors) {
    for (uint64_t i = 0; i < tensor.info->bytes; ++i) {
      score += static_cast<uint64_t>(tensor.data[i]) * (x[i % kValues] ^ gradient[i % kValues]);
    }
  }
  return score;
}

struct Run {
  Context context;
  const Checkpoint* checkpoint = nullptr;
  RecordStore::Options boundaries;
  int slots = 2;
  std::function<void(absl::string_view stage, int block)> at;  // called before every block
};

absl::StatusOr<std::vector<uint64_t>> ScoreBlocks(const Run& run) {
  const std::vector<Step> blocks = BlockSteps(*run.checkpoint);
  BlockStreamer::Options options;
  options.slots = run.slots;
  AUTOSCHEME_ASSIGN_OR_RETURN(const auto store, RecordStore::Create(run.context, run.boundaries));
  AUTOSCHEME_ASSIGN_OR_RETURN(const auto streamer,
                              BlockStreamer::Create(run.context, *run.checkpoint, ForwardAndBack(blocks), options));
  std::vector<Activations> state;
  for (int t = 0; t < kVariants; ++t) state.push_back(Input(t));

  for (int b = 0; b < kBlocks; ++b) {
    if (run.at) run.at("forward", b);
    AUTOSCHEME_ASSIGN_OR_RETURN(const BlockView view, streamer->Next());
    for (int t = 0; t < kVariants; ++t) {
      AUTOSCHEME_RETURN_IF_ERROR(store->Put(
          b * kVariants + t, absl::MakeSpan(reinterpret_cast<const std::byte*>(state[t].data()), kValues * 8)));
      Forward(view.tensors, state[t]);
    }
  }
  if (run.at) run.at("head", 0);
  AUTOSCHEME_RETURN_IF_ERROR(run.context.CheckCancelled());

  std::vector<uint64_t> scores(kBlocks);
  for (int b = kBlocks - 1; b >= 0; --b) {
    if (run.at) run.at("backward", b);
    AUTOSCHEME_ASSIGN_OR_RETURN(const BlockView view, streamer->Next());
    for (int t = 0; t < kVariants; ++t) {
      Activations x(kValues);
      AUTOSCHEME_RETURN_IF_ERROR(
          store->Get(b * kVariants + t, absl::MakeSpan(reinterpret_cast<std::byte*>(x.data()), kValues * 8)));
      scores[b] += Score(view.tensors, x, state[t]);
      Forward(view.tensors, state[t]);  // stands for the gradient on its way back
    }
  }
  if (streamer->stats().bytes_read != streamer->planned_bytes())
    return absl::InternalError("bytes read are not as planned");
  return scores;
}

// The same from whole blocks in memory, without any of the machinery.
std::vector<uint64_t> Reference(const Checkpoint& checkpoint) {
  std::vector<std::vector<std::vector<std::byte>>> bytes;
  std::vector<std::vector<TensorView>> blocks;
  for (const Step& step : BlockSteps(checkpoint)) {
    bytes.emplace_back();
    blocks.emplace_back();
    for (const TensorInfo* info : step) {
      bytes.back().emplace_back(info->bytes);
      REQUIRE(checkpoint.Read(*info, 0, absl::MakeSpan(bytes.back().back())).ok());
    }
    for (size_t i = 0; i < step.size(); ++i) blocks.back().push_back({step[i], bytes.back()[i].data()});
  }
  std::vector<uint64_t> scores(kBlocks);
  for (int t = 0; t < kVariants; ++t) {
    std::vector<Activations> inputs;
    Activations x = Input(t);
    for (int b = 0; b < kBlocks; ++b) {
      inputs.push_back(x);
      Forward(blocks[b], x);
    }
    for (int b = kBlocks - 1; b >= 0; --b) {
      scores[b] += Score(blocks[b], inputs[b], x);
      Forward(blocks[b], x);
    }
  }
  return scores;
}

struct Fixture {
  Fixture() {
    run.context.cancel = &cancel;
    checkpoint = model.Open();
    run.checkpoint = checkpoint.get();
    run.boundaries.count = kBlocks * kVariants;
    run.boundaries.record_bytes = kValues * 8;
    run.boundaries.work_dir = dir.path();
    expected = Reference(*checkpoint);
  }
  const TempDir dir;
  const StreamModel model = StreamModel::Blocks(kBlocks);
  std::unique_ptr<Checkpoint> checkpoint;
  CancelToken cancel;
  Run run;
  std::vector<uint64_t> expected;
};

TEST_CASE("two streamed sweeps give what whole blocks in memory give, at any slots and boundary store") {
  Fixture f;
  for (int slots : {1, 2, 3}) {
    for (bool in_ram : {true, false}) {
      CAPTURE(slots, in_ram);
      f.run.slots = slots;
      f.run.boundaries.in_ram = in_ram;
      const auto scores = ScoreBlocks(f.run);
      REQUIRE(scores.ok());
      CHECK(*scores == f.expected);
    }
  }
}

TEST_CASE("a cancel from another thread at every stage ends the run, which then runs again to the same scores") {
  Fixture f;
  std::vector<std::pair<std::string, int>> places;
  f.run.at = [&](absl::string_view stage, int block) { places.emplace_back(stage, block); };
  REQUIRE(ScoreBlocks(f.run).ok());
  REQUIRE(places.size() == 2 * kBlocks + 1);

  for (bool in_ram : {true, false}) {
    f.run.boundaries.in_ram = in_ram;
    for (const auto& [stage, block] : places) {
      CAPTURE(in_ram, stage, block);
      f.run.at = [&, stage = stage, block = block](absl::string_view at_stage, int at_block) {
        if (at_stage == stage && at_block == block) std::thread([&] { f.cancel.Cancel(); }).join();
      };
      REQUIRE(absl::IsCancelled(ScoreBlocks(f.run).status()));
      f.cancel.Reset();
      f.run.at = nullptr;
      const auto scores = ScoreBlocks(f.run);
      REQUIRE(scores.ok());
      REQUIRE(*scores == f.expected);
    }
  }
}

TEST_CASE("a cancel from another thread at random times ends the run or comes too late, and never harms the next") {
  Fixture f;
  std::mt19937 random(99);
  int cancelled = 0;
  for (int i = 0; i < 200; ++i) {
    f.run.slots = 1 + i % 3;
    f.run.boundaries.in_ram = i % 2 == 0;
    const auto delay = std::chrono::microseconds(random() % 3000);
    std::thread other([&] {
      std::this_thread::sleep_for(delay);
      f.cancel.Cancel();
    });
    const auto scores = ScoreBlocks(f.run);
    other.join();
    f.cancel.Reset();
    if (scores.ok()) {
      REQUIRE(*scores == f.expected);
    } else {
      REQUIRE(absl::IsCancelled(scores.status()));
      ++cancelled;
    }
  }
  CHECK(cancelled > 20);
  f.run.at = nullptr;
  const auto scores = ScoreBlocks(f.run);
  REQUIRE(scores.ok());
  CHECK(*scores == f.expected);
}

TEST_CASE("several runs at once share a checkpoint") {
  Fixture f;
  std::vector<std::thread> threads;
  std::vector<std::vector<uint64_t>> results(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Run run = f.run;
      run.slots = 1 + i % 3;
      run.boundaries.in_ram = i % 2 == 0;
      const auto scores = ScoreBlocks(run);
      if (scores.ok()) results[i] = *scores;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<uint64_t>& result : results) CHECK(result == f.expected);
}

}  // namespace
}  // namespace autoscheme
