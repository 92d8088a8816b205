// The streamer: steps of an order, their tensors as DLPack.
#include "autoscheme/block_streamer.h"
#include "dlpack.h"
#include "options.h"
#include "skeleton.h"

using autoscheme::BlockStreamer;
using autoscheme::BlockView;
using autoscheme::MetaSkeleton;
using autoscheme::TensorInfo;
using autoscheme::capi::CheckIndex;
using autoscheme::capi::CheckProcess;
using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::GetOption;
using autoscheme::capi::Guard;
using autoscheme::capi::LongCall;
using autoscheme::capi::Outcome;

namespace {

// Shared by the handle and by the tensors that were handed out, so that their memory outlives the handle.
struct StreamerState {
  ~StreamerState() {
    // A forked process has neither the threads that the streamer would wait for nor, perhaps, its memory.
    if (context_state != nullptr && autoscheme::capi::IsForked(*context_state)) (void)streamer.release();
  }
  std::shared_ptr<autoscheme::capi::ContextState> context_state;
  std::shared_ptr<autoscheme::capi::SkeletonState> skeleton;
  std::vector<int64_t> order;
  std::unique_ptr<BlockStreamer> streamer;
  BlockView view;
  bool has_view = false;
  std::atomic<int64_t> held{0};  // tensors that were handed out and not given back
};

// The tensors of one entry of an order.
absl::StatusOr<BlockStreamer::Step> MakeStep(const MetaSkeleton& skeleton, int64_t entry, size_t at) {
  const auto blocks = skeleton.blocks();
  if (entry >= 0 && entry < static_cast<int64_t>(blocks.size())) return blocks[static_cast<size_t>(entry)].tensors;
  switch (entry) {
    case AUTOSCHEME_STEP_EMBEDDING: return BlockStreamer::Step{skeleton.embedding()};
    case AUTOSCHEME_STEP_HEAD: {
      BlockStreamer::Step step{skeleton.head().weight};
      if (skeleton.head().bias != nullptr) step.push_back(skeleton.head().bias);
      return step;
    }
    case AUTOSCHEME_STEP_OTHER: {
      const auto others = skeleton.other_tensors();
      return BlockStreamer::Step(others.begin(), others.end());
    }
    default:
      return absl::InvalidArgumentError(absl::StrCat("step ", at, " of the order is block ", entry,
                                                     ", which does not exist: the model's blocks are 0 to ",
                                                     blocks.size() - 1));
  }
}

absl::Status CheckBudget(const std::vector<BlockStreamer::Step>& steps, int64_t slots, int64_t max_ram_bytes) {
  uint64_t largest = 0;
  for (const BlockStreamer::Step& step : steps) {
    const auto bytes = BlockStreamer::SlotBytes(step);
    if (!bytes.ok()) return bytes.status();
    largest = std::max(largest, *bytes);
  }
  const uint64_t needed = largest * static_cast<uint64_t>(slots);
  if (max_ram_bytes <= 0 || needed <= static_cast<uint64_t>(max_ram_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("option max_ram_bytes is ", max_ram_bytes, ", but ", slots, " slots of the largest step hold ",
                   needed, " bytes: set it to at least that, or stream_slots to 1 (", largest, " bytes)"));
}

}  // namespace

struct autoscheme_streamer {
  std::unique_ptr<LongCall> call;  // held while the streamer is open; its reader has stopped when it is let go
  std::shared_ptr<StreamerState> state;
};

extern "C" {

autoscheme_status autoscheme_streamer_create(autoscheme_context* context, const autoscheme_skeleton* skeleton,
                                             const autoscheme_options* options, const int64_t* order, int64_t count,
                                             autoscheme_streamer** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(CheckProcess(*context->state));
    if (count < 0 || (order == nullptr) != (count == 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("order is ", order == nullptr ? "NULL" : "not NULL", " with count ", count));
    }
    auto state = std::make_shared<StreamerState>();
    state->context_state = context->state;
    state->skeleton = skeleton->state;
    const MetaSkeleton& model = *skeleton->state->skeleton;
    if (order != nullptr) {
      state->order.assign(order, order + count);
    } else {
      for (size_t i = 0; i < model.blocks().size(); ++i) state->order.push_back(static_cast<int64_t>(i));
    }
    std::vector<BlockStreamer::Step> steps;
    for (size_t i = 0; i < state->order.size(); ++i) {
      auto step = MakeStep(model, state->order[i], i);
      if (!step.ok()) return step.status();
      steps.push_back(*std::move(step));
    }
    const int64_t slots = GetOption(options, AUTOSCHEME_OPTION_STREAM_SLOTS).i64;
    CAPI_RETURN_IF_ERROR(CheckBudget(steps, slots, GetOption(options, AUTOSCHEME_OPTION_MAX_RAM_BYTES).i64));

    auto call = std::make_unique<LongCall>(context->state);
    CAPI_RETURN_IF_ERROR(call->status());
    BlockStreamer::Options stream;
    stream.slots = static_cast<int>(slots);
    auto io_engine = autoscheme::IoEngineFromName(GetOption(options, AUTOSCHEME_OPTION_IO_ENGINE).text);
    if (!io_engine.ok()) return io_engine.status();
    stream.io_engine = *io_engine;
    auto streamer = BlockStreamer::Create(MakeContext(context->state.get(), /*cancellable=*/true), model.checkpoint(),
                                          std::move(steps), stream);
    if (!streamer.ok()) return streamer.status();
    state->streamer = *std::move(streamer);
    *out = new autoscheme_streamer{std::move(call), std::move(state)};
    return absl::OkStatus();
  });
}

