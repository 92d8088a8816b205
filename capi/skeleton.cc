#include "skeleton.h"

using autoscheme::capi::CheckIndex;
using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::Guard;
using autoscheme::capi::GuardValue;
using autoscheme::capi::SkeletonState;

namespace {

void Number(SkeletonState& state) {
  const autoscheme::MetaSkeleton& skeleton = *state.skeleton;
  int64_t index = 0, tensors = 0;
  for (const autoscheme::Block& block : skeleton.blocks()) {
    state.first_layer.push_back(static_cast<int64_t>(state.layers.size()));
    state.first_tensor.push_back(tensors);
    for (const autoscheme::LinearLayer& layer : block.linears) state.layers.push_back({&layer, index, false});
    tensors += static_cast<int64_t>(block.tensors.size());
    ++index;
  }
  state.layers.push_back({&skeleton.head(), -1, true});
}

const std::vector<std::string>& ModelTypes() {
  static const auto* const types = new std::vector<std::string>(autoscheme::SupportedModelTypes());
  return *types;
}

}  // namespace

extern "C" {

const char* autoscheme_dtype_name(int32_t dtype) {
  return dtype < AUTOSCHEME_DTYPE_BOOL || dtype > AUTOSCHEME_DTYPE_U64
             ? nullptr
             : autoscheme::DtypeName(static_cast<autoscheme::Dtype>(dtype - 1)).data();  // a literal
}

autoscheme_status autoscheme_skeleton_open(autoscheme_context* context, const char* model, autoscheme_skeleton** out,
                                           autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(model);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(autoscheme::capi::CheckProcess(*context->state));
    auto state = std::make_shared<SkeletonState>();
    state->context_state = context->state;
    state->context = MakeContext(context->state.get(), /*cancellable=*/false);
    auto opened = autoscheme::MetaSkeleton::Open(state->context, model);
    if (!opened.ok()) return opened.status();
    state->skeleton = *std::move(opened);
    Number(*state);
    *out = new autoscheme_skeleton{std::move(state)};
    return absl::OkStatus();
  });
}

void autoscheme_skeleton_free(autoscheme_skeleton* skeleton) {
  if (skeleton != nullptr) autoscheme::capi::FreeHandle(skeleton, *skeleton->state->context_state);
}

