#include "model_tree.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"

namespace cli {
namespace {

constexpr const char* kQuantizable = "quantizable";

// "3", "1-3".
std::string Range(int64_t first, int64_t last) {
  return first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last);
}

// Names that end in rising numbers as one: "model.layers.0-4,6".
std::string Ranges(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  std::vector<std::pair<int64_t, int64_t>> ranges;
  const size_t stem = names.front().rfind('.') + 1;
  for (const std::string& name : names) {
    const int64_t number = std::strtoll(name.c_str() + std::min(stem, name.size()), nullptr, 10);
    if (!ranges.empty() && ranges.back().second + 1 == number) {
      ranges.back().second = number;
    } else {
      ranges.emplace_back(number, number);
    }
  }
  if (names.size() == 1) return names.front();
  std::vector<std::string> texts;
  for (const auto& [first, last] : ranges) {
    if (texts.size() < kMost) texts.push_back(Range(first, last));
  }
  return absl::StrCat(names.front().substr(0, stem), absl::StrJoin(texts, ","), ranges.size() > kMost ? ",.." : "");
}

void AddOnce(const std::string& text, std::vector<std::string>& texts) {
  if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(text);
}

absl::Status NoteOf(const autoscheme_layer_info& layer, const std::vector<std::string>& schemes, std::string* note) {
  if (layer.transposed != 0) absl::StrAppend(note, ", stored transposed");
  for (const std::string& scheme : schemes) {
    const char* why = nullptr;
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_scheme_why_unsuited(scheme.c_str(), layer.out_features, layer.in_features, &why, error);
    }));
    if (why != nullptr) absl::StrAppend(note, "; not by ", scheme, ": ", why);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ModelTree::Read(const autoscheme_skeleton* skeleton, const autoscheme_skeleton_info& info,
                             const std::vector<std::string>& schemes) {
  shard_count_ = autoscheme_skeleton_shard_count(skeleton);
  for (int64_t i = 0; i < info.block_count; ++i) {
    auto block = Struct<autoscheme_block_info>();
    CLI_RETURN_IF_ERROR(
        Call([&](autoscheme_error** error) { return autoscheme_skeleton_get_block(skeleton, i, &block, error); }));
    blocks_.push_back({block.name, "", {}, block.bytes});
  }
  auto head = Struct<autoscheme_layer_info>();
  for (int64_t i = 0; i < info.tensor_count; ++i) {
    auto tensor = Struct<autoscheme_tensor_info>();
    auto layer = Struct<autoscheme_layer_info>();
    CLI_RETURN_IF_ERROR(
        Call([&](autoscheme_error** error) { return autoscheme_skeleton_get_tensor(skeleton, i, &tensor, error); }));
    if (tensor.layer >= 0) {
      CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
        return autoscheme_skeleton_get_layer(skeleton, tensor.layer, &layer, error);
      }));
    }
    const bool untouched = i >= info.tensor_count - info.untouched_count;
    std::vector<Tensor>& outside = untouched ? untouched_ : tensor.position == 0 ? before_ : behind_;
    std::vector<Tensor>& part = tensor.block >= 0    ? blocks_[static_cast<size_t>(tensor.block)].tensors
                                : layer.is_head != 0 ? head_
                                                     : outside;
    part.push_back(Make(tensor));
    if (tensor.layer >= 0 && tensor.rank == 2) CLI_RETURN_IF_ERROR(NoteOf(layer, schemes, &part.back().note));
  }
  for (Block& block : blocks_) NameBelow(block);
  if (head_.empty()) {
    CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
      return autoscheme_skeleton_get_layer(skeleton, info.layer_count - 1, &head, error);
    }));
    Tensor none;
    none.name = head.name, none.reason = head.reason, none.params = 0;
    head_.push_back(none);
  }
  return absl::OkStatus();
}

ModelTree::Tensor ModelTree::Make(const autoscheme_tensor_info& info) {
  Tensor tensor;
  tensor.name = info.name;
  const char* dtype = autoscheme_dtype_name(info.dtype);
  tensor.dtype = dtype == nullptr ? "" : dtype;
  AddOnce(tensor.dtype, dtypes_);
  const absl::Span<const int64_t> shape(info.shape, static_cast<size_t>(info.rank));
  tensor.shape = shape.empty() ? "scalar" : absl::StrJoin(shape, " x ");
  for (const int64_t extent : shape) tensor.params *= extent;
  // The library calls options by their names; here they are flags.
  tensor.reason =
      info.reason == nullptr ? kQuantizable : absl::StrReplaceAll(info.reason, {{"quant_lm_head", "--quant-lm-head"}});
  tensor.bytes = info.bytes, tensor.position = info.position, tensor.shard = info.shard;
  return tensor;
}

// What all names begin with, up to a dot, is the block's.
void ModelTree::NameBelow(Block& block) {
  std::vector<Tensor>& tensors = block.tensors;
  std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) { return a.position < b.position; });
  std::string common = tensors.empty() ? "" : tensors.front().name;
  for (const Tensor& tensor : tensors) {
    while (!absl::StartsWith(tensor.name, common) || common.back() != '.') common.pop_back();
  }
  for (Tensor& tensor : tensors) tensor.name.erase(0, common.size());
  block.stored = common.substr(0, common.empty() ? 0 : common.size() - 1);
}

bool ModelTree::Tensor::IsLike(const Tensor& other) const {
  return name == other.name && shape == other.shape && dtype == other.dtype && reason == other.reason &&
         note == other.note;
}

