#include "stream/stream_model.h"

#include <catch2/catch.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "stream/extents.h"
#include "support/safetensors_writer.h"

namespace autoscheme {
namespace {

uint64_t SpecBytes(const TensorSpec& spec) {
  uint64_t bits = DtypeBits(spec.dtype);
  for (int64_t dim : spec.shape) bits *= dim;
  return bits / 8;
}

uint64_t Seed(const std::string& tensor) {
  uint64_t seed = 1469598103934665603;
  for (unsigned char c : tensor) seed = (seed ^ c) * 1099511628211;
  return seed;
}

std::byte ByteOf(uint64_t seed, uint64_t i) {
  const uint64_t x = (seed ^ (i / 8 + 1)) * 0x9E3779B97F4A7C15;
  return static_cast<std::byte>((x ^ (x >> 29)) >> (8 * (i % 8)));
}

std::string ShardBytes(const std::vector<TensorSpec>& specs) {
  std::vector<RawTensor> tensors;
  for (const TensorSpec& spec : specs) {
    RawTensor tensor{spec.name, std::string(DtypeName(spec.dtype)), spec.shape, std::string(SpecBytes(spec), 0)};
    for (size_t i = 0; i < tensor.bytes.size(); ++i) tensor.bytes[i] = static_cast<char>(ExpectedByte(spec.name, i));
    tensors.push_back(std::move(tensor));
  }
  return SafetensorsBytes(tensors);
}

}  // namespace

std::byte ExpectedByte(const std::string& tensor, uint64_t i) { return ByteOf(Seed(tensor), i); }

bool HasExpectedBytes(const TensorView& view, const TensorRange& range) {
  const ByteRange bytes = FileBytes(range);
  const uint64_t seed = Seed(view.info->name), first = bytes.begin - view.info->offset;
  for (uint64_t i = 0; i < bytes.end - bytes.begin; ++i) {
    if (view.data[i] != ByteOf(seed, first + i)) return false;
  }
  return true;
}

StreamModel::StreamModel(const std::vector<std::vector<TensorSpec>>& shards) : dir_(std::make_unique<TempDir>()) {
  dir_->Write("config.json", R"({"model_type":"llama"})");
  std::string map;
  for (size_t s = 0; s < shards.size(); ++s) {
    shard_names_.push_back(shards.size() == 1 ? "model.safetensors" : absl::StrCat("model-", s, ".safetensors"));
    dir_->Write(shard_names_[s], ShardBytes(shards[s]));
    for (const TensorSpec& spec : shards[s]) {
      absl::StrAppend(&map, map.empty() ? "" : ",", "\"", spec.name, "\":\"", shard_names_[s], "\"");
    }
  }
  if (shards.size() > 1) dir_->Write("model.safetensors.index.json", R"({"weight_map":{)" + map + "}}");
}

StreamModel StreamModel::Blocks(int blocks, int64_t rows) {
  std::vector<std::vector<TensorSpec>> shards(2);
  shards[0].push_back({"embedding", {7, 5}});
  for (int b = 0; b < blocks; ++b) {
    const std::string prefix = absl::StrCat("blocks.", b, ".");
    std::vector<TensorSpec>& shard = shards[b % 2];
    shard.push_back({prefix + "a", {rows + b, 32}, Dtype::kBF16});
    shard.push_back({prefix + "b", {rows, 3}});
    shard.push_back({absl::StrCat("norm.", b), {11}});  // a gap within the block
    shards[(b + 1) % 2].push_back({prefix + "c", {rows, 16}, Dtype::kF32});
  }
  return StreamModel(shards);
}

std::unique_ptr<Checkpoint> StreamModel::Open(const Context& context) const {
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(context, dir_->path());
  INFO(checkpoint.status());
  REQUIRE(checkpoint.ok());
  return *std::move(checkpoint);
}

std::string StreamModel::ShardPath(int shard) const { return absl::StrCat(dir_->path(), "/", shard_names_[shard]); }

std::vector<BlockStreamer::Step> BlockSteps(const Checkpoint& checkpoint) {
  std::vector<BlockStreamer::Step> steps;
  for (int b = 0;; ++b) {
    BlockStreamer::Step step;
    for (const TensorInfo& info : checkpoint.tensors()) {
      if (absl::StartsWith(info.name, absl::StrCat("blocks.", b, "."))) step.push_back(&info);
    }
    if (step.empty()) return steps;
    steps.push_back(std::move(step));
  }
}

std::vector<BlockStreamer::Step> ForwardAndBack(const std::vector<BlockStreamer::Step>& blocks) {
  std::vector<BlockStreamer::Step> order = blocks;
  order.insert(order.end(), blocks.rbegin(), blocks.rend());
  return order;
}

uint64_t BytesOf(const BlockStreamer::Step& step) {
  uint64_t bytes = 0;
  for (const TensorInfo* info : step) bytes += info->bytes;
  return bytes;
}

absl::Status Drain(BlockStreamer& streamer, int* steps) {
  for (int step = 0;; ++step) {
    absl::StatusOr<BlockView> view = streamer.Next();
    if (steps != nullptr) *steps = step;
    if (!view.ok()) return view.status();
    REQUIRE(view->step == step);
    REQUIRE(view->tensors.size() == view->ranges.size());
    for (size_t i = 0; i < view->tensors.size(); ++i) REQUIRE(HasExpectedBytes(view->tensors[i], view->ranges[i]));
  }
}

ssize_t WatchedIo::Pread(int fd, void* data, size_t size, off_t offset) {
  const int call = reads_++;
  if (before_read) {
    if (const int error = before_read(call); error != 0) return error;
  }
  const ssize_t n = Io::Pread(fd, data, std::min(size, max_transfer), offset);
  if (n > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    read_log_.push_back({static_cast<uint64_t>(offset), static_cast<uint64_t>(n)});
  }
  if (n > 0 && after_read) after_read(call, data, static_cast<size_t>(n));
  return n;
}

ssize_t WatchedIo::Pwrite(int fd, const void* data, size_t size, off_t offset) {
  const int call = writes_++;
  if (before_write) {
    if (const int error = before_write(call); error != 0) return error;
  }
  return Io::Pwrite(fd, data, std::min(size, max_transfer), offset);
}

int WatchedIo::Allocate(int fd, off_t size) {
  const int call = allocations_++;
  if (before_allocate) {
    if (const int error = before_allocate(call); error != 0) return error;
  }
  return Io::Allocate(fd, size);
}

int WatchedIo::DropCache(int fd, off_t offset, off_t size) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    drop_log_.push_back({static_cast<uint64_t>(offset), static_cast<uint64_t>(size)});
  }
  return Io::DropCache(fd, offset, size);
}

void WatchedIo::Clear() {
  reads_ = writes_ = allocations_ = 0;
  std::lock_guard<std::mutex> lock(mutex_);
  read_log_.clear();
  drop_log_.clear();
}

std::vector<WatchedIo::Access> WatchedIo::read_log() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return read_log_;
}

std::vector<WatchedIo::Access> WatchedIo::drop_log() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return drop_log_;
}

}  // namespace autoscheme
