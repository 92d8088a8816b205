#include "score/planner.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "skeleton/architecture.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
// LibTorch's own growth in a first backward pass (operator tables, GEMM packing buffers, thread stacks: 40 MiB, measured on
// SmolLM2 with 2 threads) and the free memory that malloc keeps at the heap's end (32 MiB, as the autoscheme program sets).
constexpr uint64_t kRuntimeBytes = 72 * kMiB;

uint64_t LargestBlockBytes(const MetaSkeleton& skeleton) {
  uint64_t bytes = 0;
  for (const Block& block : skeleton.blocks()) bytes = std::max(bytes, block.bytes);
  return bytes;
}

uint64_t LargestBlockWeights(const MetaSkeleton& skeleton) {
  uint64_t weights = 0;
  for (const Block& block : skeleton.blocks()) {
    uint64_t n = 0;
    for (const LinearLayer& l : block.linears) n += static_cast<uint64_t>(l.out_features) * l.in_features;
    weights = std::max(weights, n);
  }
  return weights;
}

Plan Describe(const PlanInput& in, const PlanChoice& choice) {
  const MetaSkeleton& skeleton = *in.skeleton;
  const uint64_t batch_tokens = static_cast<uint64_t>(std::min(in.shape.batch_size, in.shape.nsamples)) * in.shape.seqlen;
  const uint64_t hidden = skeleton.hidden_size(), element = in.element_bytes;
  const uint64_t all_tokens = static_cast<uint64_t>(in.shape.nsamples) * in.shape.seqlen * in.trajectories;
  const uint64_t boundaries = all_tokens * hidden * element * (skeleton.blocks().size() + 2);  // + the gradient's slot
  const uint64_t head_state = all_tokens * hidden * (4 + element);                             // sums and label rows

  // Alive while blocks run.
  std::vector<PlanItem> blocks = {
      {"block slots", choice.block_slots * LargestBlockBytes(skeleton)},
      {"dequantized weights", choice.cache_weights ? LargestBlockWeights(skeleton) * element : 0},
      {"row chunks", 5 * choice.chunk_bytes},
      {"activations of a batch", batch_tokens * skeleton.architecture().ActivationsPerToken(in.shape.seqlen) * element},
  };
  // Alive while the head runs.
  const uint64_t tile = std::min<uint64_t>(choice.head_tile_rows, skeleton.vocab_size());
  std::vector<PlanItem> head = {
      {"head tile", tile * (skeleton.head().weight->bytes / skeleton.vocab_size()) + 2 * tile * hidden * element},
      {"logits of a tile", 2 * batch_tokens * tile * 4},
      {"hidden states of a batch", 6 * batch_tokens * hidden * 4},
      {"running sums of the head", choice.boundaries_in_ram ? head_state : 0},
  };
  auto sum = [](const std::vector<PlanItem>& items) {
    uint64_t bytes = 0;
    for (const PlanItem& item : items) bytes += item.bytes;
    return bytes;
  };
  Plan plan;
  plan.resident = sum(blocks) >= sum(head) ? blocks : head;
  if (choice.boundaries_in_ram) plan.resident.push_back({"block boundaries", boundaries});
  plan.resident.push_back({"calibration ids and embedding rows", static_cast<uint64_t>(in.shape.nsamples) * in.shape.seqlen * (12 + hidden * element)});
  if (in.floor_bytes > 0) {
    plan.resident.push_back({"process before the run", in.floor_bytes});
    plan.resident.push_back({"LibTorch's buffers and heap slack", kRuntimeBytes});
  }
  plan.peak_bytes = sum(plan.resident);
  plan.boundaries_in_ram = choice.boundaries_in_ram;
  plan.spill_bytes = choice.boundaries_in_ram ? 0 : boundaries + head_state;
  plan.read_bytes = in.read_bytes;
  return plan;
}

// Fastest first.
std::vector<PlanChoice> Ladder() {
  std::vector<PlanChoice> ladder(1);
  auto next = [&] { ladder.push_back(ladder.back()); return &ladder.back(); };
  next()->boundaries_in_ram = false;
  next()->head_tile_rows = 2048;
  next()->chunk_bytes = 4 * kMiB;
  next()->cache_weights = false;
  next()->block_slots = 1;
  PlanChoice* least = next();
  least->head_tile_rows = 512;
  least->chunk_bytes = kMiB;
  return ladder;
}

}  // namespace

absl::StatusOr<PlannedRun> PlanRun(const PlanInput& input) {
  const std::vector<PlanChoice> ladder = Ladder();
  const uint64_t least = Describe(input, ladder.back()).peak_bytes;
  for (const PlanChoice& choice : ladder) {
    PlannedRun run{Describe(input, choice), choice};
    if (input.max_ram_bytes != 0 && run.plan.peak_bytes > input.max_ram_bytes) continue;
    run.plan.least_bytes = least;
    return run;
  }
  return absl::ResourceExhaustedError(absl::StrFormat(
      "a budget of %d bytes (%.0f MiB) is too small for this model, menu and batch; the smallest that works is %d bytes "
      "(%d MiB). A smaller batch_size or seqlen needs less",
      input.max_ram_bytes, static_cast<double>(input.max_ram_bytes) / kMiB, least, (least + kMiB - 1) / kMiB));
}

}  // namespace autoscheme