uint64_t ModelTree::largest_block() const {
  uint64_t largest = 0;
  for (const Block& block : blocks_) largest = std::max(largest, block.bytes);
  return largest;
}

std::vector<ModelTree::Blocks> ModelTree::Kinds(bool all) const {
  std::vector<Blocks> kinds;
  for (const Block& block : blocks_) {
    const auto like = std::find_if(kinds.begin(), kinds.end(), [&](const Blocks& kind) {
      return std::equal(kind.front()->tensors.begin(), kind.front()->tensors.end(), block.tensors.begin(),
                        block.tensors.end(), [](const Tensor& a, const Tensor& b) { return a.IsLike(b); });
    });
    if (all || like == kinds.end()) {
      kinds.push_back({&block});
    } else {
      like->push_back(&block);
    }
  }
  return kinds;
}

std::string ModelTree::ToString(bool all) const {
  Table table(shard_count_ > 1 ? "lrrrrl" : "lrrrl");
  table.Add(shard_count_ > 1 ? std::vector<std::string>{"tensor", "shape", "type", "size", "shard"}
                             : std::vector<std::string>{"tensor", "shape", "type", "size"});
  for (const Tensor& tensor : before_) Add("", {&tensor}, table);
  for (const Blocks& kind : Kinds(all)) AddBlocks(kind, table);
  for (const auto* part : {&behind_, &head_}) {
    for (const Tensor& tensor : *part) Add("", {&tensor}, table);
  }
  AddUntouched(table);
  return table.ToString();
}

void ModelTree::AddBlocks(const Blocks& blocks, Table& table) const {
  std::vector<std::string> names, stored;
  for (const Block* block : blocks) names.push_back(block->name), stored.push_back(block->stored);
  const std::string size = HumanBytes(blocks.front()->bytes);
  std::string title = Ranges(names);
  absl::StrAppend(&title, blocks.size() == 1 ? " (" : absl::StrFormat(" (%d blocks of ", blocks.size()), size, ")");
  std::vector<std::string> cells(shard_count_ > 1 ? 6 : 5);
  cells.front() = title, cells.back() = stored == names ? "" : absl::StrCat("stored as ", Ranges(stored));
  table.Add(cells);
  for (size_t i = 0; i < blocks.front()->tensors.size(); ++i) {
    std::vector<const Tensor*> alike;
    for (const Block* block : blocks) alike.push_back(&block->tensors[i]);
    Add("  ", alike, table);
  }
}

void ModelTree::Add(const std::string& indent, const std::vector<const Tensor*>& alike, Table& table) const {
  const Tensor& tensor = *alike.front();
  const bool stored = !tensor.shape.empty();
  table.Add(Row({indent + tensor.name, tensor.shape, tensor.dtype, stored ? HumanBytes(tensor.bytes) : ""}, alike));
}

// Adds the shards and the reason, which all have in common.
std::vector<std::string> ModelTree::Row(std::vector<std::string> cells,
                                        const std::vector<const Tensor*>& tensors) const {
  const auto [first, last] = std::minmax_element(tensors.begin(), tensors.end(),
                                                 [](const Tensor* a, const Tensor* b) { return a->shard < b->shard; });
  if (shard_count_ > 1) cells.push_back((*first)->shard < 0 ? "" : Range((*first)->shard + 1, (*last)->shard + 1));
  cells.push_back((*first)->reason + (*first)->note);
  return cells;
}

// By the first part of their names, or the first two where that is "model".
void ModelTree::AddUntouched(Table& table) const {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const Tensor*>> parts;
  for (const Tensor& tensor : untouched_) {
    const size_t from = absl::StartsWith(tensor.name, "model.") ? 6 : 0;
    const std::string part = tensor.name.substr(0, tensor.name.find('.', from));
    AddOnce(part, order);
    parts[part].push_back(&tensor);
  }
  for (const std::string& part : order) {
    const std::vector<const Tensor*>& tensors = parts[part];
    uint64_t bytes = 0;
    std::vector<std::string> dtypes;
    for (const Tensor* tensor : tensors) bytes += tensor->bytes, AddOnce(tensor->dtype, dtypes);
    table.Add(Row({absl::StrCat(part, " (", Count(static_cast<int64_t>(tensors.size()), "tensor"), ")"), "",
                   absl::StrJoin(dtypes, ","), HumanBytes(bytes)},
                  tensors));
  }
}

std::string ModelTree::Summary() const {
  struct Share {
    int64_t tensors = 0, params = 0;
    uint64_t bytes = 0;
  };
  std::vector<std::string> order = {kQuantizable};
  std::map<std::string, Share> shares;
  int64_t all = 0;
  const auto count = [&](const std::vector<Tensor>& tensors) {
    for (const Tensor& tensor : tensors) {
      if (tensor.shape.empty()) continue;
      AddOnce(tensor.reason, order);
      Share& share = shares[tensor.reason];
      share.tensors += 1, share.params += tensor.params, share.bytes += tensor.bytes, all += tensor.params;
    }
  };
  count(before_);
  for (const Block& block : blocks_) count(block.tensors);
  count(behind_), count(head_), count(untouched_);
  Table table;
  table.Add({"", "tensors", "parameters", "share", "size"});
  for (const std::string& reason : order) {
    const Share& share = shares[reason];
    const double percent = 100.0 * static_cast<double>(share.params) / std::max(1.0, static_cast<double>(all));
    table.Add({reason, absl::StrCat(share.tensors), HumanCount(share.params), absl::StrFormat("%.1f%%", percent),
               HumanBytes(share.bytes)});
  }
  return table.ToString();
}

}  // namespace cli
