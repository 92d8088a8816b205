// A small checkpoint on disk for the tests of streaming, with known bytes, and an Io that watches and disturbs.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "autoscheme/block_streamer.h"
#include "base/io.h"
#include "checkpoint/checkpoint.h"
#include "support/temp_dir.h"

namespace autoscheme {

// What a test wants in a shard, in the order of the file. Raw bytes, so shapes need no model behind them.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  Dtype dtype = Dtype::kU8;
};

// Byte i of a tensor: the same in every run, different for every tensor.
std::byte ExpectedByte(const std::string& tensor, uint64_t i);
bool HasExpectedBytes(const TensorView& view, const TensorRange& range);

// Writes config.json and the shards (with an index when there are several) into a folder of its own.
class StreamModel {
 public:
  explicit StreamModel(const std::vector<std::vector<TensorSpec>>& shards);
  // `blocks` blocks of three tensors spread over two shards, with an embedding before and a norm between them that
  // belong to no block. Block b is a little larger than block b-1.
  static StreamModel Blocks(int blocks, int64_t rows = 48);

  std::unique_ptr<Checkpoint> Open(const Context& context = {}) const;
  std::string ShardPath(int shard) const;
  std::string directory() const { return dir_->path(); }

 private:
  std::unique_ptr<TempDir> dir_;
  std::vector<std::string> shard_names_;
};

// All tensors of "blocks.<b>." for every b, in order.
std::vector<BlockStreamer::Step> BlockSteps(const Checkpoint& checkpoint);
// 0 .. n-1, n-1 .. 0.
std::vector<BlockStreamer::Step> ForwardAndBack(const std::vector<BlockStreamer::Step>& blocks);
uint64_t BytesOf(const BlockStreamer::Step& step);

// Calls Next until it fails, checks every byte that is delivered, and returns the error. `steps` counts the deliveries.
absl::Status Drain(BlockStreamer& streamer, int* steps = nullptr);

// Counts and, where a test sets a hook, disturbs what goes to the operating system. Set hooks before threads start.
class WatchedIo : public Io {
 public:
  struct Access {
    uint64_t offset = 0, size = 0;
    bool operator==(const Access& o) const { return offset == o.offset && size == o.size; }
  };
  // Each gets the number of the call, from 0, and returns 0 to go on or a negative errno.
  std::function<int(int call)> before_read, before_write, before_allocate;
  // Changes what a read delivered.
  std::function<void(int call, void* data, size_t size)> after_read;
  size_t max_transfer = SIZE_MAX;  // short reads and writes

  ssize_t Pread(int fd, void* data, size_t size, off_t offset) override;
  ssize_t Pwrite(int fd, const void* data, size_t size, off_t offset) override;
  int Allocate(int fd, off_t size) override;
  int DropCache(int fd, off_t offset, off_t size) override;

  // Forgets the counts and what was recorded (opening a checkpoint reads headers).
  void Clear();
  int reads() const { return reads_; }
  int writes() const { return writes_; }
  std::vector<Access> read_log() const;
  std::vector<Access> drop_log() const;

 private:
  std::atomic<int> reads_{0}, writes_{0}, allocations_{0};
  mutable std::mutex mutex_;
  std::vector<Access> read_log_, drop_log_;
};

}  // namespace autoscheme
