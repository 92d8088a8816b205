// What inspect prints of a model: its parts in order, each with its tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "library.h"
#include "report.h"

namespace cli {

class ModelTree {
 public:
  // `schemes`: presets; of layers that one of them does not suit it is noted, with the reason.
  absl::Status Read(const autoscheme_skeleton* skeleton, const autoscheme_skeleton_info& info,
                    const std::vector<std::string>& schemes);

  uint64_t largest_block() const;
  const std::vector<std::string>& dtypes() const { return dtypes_; }  // by first use
  // Blocks whose tensors are alike but for their places are one entry, unless `all`.
  std::string ToString(bool all) const;
  // How much can be quantized, and how much cannot for which reason.
  std::string Summary() const;

 private:
  struct Tensor {
    std::string name, shape, dtype, reason, note;  // `note` goes on from the reason
    uint64_t bytes = 0;
    int64_t params = 1, position = 0, shard = -1;
    bool IsLike(const Tensor& other) const;  // but for its place
  };
  struct Block {
    std::string name, stored;     // as a module, and as its tensors have it
    std::vector<Tensor> tensors;  // named below the block, in the order of computing
    uint64_t bytes = 0;
  };
  using Blocks = std::vector<const Block*>;

  Tensor Make(const autoscheme_tensor_info& info);
  static void NameBelow(Block& block);
  std::vector<Blocks> Kinds(bool all) const;
  void AddBlocks(const Blocks& blocks, Table& table) const;
  void AddUntouched(Table& table) const;
  // A row of one tensor, or of its like in several blocks.
  void Add(const std::string& indent, const std::vector<const Tensor*>& alike, Table& table) const;
  std::vector<std::string> Row(std::vector<std::string> cells, const std::vector<const Tensor*>& tensors) const;

  std::vector<Tensor> before_, behind_, head_, untouched_;
  std::vector<Block> blocks_;
  std::vector<std::string> dtypes_;
  int64_t shard_count_ = 0;
};

}  // namespace cli
