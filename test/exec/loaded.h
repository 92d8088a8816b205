// Tensors of a checkpoint, in memory.
#pragma once

#include <ATen/ATen.h>

#include <deque>
#include <vector>

#include "absl/types/span.h"
#include "autoscheme/meta_skeleton.h"
#include "checkpoint/checkpoint.h"
#include "exec/weights.h"

namespace autoscheme {

inline std::vector<std::byte> BytesOf(const MetaSkeleton& skeleton, const TensorInfo& info) {
  std::vector<std::byte> bytes(info.bytes);
  if (!skeleton.checkpoint().Read(info, 0, absl::MakeSpan(bytes)).ok()) bytes.clear();
  return bytes;
}

inline at::Tensor Float(const MetaSkeleton& skeleton, const TensorInfo& info) {
  const std::vector<std::byte> bytes = BytesOf(skeleton, info);
  return LoadTensor({&info, bytes.data()}, at::kFloat);
}

// The views of some tensors, as a UnitSource would hand them out.
struct Loaded {
  Loaded(const MetaSkeleton& skeleton, const std::vector<const TensorInfo*>& infos) {
    for (const TensorInfo* info : infos) {
      bytes.push_back(BytesOf(skeleton, *info));
      views.push_back({info, bytes.back().data()});
    }
  }
  TensorView Find(absl::string_view name) const {
    for (const TensorView& view : views) {
      if (view.info->name == name) return view;
    }
    return {};
  }
  std::deque<std::vector<std::byte>> bytes;
  std::vector<TensorView> views;
};

}  // namespace autoscheme
