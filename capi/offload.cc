// The offload manager over a host's C callbacks.
#include "autoscheme/offload_manager.h"
#include "autoscheme/quoted.h"
#include "options.h"
#include "skeleton.h"

using autoscheme::OffloadManager;
using autoscheme::OffloadMode;
using autoscheme::Quoted;
using autoscheme::capi::CheckProcess;
using autoscheme::capi::Clear;
using autoscheme::capi::GetOption;
using autoscheme::capi::Guard;
using autoscheme::capi::GuardValue;
using autoscheme::capi::Outcome;
using autoscheme::capi::UserData;

struct autoscheme_offload {
  explicit autoscheme_offload(UserData data) : user_data(std::move(data)) {}
  UserData user_data;  // outlives the manager, whose destructor still restores
  autoscheme_offload_callbacks callbacks{};
  int32_t callback_value = 0;  // what the first callback to fail in this call returned
  std::shared_ptr<autoscheme::capi::ContextState> context_state;
  std::shared_ptr<autoscheme::capi::SkeletonState> skeleton;  // null in offload mode without one
  std::unique_ptr<OffloadManager> manager;
};

namespace {

// Runs one callback of the host; `what` is "save", "release" or "restore". ABORTED, which nothing else here is, says
// that the callback returned a value.
template <typename Call>
absl::Status RunCallback(autoscheme_offload* offload, const char* what, const std::string& name, Call&& call) {
  int32_t value = 0;
  try {
    value = call();
  } catch (...) {
    return absl::InternalError(absl::StrCat("the ", what, " callback threw an exception for tensor ", Quoted(name)));
  }
  if (value == 0) return absl::OkStatus();
  if (offload->callback_value == 0) offload->callback_value = value;
  return absl::AbortedError(absl::StrCat("the ", what, " callback failed for tensor ", Quoted(name)));
}

autoscheme::HostTensorCallbacks HostCallbacks(autoscheme_offload* offload) {
  autoscheme::HostTensorCallbacks host;
  host.save = [offload](const std::string& name, absl::Span<std::byte> out) {
    return RunCallback(offload, "save", name, [&] {
      return offload->callbacks.save(offload->user_data.get(), name.c_str(), out.data(), out.size());
    });
  };
  host.release = [offload](const std::string& name) {
    return RunCallback(offload, "release", name,
                       [&] { return offload->callbacks.release(offload->user_data.get(), name.c_str()); });
  };
  host.restore = [offload](const std::string& name, absl::Span<const std::byte> bytes) {
    return RunCallback(offload, "restore", name, [&] {
      return offload->callbacks.restore(offload->user_data.get(), name.c_str(), bytes.data(), bytes.size());
    });
  };
  return host;
}

absl::StatusOr<std::vector<std::string>> Names(const char* const* names, int64_t count) {
  if (count < 0 || (names == nullptr) != (count == 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("names is ", names == nullptr ? "NULL" : "not NULL", " with count ", count));
  }
  std::vector<std::string> copied;
  for (int64_t i = 0; i < count; ++i) {
    if (names[i] == nullptr) return absl::InvalidArgumentError(absl::StrCat("name ", i, " is NULL"));
    copied.emplace_back(names[i]);
  }
  return copied;
}

// Release or Reload of the named tensors, with the host's own code if a callback is why it failed.
Outcome Move(autoscheme_offload* offload, const char* const* names, int64_t count,
             absl::Status (OffloadManager::*move)(absl::Span<const std::string>)) {
  CAPI_REQUIRE(offload);
  CAPI_RETURN_IF_ERROR(CheckProcess(*offload->context_state));
  const auto copied = Names(names, count);
  if (!copied.ok()) return copied.status();
  offload->callback_value = 0;
  absl::Status status = ((*offload->manager).*move)(*copied);
  const int32_t value = absl::IsAborted(status) ? offload->callback_value : 0;
  return Outcome(std::move(status), value);
}

}  // namespace

