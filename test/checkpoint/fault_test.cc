// Opening and reading a model with every file operation made to fail, one after the other.
#include <catch2/catch.hpp>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>

#include "autoscheme/calibration.h"
#include "checkpoint/checkpoint.h"
#include "support/fault_io.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

// All bytes of the model that can be read through `io`.
absl::StatusOr<std::string> OpenAndReadAll(Io& io, const std::string& dir) {
  Context context;
  context.io = &io;
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(context, dir);
  if (!checkpoint.ok()) return checkpoint.status();
  std::string all = (*checkpoint)->config_text();
  for (const TensorInfo& tensor : (*checkpoint)->tensors()) {
    std::string bytes(tensor.bytes, ' ');
    const absl::Status status =
        (*checkpoint)->Read(tensor, 0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size()));
    if (!status.ok()) return status;
    all += tensor.name + bytes;
  }
  return all;
}

void Sweep(const std::function<absl::StatusOr<std::string>(Io&)>& run) {
  const std::string expected = *run(Io::Posix());
  const int descriptors = OpenDescriptors();
  int injected = 0;
  for (const int error : {EIO, ENOSPC, EINTR, FaultIo::kShort}) {
    for (const uint32_t op : {kOpen, kClose, kFstat, kStat, kPread, kDropCache}) {
      for (const bool forever : {false, true}) {
        for (int64_t k = 1; k < 10000; ++k) {
          FaultIo io(op, error, k, forever);
          const absl::StatusOr<std::string> result = run(io);
          if (io.fired() == 0) break;
          ++injected;
          CAPTURE(op, error, forever, k, result.status().ToString());
          const bool harmless = op == kClose || op == kDropCache || error == EINTR || error == FaultIo::kShort;
          CHECK(result.ok() == harmless);
          if (result.ok()) {
            REQUIRE(*result == expected);
          } else {
            CHECK_FALSE(result.status().message().empty());
          }
          REQUIRE(OpenDescriptors() == descriptors);
        }
      }
    }
  }
  CHECK(injected > 50);
}

TEST_CASE("A sharded model under file faults gives an error or the same bytes, and leaks nothing") {
  const TempDir dir;
  TinyModel model;
  model.blocks = 1;
  model.hidden = 8;
  model.intermediate = 8;
  model.vocab = 8;
  model.shards = 2;
  WriteTinyModel(model, dir.path());
  Sweep([&](Io& io) { return OpenAndReadAll(io, dir.path()); });
}

TEST_CASE("Calibration data under file faults gives an error or the same ids") {
  const TempDir dir;
  dir.Write("tokens.json", TinyTokens(2, 3, 64));
  dir.Write("tokens.safetensors", SafetensorsBytes({{"input_ids", "I32", {1, 2}, std::string("\1\0\0\0\2\0\0\0", 8)}}));
  Sweep([&](Io& io) -> absl::StatusOr<std::string> {
    Context context;
    context.io = &io;
    std::string ids;
    for (const char* name : {"tokens.json", "tokens.safetensors"}) {
      const absl::StatusOr<Calibration> calibration = ReadCalibration(context, dir / name);
      if (!calibration.ok()) return calibration.status();
      ids += Sha256(*calibration);
    }
    return ids;
  });
}

TEST_CASE("A model of more shards than this process may open says how many files it needs") {
  const TempDir dir;
  TinyModel model;
  model.shards = 20;
  WriteTinyModel(model, dir.path());
  for (const int64_t call : {3, 22}) {  // after the config and the index: the first shard, the last one
    FaultIo io(kOpen, EMFILE, call, false);
    Context context;
    context.io = &io;
    const absl::Status status = Checkpoint::Open(context, dir.path()).status();
    CHECK(io.fired() == 1);
    CHECK(status.code() == absl::StatusCode::kResourceExhausted);
    // Each shard twice, and 32 others.
    CHECK_THAT(std::string(status.message()),
               Catch::Contains("RLIMIT_NOFILE") && Catch::Contains("needs up to 72") && Catch::Contains("ulimit -n"));
  }
}

}  // namespace
}  // namespace autoscheme