autoscheme_status autoscheme_skeleton_get_info(const autoscheme_skeleton* skeleton, autoscheme_skeleton_info* info,
                                               autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(info);
    const SkeletonState& state = *skeleton->state;
    autoscheme_skeleton_info filled{};
    filled.model = state.skeleton->model().c_str();
    filled.directory = state.skeleton->directory().c_str();
    filled.model_type = state.skeleton->model_type().c_str();
    filled.fingerprint = state.skeleton->fingerprint().c_str();
    filled.block_count = static_cast<int64_t>(state.first_layer.size());
    filled.layer_count = static_cast<int64_t>(state.layers.size());
    filled.tensor_count = static_cast<int64_t>(state.skeleton->tensors().size());
    filled.hidden_size = state.skeleton->hidden_size();
    filled.vocab_size = state.skeleton->vocab_size();
    filled.max_positions = state.skeleton->max_positions();
    filled.total_params = state.skeleton->total_params();
    filled.total_bytes = state.skeleton->total_bytes();
    filled.tied_head = state.skeleton->tied_head();
    filled.has_weights = state.skeleton->has_weights();
    filled.untouched_count = static_cast<int64_t>(state.skeleton->untouched_tensors().size());
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_skeleton_get_block(const autoscheme_skeleton* skeleton, int64_t block,
                                                autoscheme_block_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(info);
    const SkeletonState& state = *skeleton->state;
    CAPI_RETURN_IF_ERROR(CheckIndex(block, static_cast<int64_t>(state.first_layer.size()), "block"));
    const autoscheme::Block& from = state.skeleton->blocks()[static_cast<size_t>(block)];
    autoscheme_block_info filled{};
    filled.name = from.name.c_str();
    filled.bytes = from.bytes;
    filled.first_layer = state.first_layer[block];
    filled.layer_count = static_cast<int64_t>(from.linears.size());
    filled.first_tensor = state.first_tensor[block];
    filled.tensor_count = static_cast<int64_t>(from.tensors.size());
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_skeleton_get_layer(const autoscheme_skeleton* skeleton, int64_t layer,
                                                autoscheme_layer_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(info);
    const SkeletonState& state = *skeleton->state;
    CAPI_RETURN_IF_ERROR(CheckIndex(layer, static_cast<int64_t>(state.layers.size()), "layer"));
    const SkeletonState::Layer& from = state.layers[layer];
    autoscheme_layer_info filled{};
    filled.name = from.layer->name.c_str();
    filled.out_features = from.layer->out_features;
    filled.in_features = from.layer->in_features;
    filled.block = from.block;
    filled.is_head = from.is_head;
    filled.has_bias = from.layer->bias != nullptr;
    filled.reason = from.layer->reason;
    filled.transposed = from.layer->transposed;
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_skeleton_get_tensor(const autoscheme_skeleton* skeleton, int64_t tensor,
                                                 autoscheme_tensor_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(info);
    const auto tensors = skeleton->state->skeleton->tensors();
    CAPI_RETURN_IF_ERROR(CheckIndex(tensor, static_cast<int64_t>(tensors.size()), "tensor"));
    return autoscheme::capi::FillTensor(tensors[static_cast<size_t>(tensor)], info);
  });
}

int64_t autoscheme_skeleton_file_count(const autoscheme_skeleton* skeleton) {
  return skeleton == nullptr ? 0 : static_cast<int64_t>(skeleton->state->skeleton->files().size());
}

const char* autoscheme_skeleton_file_at(const autoscheme_skeleton* skeleton, int64_t index) {
  if (index < 0 || index >= autoscheme_skeleton_file_count(skeleton)) return nullptr;
  return skeleton->state->skeleton->files()[index].c_str();
}

int64_t autoscheme_skeleton_shard_count(const autoscheme_skeleton* skeleton) {
  return skeleton == nullptr ? 0 : static_cast<int64_t>(skeleton->state->skeleton->shards().size());
}

const char* autoscheme_skeleton_shard_at(const autoscheme_skeleton* skeleton, int64_t index) {
  if (index < 0 || index >= autoscheme_skeleton_shard_count(skeleton)) return nullptr;
  return skeleton->state->skeleton->shards()[index].c_str();
}

autoscheme_status autoscheme_skeleton_json(const autoscheme_skeleton* skeleton, const char** json, size_t* length,
                                           autoscheme_error** error) {
  Clear(json, length);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(skeleton);
    CAPI_REQUIRE(json);
    const SkeletonState& state = *skeleton->state;
    const std::string& text = state.json.Get([&] { return state.skeleton->ToJson(); });
    *json = text.c_str();
    if (length != nullptr) *length = text.size();
    return absl::OkStatus();
  });
}

int64_t autoscheme_model_type_count(void) {
  return GuardValue<int64_t>(0, [] { return static_cast<int64_t>(ModelTypes().size()); });
}

const char* autoscheme_model_type_at(int64_t index) {
  return GuardValue<const char*>(nullptr, [&]() -> const char* {
    const auto& types = ModelTypes();
    return index >= 0 && index < static_cast<int64_t>(types.size()) ? types[index].c_str() : nullptr;
  });
}

}  // extern "C"

namespace autoscheme::capi {

absl::Status FillTensor(const TensorRole& role, autoscheme_tensor_info* out) {
  static_assert(static_cast<int>(Dtype::kBool) + 1 == AUTOSCHEME_DTYPE_BOOL, "the two lists of types run in parallel");
  static_assert(static_cast<int>(Dtype::kBF16) + 1 == AUTOSCHEME_DTYPE_BF16, "the two lists of types run in parallel");
  static_assert(static_cast<int>(Dtype::kU64) + 1 == AUTOSCHEME_DTYPE_U64, "the two lists of types run in parallel");
  const TensorInfo& tensor = *role.tensor;
  autoscheme_tensor_info info{};
  info.name = tensor.name.c_str();
  info.dtype = static_cast<int32_t>(tensor.dtype) + 1;
  info.rank = static_cast<int32_t>(tensor.shape.size());
  info.shape = tensor.shape.empty() ? nullptr : tensor.shape.data();
  info.bytes = tensor.bytes;
  info.offset = tensor.offset;
  info.shard = tensor.shard;
  info.block = role.block;
  info.position = role.position;
  info.layer = role.layer;
  info.reason = role.reason;
  return FillStruct(info, out);
}

}  // namespace autoscheme::capi