extern "C" {

autoscheme_status autoscheme_offload_create(autoscheme_context* context, const autoscheme_skeleton* skeleton,
                                            const autoscheme_options* options,
                                            const autoscheme_offload_callbacks* callbacks, void* user_data,
                                            void (*user_data_free)(void*), autoscheme_offload** out,
                                            autoscheme_error** error) {
  Clear(out);
  UserData owned(user_data, user_data_free);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(callbacks);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(CheckProcess(*context->state));
    autoscheme_offload_callbacks read{};
    CAPI_RETURN_IF_ERROR(autoscheme::capi::ReadStruct(callbacks, &read));
    OffloadManager::Options manager_options;
    manager_options.mode = GetOption(options, AUTOSCHEME_OPTION_OFFLOAD_MODE).text == "offload" ? OffloadMode::kOffload
                                                                                                : OffloadMode::kClean;
    manager_options.work_dir = GetOption(options, AUTOSCHEME_OPTION_WORK_DIR).text;
    if (manager_options.mode == OffloadMode::kClean) {
      CAPI_REQUIRE(skeleton);
    } else {
      if (read.save == nullptr) return autoscheme::capi::IsNull("callbacks->save");
    }
    if (read.release == nullptr) return autoscheme::capi::IsNull("callbacks->release");
    if (read.restore == nullptr) return autoscheme::capi::IsNull("callbacks->restore");

    auto offload = std::make_unique<autoscheme_offload>(std::move(owned));
    offload->callbacks = read;
    offload->context_state = context->state;
    if (skeleton != nullptr) offload->skeleton = skeleton->state;
    auto manager = OffloadManager::Create(MakeContext(context->state.get(), /*cancellable=*/false),
                                          skeleton != nullptr ? &skeleton->state->skeleton->checkpoint() : nullptr,
                                          HostCallbacks(offload.get()), manager_options);
    if (!manager.ok()) return manager.status();
    offload->manager = *std::move(manager);
    *out = offload.release();
    return absl::OkStatus();
  });
}

void autoscheme_offload_free(autoscheme_offload* offload) {
  if (offload != nullptr) autoscheme::capi::FreeHandle(offload, *offload->context_state);
}

autoscheme_status autoscheme_offload_manage(autoscheme_offload* offload, const char* name, int32_t dtype,
                                            const int64_t* shape, int64_t rank, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(offload);
    CAPI_REQUIRE(name);
    CAPI_RETURN_IF_ERROR(CheckProcess(*offload->context_state));
    if (dtype < AUTOSCHEME_DTYPE_BOOL || dtype > AUTOSCHEME_DTYPE_U64) {
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", dtype, " of tensor ", Quoted(name), " is not AUTOSCHEME_DTYPE_*"));
    }
    constexpr int64_t kMostRank = 8;
    if (rank < 0 || rank > kMostRank) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank, " of tensor ", Quoted(name), " is not from 0 to 8"));
    }
    if (rank > 0) CAPI_REQUIRE(shape);
    autoscheme::TensorInfo info;
    info.name = name;
    info.dtype = static_cast<autoscheme::Dtype>(dtype - 1);
    info.shape.assign(shape, shape + rank);
    constexpr uint64_t kMostElements = uint64_t{1} << 56;
    uint64_t elements = 1;
    for (const int64_t d : info.shape) {
      if (d < 0 || (d > 0 && elements > kMostElements / static_cast<uint64_t>(d))) {
        return absl::InvalidArgumentError(
            absl::StrCat("dimension ", d, " of tensor ", Quoted(name), " is not possible"));
      }
      elements *= static_cast<uint64_t>(d);
    }
    info.bytes = (elements * static_cast<uint64_t>(autoscheme::DtypeBits(info.dtype)) + 7) / 8;
    return offload->manager->Manage(std::move(info));
  });
}

autoscheme_status autoscheme_offload_release(autoscheme_offload* offload, const char* const* names, int64_t count,
                                             autoscheme_error** error) {
  return Guard(error, [&] { return Move(offload, names, count, &OffloadManager::Release); });
}

autoscheme_status autoscheme_offload_reload(autoscheme_offload* offload, const char* const* names, int64_t count,
                                            autoscheme_error** error) {
  return Guard(error, [&] { return Move(offload, names, count, &OffloadManager::Reload); });
}

autoscheme_status autoscheme_offload_get_info(const autoscheme_offload* offload, autoscheme_offload_info* info,
                                              autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(offload);
    CAPI_REQUIRE(info);
    CAPI_RETURN_IF_ERROR(CheckProcess(*offload->context_state));
    autoscheme_offload_info filled{};
    filled.resident_bytes = offload->manager->resident_bytes();
    filled.released_bytes = offload->manager->released_bytes();
    return autoscheme::capi::FillStruct(filled, info);
  });
}

int32_t autoscheme_offload_is_resident(const autoscheme_offload* offload, const char* name) {
  if (offload == nullptr || name == nullptr) return 0;
  return GuardValue<int32_t>(0, [&] { return int32_t{offload->manager->resident(name)}; });
}

}  // extern "C"
