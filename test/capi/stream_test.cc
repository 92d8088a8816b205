// The streamer's tensors and the offload manager's promises, through the C interface.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "capi/capi_test.h"

// DLPack's struct, as a host that has its header would see it.
extern "C" {
struct TestDLTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct DLManagedTensorVersioned {
  uint32_t major, minor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  uint64_t flags;
  TestDLTensor tensor;
};
}

namespace autoscheme {
namespace {

using Catch::Contains;

// How many this process has.
size_t Threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

struct Streaming : TinyCase {
  SkeletonPtr skeleton;
  StreamerPtr streamer;
  std::map<std::string, RawTensor> raw;
  Streaming() {
    REQUIRE(Open(skeleton).ok());
    for (RawTensor& tensor : MakeTinyTensors(model)) raw[tensor.name] = tensor;
  }
  Result Start(const std::vector<int64_t>& order) {
    return Make(streamer, [&](auto** out, auto** e) {
      return autoscheme_streamer_create(context.get(), skeleton.get(), options.get(),
                                        order.empty() ? nullptr : order.data(), static_cast<int64_t>(order.size()), out,
                                        e);
    });
  }
  Result Next(autoscheme_step* step = nullptr) {
    return Call([&](autoscheme_error** e) { return autoscheme_streamer_next(streamer.get(), step, e); });
  }
  DLManagedTensorVersioned* Tensor(int64_t index) {
    DLManagedTensorVersioned* tensor = nullptr;
    REQUIRE(autoscheme_streamer_get_tensor(streamer.get(), index, &tensor, nullptr) == AUTOSCHEME_OK);
    return tensor;
  }
};

TEST_CASE("every tensor of every step has the file's bytes, in any order") {
  Streaming s;
  const std::vector<int64_t> order = {AUTOSCHEME_STEP_EMBEDDING, 0, 1, AUTOSCHEME_STEP_OTHER,
                                      AUTOSCHEME_STEP_HEAD,      1, 0};
  REQUIRE(s.Start(order).ok());
  uint64_t bytes = 0;
  for (size_t at = 0; at < order.size(); ++at) {
    auto step = Struct<autoscheme_step>();
    REQUIRE(s.Next(&step).ok());
    CHECK(step.index == static_cast<int64_t>(at));
    CHECK(step.block == order[at]);
    CHECK(step.tensor_count >= 1);
    uint64_t of_step = 0;
    for (int64_t i = 0; i < step.tensor_count; ++i) {
      auto info = Struct<autoscheme_tensor_info>();
      REQUIRE(autoscheme_streamer_get_tensor_info(s.streamer.get(), i, &info, nullptr) == AUTOSCHEME_OK);
      INFO(info.name);
      CHECK(info.block == std::max<int64_t>(order[at], -1));
      const bool norm = std::string(info.name).find("norm") != std::string::npos;
      CHECK((info.reason != nullptr && std::string(info.reason) == "norm") == norm);
      CHECK((info.layer >= 0) == (!norm && order[at] != AUTOSCHEME_STEP_EMBEDDING));
      const RawTensor& raw = s.raw.at(info.name);
      DLManagedTensorVersioned* managed = s.Tensor(i);
      const TestDLTensor& tensor = managed->tensor;
      CHECK(managed->major == 1);
      CHECK((managed->flags & 1) == 1);
      CHECK(tensor.device_type == 1);
      CHECK(tensor.code == 4);  // bfloat
      CHECK(tensor.bits == 16);
      CHECK(tensor.lanes == 1);
      REQUIRE(tensor.ndim == static_cast<int32_t>(raw.shape.size()));
      CHECK(std::vector<int64_t>(tensor.shape, tensor.shape + tensor.ndim) == raw.shape);
      CHECK(tensor.strides[tensor.ndim - 1] == 1);
      if (tensor.ndim == 2) CHECK(tensor.strides[0] == raw.shape[1]);
      CHECK(std::memcmp(static_cast<char*>(tensor.data) + tensor.byte_offset, raw.bytes.data(), raw.bytes.size()) == 0);
      managed->deleter(managed);
      of_step += info.bytes;
    }
    CHECK(of_step == step.bytes);
    bytes += of_step;
  }
  CHECK(s.Next().code == AUTOSCHEME_OUT_OF_RANGE);
  auto stats = Struct<autoscheme_streamer_stats>();
  REQUIRE(autoscheme_streamer_get_stats(s.streamer.get(), &stats, nullptr) == AUTOSCHEME_OK);
  CHECK(stats.planned_bytes == bytes);
  CHECK(stats.read_bytes == bytes);
  CHECK(std::string(stats.io_engine) == "buffered");  // auto, and a small model
}

TEST_CASE("the next step is refused while a tensor is held, its memory outlives the streamer") {
  Streaming s;
  REQUIRE(s.Start({}).ok());
  autoscheme_tensor_info info = Struct<autoscheme_tensor_info>();
  CHECK(autoscheme_streamer_get_tensor_info(s.streamer.get(), 0, &info, nullptr) == AUTOSCHEME_FAILED_PRECONDITION);
  REQUIRE(s.Next().ok());
  DLManagedTensorVersioned* tensor = s.Tensor(0);
  const Result held = s.Next();
  CHECK(held.code == AUTOSCHEME_FAILED_PRECONDITION);
  CHECK_THAT(held.message, Contains("deleter"));
  tensor->deleter(tensor);
  REQUIRE(s.Next().ok());
  tensor = s.Tensor(0);
  REQUIRE(autoscheme_streamer_get_tensor_info(s.streamer.get(), 0, &info, nullptr) == AUTOSCHEME_OK);
  const RawTensor& raw = s.raw.at(info.name);
  CHECK(info.block == 1);
  s.streamer.reset();
  CHECK(std::memcmp(tensor->tensor.data, raw.bytes.data(), raw.bytes.size()) == 0);
  // The context is free again, though a tensor is still held.
  REQUIRE(s.Start({}).ok());
  tensor->deleter(tensor);
  CHECK(s.Next().ok());
}

TEST_CASE("a streamer that is freed has stopped reading, also while a tensor is held") {
  Streaming s;
  const size_t threads = Threads();
  REQUIRE(s.Start({0, 1, 0, 1, 0, 1}).ok());
  REQUIRE(s.Next().ok());
  DLManagedTensorVersioned* tensor = s.Tensor(0);
  auto info = Struct<autoscheme_tensor_info>();
  REQUIRE(autoscheme_streamer_get_tensor_info(s.streamer.get(), 0, &info, nullptr) == AUTOSCHEME_OK);
  const RawTensor& raw = s.raw.at(info.name);
  CHECK(Threads() == threads + 1);  // its reader, which waits for a free slot
  s.streamer.reset();
  // A thread that is joined leaves the list a moment later.
  for (int i = 0; i < 1000 && Threads() > threads; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(Threads() == threads);
  REQUIRE(s.Start({}).ok());
  CHECK(s.Next().ok());
  CHECK(std::memcmp(tensor->tensor.data, raw.bytes.data(), raw.bytes.size()) == 0);
  tensor->deleter(tensor);
  CHECK(s.Next().ok());
}

TEST_CASE("an order, a budget or an index that makes no sense is refused") {
  Streaming s;
  const Result block = s.Start({0, 7});
  CHECK(block.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK_THAT(block.message, Contains("7") && Contains("blocks are 0 to 1"));
  CHECK(s.Start({-4}).code == AUTOSCHEME_INVALID_ARGUMENT);
  REQUIRE(s.Set(AUTOSCHEME_OPTION_MAX_RAM_BYTES, "1KiB").ok());
  const Result budget = s.Start({});
  CHECK(budget.code == AUTOSCHEME_RESOURCE_EXHAUSTED);
  CHECK_THAT(budget.message, Contains("1024"));
  REQUIRE(s.Set(AUTOSCHEME_OPTION_MAX_RAM_BYTES, "0").ok());
  REQUIRE(s.Start({}).ok());
  REQUIRE(s.Next().ok());
  DLManagedTensorVersioned* tensor = nullptr;
  CHECK(autoscheme_streamer_get_tensor(s.streamer.get(), 1000, &tensor, nullptr) == AUTOSCHEME_OUT_OF_RANGE);
  CHECK(tensor == nullptr);
}

TEST_CASE("cancel ends a streamer, and a new one on the same context works") {
  Streaming s;
  REQUIRE(s.Start({0, 1, 0, 1}).ok());
  REQUIRE(s.Next().ok());
  autoscheme_cancel(s.context.get());
  CHECK(s.Next().code == AUTOSCHEME_CANCELLED);
  CHECK(s.Next().code == AUTOSCHEME_CANCELLED);
  s.streamer.reset();
  REQUIRE(s.Start({}).ok());
  CHECK(s.Next().ok());
}

TEST_CASE("an open streamer keeps other long calls off its context") {
  Streaming s;
  REQUIRE(s.Start({}).ok());
  ScoresPtr scores;
  CHECK(s.ScoreAll(scores).code == AUTOSCHEME_FAILED_PRECONDITION);
  s.streamer.reset();
  CHECK(s.ScoreAll(scores).ok());
}

// A host with tensors of its own.
struct Host {
  std::map<std::string, std::string> tensors;  // empty: released
  std::string refuses, refuses_too;            // "release up_proj": the call that fails
  int freed = 0;

  static int32_t Save(void* self, const char* name, void* out, size_t bytes) {
    auto& host = *static_cast<Host*>(self);
    if (host.tensors[name].size() != bytes) return 5;
    std::memcpy(out, host.tensors[name].data(), bytes);
    return 0;
  }
  static int32_t Release(void* self, const char* name) {
    auto& host = *static_cast<Host*>(self);
    if (host.refuses == std::string("release ") + name) return 41;
    host.tensors[name].clear();
    return 0;
  }
  static int32_t Restore(void* self, const char* name, const void* data, size_t bytes) {
    auto& host = *static_cast<Host*>(self);
    if (host.refuses == std::string("throw ") + name) throw 7;
    if (host.refuses == std::string("restore ") + name || host.refuses_too == std::string("restore ") + name) return 42;
    host.tensors[name].assign(static_cast<const char*>(data), bytes);
    return 0;
  }
  static void Free(void* self) { ++static_cast<Host*>(self)->freed; }
};

const char kQ[] = "model.layers.0.self_attn.q_proj.weight";
const char kO[] = "model.layers.0.self_attn.o_proj.weight";

struct Offloading : Streaming {
  Host host;
  OffloadPtr offload;
  Result Start(const char* mode, bool with_skeleton = true) {
    REQUIRE(Set(AUTOSCHEME_OPTION_OFFLOAD_MODE, mode).ok());
    REQUIRE(Set(AUTOSCHEME_OPTION_WORK_DIR, dir.path().c_str()).ok());
    const autoscheme_offload_callbacks callbacks = {sizeof(callbacks), Host::Save, Host::Release, Host::Restore};
    return Make(offload, [&](auto** out, auto** e) {
      return autoscheme_offload_create(context.get(), with_skeleton ? skeleton.get() : nullptr, options.get(),
                                       &callbacks, &host, Host::Free, out, e);
    });
  }
  Result Manage(const char* name) {
    host.tensors[name] = raw.at(name).bytes;
    return Call([&](autoscheme_error** e) {
      return autoscheme_offload_manage(offload.get(), name, AUTOSCHEME_DTYPE_BF16, raw.at(name).shape.data(),
                                       static_cast<int64_t>(raw.at(name).shape.size()), e);
    });
  }
  Result Release(const std::vector<const char*>& names = {}) {
    return Call([&](autoscheme_error** e) {
      return autoscheme_offload_release(offload.get(), names.empty() ? nullptr : names.data(),
                                        static_cast<int64_t>(names.size()), e);
    });
  }
  Result Reload() {
    return Call([&](autoscheme_error** e) { return autoscheme_offload_reload(offload.get(), nullptr, 0, e); });
  }
};

TEST_CASE("a host's tensors are freed and come back, from the checkpoint or from a spill file") {
  for (const char* mode : {"clean", "offload"}) {
    INFO(mode);
    Offloading o;
    REQUIRE(o.Start(mode, std::string(mode) == "clean").ok());
    REQUIRE(o.Manage(kQ).ok());
    REQUIRE(o.Manage(kO).ok());
    CHECK(o.Manage(kO).code == AUTOSCHEME_ALREADY_EXISTS);
    REQUIRE(o.Release({kQ}).ok());
    CHECK(o.host.tensors[kQ].empty());
    CHECK_FALSE(o.host.tensors[kO].empty());
    CHECK(autoscheme_offload_is_resident(o.offload.get(), kQ) == 0);
    CHECK(autoscheme_offload_is_resident(o.offload.get(), kO) == 1);
    auto info = Struct<autoscheme_offload_info>();
    REQUIRE(autoscheme_offload_get_info(o.offload.get(), &info, nullptr) == AUTOSCHEME_OK);
    CHECK(info.released_bytes == o.raw.at(kQ).bytes.size());
    CHECK(info.resident_bytes == o.raw.at(kO).bytes.size());
    CHECK(o.Release({"unknown"}).code == AUTOSCHEME_NOT_FOUND);
    REQUIRE(o.Release().ok());
    REQUIRE(o.Reload().ok());
    CHECK(o.host.tensors[kQ] == o.raw.at(kQ).bytes);
    CHECK(o.host.tensors[kO] == o.raw.at(kO).bytes);
    // Freeing the manager restores what is still released, and only then lets go of the host.
    REQUIRE(o.Release().ok());
    o.offload.reset();
    CHECK(o.host.tensors[kQ] == o.raw.at(kQ).bytes);
    CHECK(o.host.freed == 1);
  }
}

TEST_CASE("a host's own refusal comes back as CALLBACK_FAILED, and nothing stays half done") {
  Offloading o;
  REQUIRE(o.Start("clean").ok());
  REQUIRE(o.Manage(kQ).ok());
  REQUIRE(o.Manage(kO).ok());
  o.host.refuses = std::string("release ") + kO;
  const Result release = o.Release();
  CHECK(release.code == AUTOSCHEME_CALLBACK_FAILED);
  CHECK(release.callback_value == 41);
  CHECK_THAT(release.message, Contains(kO));
  CHECK(o.host.tensors[kQ] == o.raw.at(kQ).bytes);
  CHECK(o.host.tensors[kO] == o.raw.at(kO).bytes);
  o.host.refuses = std::string("restore ") + kQ;
  REQUIRE(o.Release().ok());
  const Result reload = o.Reload();
  CHECK(reload.code == AUTOSCHEME_CALLBACK_FAILED);
  CHECK(reload.callback_value == 42);
  CHECK(o.host.tensors[kO] == o.raw.at(kO).bytes);
  o.host.refuses.clear();
  REQUIRE(o.Reload().ok());
  CHECK(o.host.tensors[kQ] == o.raw.at(kQ).bytes);
}

TEST_CASE("a restore that fails for its own reason is not taken for the host's refusal of another") {
  Offloading o;
  REQUIRE(o.Start("offload", false).ok());
  REQUIRE(o.Manage(kQ).ok());
  REQUIRE(o.Manage(kO).ok());
  REQUIRE(o.Release().ok());
  o.host.refuses = std::string("throw ") + kQ;
  const Result thrown = o.Reload();
  CHECK(thrown.code == AUTOSCHEME_INTERNAL);
  CHECK(thrown.callback_value == 0);
  REQUIRE(o.Release().ok());
  o.host.refuses_too = std::string("restore ") + kO;
  const Result both = o.Reload();  // kQ throws first, kO returns 42
  CHECK(both.code == AUTOSCHEME_INTERNAL);
  CHECK(both.callback_value == 0);
  o.host.refuses.clear(), o.host.refuses_too.clear();
  REQUIRE(o.Reload().ok());
}

TEST_CASE("an offload manager that cannot be made gives the host's pointer back at once") {
  Offloading o;
  const Result no_skeleton = o.Start("clean", false);
  CHECK(no_skeleton.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(o.host.freed == 1);
  struct {
    autoscheme_offload_callbacks known;
    void (*later)(void);
  } callbacks = {{sizeof(callbacks), Host::Save, Host::Release, Host::Restore}, [] {}};
  Result later = Make(o.offload, [&](auto** out, auto** e) {
    return autoscheme_offload_create(o.context.get(), o.skeleton.get(), nullptr, &callbacks.known, &o.host, Host::Free,
                                     out, e);
  });
  CHECK(later.code == AUTOSCHEME_INVALID_ARGUMENT);
  CHECK(o.host.freed == 2);
  callbacks.later = nullptr;
  later = Make(o.offload, [&](auto** out, auto** e) {
    return autoscheme_offload_create(o.context.get(), o.skeleton.get(), nullptr, &callbacks.known, &o.host, Host::Free,
                                     out, e);
  });
  CHECK(later.ok());
  CHECK(o.host.freed == 2);
  const int64_t shape[] = {INT64_MAX, 4};
  for (const int32_t dtype : {0, 23, -1, int32_t{AUTOSCHEME_DTYPE_F32}}) {
    CHECK(autoscheme_offload_manage(o.offload.get(), "x", dtype, shape, 2, nullptr) == AUTOSCHEME_INVALID_ARGUMENT);
  }
}

}  // namespace
}  // namespace autoscheme