void autoscheme_streamer_free(autoscheme_streamer* streamer) {
  if (streamer == nullptr || autoscheme::capi::IsForked(*streamer->state->context_state)) return;
  streamer->state->streamer->Stop();  // before another streamer may open; tensors that are held keep their memory
  delete streamer;
}

autoscheme_status autoscheme_streamer_next(autoscheme_streamer* streamer, autoscheme_step* step,
                                           autoscheme_error** error) {
  return Guard(error, [&]() -> Outcome {
    CAPI_REQUIRE(streamer);
    StreamerState& state = *streamer->state;
    CAPI_RETURN_IF_ERROR(CheckProcess(*state.context_state));
    if (step != nullptr) CAPI_RETURN_IF_ERROR(autoscheme::capi::CheckStruct(step));
    if (const int64_t held = state.held.load(std::memory_order_acquire); held > 0) {
      return absl::FailedPreconditionError(
          absl::StrCat("tensors of the step before are still held (", held, "): call their deleters first"));
    }
    state.has_view = false;
    auto view = state.streamer->Next();
    if (!view.ok()) return streamer->call->Finish(view.status());
    state.view = *view;
    state.has_view = true;
    if (step == nullptr) return absl::OkStatus();
    autoscheme_step filled{};
    filled.index = view->step;
    filled.block = state.order[view->step];
    filled.tensor_count = static_cast<int64_t>(view->tensors.size());
    for (const autoscheme::TensorView& tensor : view->tensors) filled.bytes += tensor.info->bytes;
    return FillStruct(filled, step);
  });
}

autoscheme_status autoscheme_streamer_get_tensor_info(const autoscheme_streamer* streamer, int64_t index,
                                                      autoscheme_tensor_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(streamer);
    CAPI_REQUIRE(info);
    const StreamerState& state = *streamer->state;
    CAPI_RETURN_IF_ERROR(CheckProcess(*state.context_state));
    if (!state.has_view) return absl::FailedPreconditionError("no step is resident: call autoscheme_streamer_next");
    CAPI_RETURN_IF_ERROR(CheckIndex(index, static_cast<int64_t>(state.view.tensors.size()), "tensor"));
    // Those of a block lie together; the others come last.
    const autoscheme::capi::SkeletonState& skeleton = *state.skeleton;
    const auto roles = skeleton.skeleton->tensors();
    const int64_t block = state.order[state.view.step];
    auto role = roles.begin() + (block >= 0 ? skeleton.first_tensor[block] : skeleton.first_tensor.back());
    while (role->tensor != state.view.tensors[index].info) ++role;
    return autoscheme::capi::FillTensor(*role, info);
  });
}

autoscheme_status autoscheme_streamer_get_tensor(autoscheme_streamer* streamer, int64_t index,
                                                 DLManagedTensorVersioned** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(streamer);
    CAPI_REQUIRE(out);
    StreamerState& state = *streamer->state;
    CAPI_RETURN_IF_ERROR(CheckProcess(*state.context_state));
    if (!state.has_view) return absl::FailedPreconditionError("no step is resident: call autoscheme_streamer_next");
    CAPI_RETURN_IF_ERROR(CheckIndex(index, static_cast<int64_t>(state.view.tensors.size()), "tensor"));
    state.held.fetch_add(1, std::memory_order_relaxed);
    // Its deleter is what counts the tensor as given back, also if making the tensor fails.
    std::shared_ptr<void> owner(
        nullptr, [shared = streamer->state](void*) { shared->held.fetch_sub(1, std::memory_order_release); });
    auto tensor = autoscheme::capi::ToDlpack(state.view.tensors[index], std::move(owner));
    if (!tensor.ok()) return tensor.status();
    *out = *tensor;
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_streamer_get_stats(const autoscheme_streamer* streamer, autoscheme_streamer_stats* stats,
                                                autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(streamer);
    CAPI_REQUIRE(stats);
    CAPI_RETURN_IF_ERROR(CheckProcess(*streamer->state->context_state));
    const autoscheme::StreamStats from = streamer->state->streamer->stats();
    autoscheme_streamer_stats filled{};
    filled.planned_bytes = streamer->state->streamer->planned_bytes();
    filled.read_bytes = from.bytes_read;
    filled.read_s = from.read_s;
    filled.stall_s = from.stall_s;
    filled.io_engine = autoscheme::IoEngineName(from.engine).data();
    return FillStruct(filled, stats);
  });
}

}  // extern "C"
