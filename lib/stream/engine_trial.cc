#include "stream/engine_trial.h"

#include <algorithm>
#include <chrono>

#include "stream/extent_reader.h"
#include "stream/pages.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;

constexpr IoEngine kEngines[] = {IoEngine::kUring, IoEngine::kDirect, IoEngine::kBuffered};
constexpr int kRounds = 2;
constexpr uint64_t kStretchBytes = 8 << 20;  // 48 MiB in all
constexpr uint64_t kLeastStretchBytes = 1 << 20;
constexpr auto kMostTime = std::chrono::milliseconds(300);
// A direct engine this close to the fastest is preferred: it leaves out a copy, and the processors are for computing.
constexpr double kNearEnough = 0.9;

// Different bytes for every reading, since the page cache would serve the second one.
std::vector<Extent> Stretches(absl::Span<const Extent> extents, uint64_t slot_bytes) {
  std::vector<Extent> stretches;
  const size_t enough = std::size(kEngines) * kRounds;
  const uint64_t most = std::min(kStretchBytes, slot_bytes - std::min(slot_bytes, 2 * kPageBytes));
  for (const Extent& extent : extents) {
    for (uint64_t at = extent.file_offset; extent.direct && at < extent.file_end(); at += most) {
      const uint64_t bytes = std::min(most, extent.file_end() - at);
      if (bytes < kLeastStretchBytes || stretches.size() == enough) break;
      stretches.push_back({extent.shard, at, bytes, at % kPageBytes, true});
    }
  }
  if (stretches.size() < enough) stretches.clear();
  return stretches;
}

}  // namespace

EngineTrial TryEngines(const Context& context, const Checkpoint& checkpoint, absl::Span<const Extent> extents,
                       std::byte* slot, uint64_t slot_bytes) {
  EngineTrial trial;
  const std::vector<Extent> stretches = Stretches(extents, slot_bytes);
  const Clock::time_point start = Clock::now();
  bool finished = !stretches.empty();
  double rates[std::size(kEngines)] = {};
  for (size_t i = 0; i < stretches.size() && finished; ++i) {
    const size_t e = i % std::size(kEngines);
    if (checkpoint.engines().failed(kEngines[e])) continue;
    ExtentReader::Options options;
    options.engine = kEngines[e];
    options.warn = false;  // nobody has asked for this engine
    ExtentReader reader(context, checkpoint, options, [&]() -> absl::Status {
      if (Clock::now() - start > kMostTime) return absl::DeadlineExceededError("the trial takes too long");
      return context.CheckCancelled();
    });
    const Clock::time_point began = Clock::now();
    ExtentReader::Place failed;
    finished = reader.Read({&stretches[i], 1}, slot, &failed).ok();
    const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
    trial.read_bytes += reader.bytes_read();
    if (!finished || reader.engine() != kEngines[e]) continue;
    rates[e] = std::max(rates[e], static_cast<double>(stretches[i].bytes) / seconds);
  }
  const double best = finished ? *std::max_element(std::begin(rates), std::end(rates)) : 0;
  for (size_t e = 0; e < std::size(kEngines) && best > 0; ++e) {
    if (rates[e] < kNearEnough * best) continue;
    trial.engine = kEngines[e];
    break;
  }
  checkpoint.engines().set_fastest(trial.engine);
  return trial;
}

}  // namespace autoscheme
