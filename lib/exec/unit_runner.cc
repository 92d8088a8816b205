#include "exec/unit_runner.h"

#include <algorithm>
#include <utility>

#include "exec/weights.h"

namespace autoscheme {

// What one segment sees: its block's linears by index, its small tensors by their name below the block.
class UnitRunner::PartOps : public BlockOps {
 public:
  PartOps(const Block& block, const at::Tensor& tables) : block_(block), tables_(tables) {}
  void AddParam(std::string name, at::Tensor value) { params_.emplace(std::move(name), std::move(value)); }
  // For the next run; `last_values`: whether products that are only added to the sublayer's output are computed.
  void Prepare(UnitLinears& linears, bool last_values) { linears_ = &linears, last_values_ = last_values; }

  at::Tensor Linear(int index, const at::Tensor& x) override {
    const LinearLayer& layer = block_.linears[index];
    return linears_->Apply(layer, x, last_values_ || !layer.ends_segment);
  }
  const at::Tensor& Param(absl::string_view name) override { return params_.at(name); }
  const at::Tensor& position_tables() const override { return tables_; }

 private:
  const Block& block_;
  const at::Tensor& tables_;
  UnitLinears* linears_ = nullptr;
  bool last_values_ = true;
  absl::flat_hash_map<std::string, at::Tensor> params_;
};

UnitRunner::UnitRunner(const MetaSkeleton& skeleton, const Unit& unit, absl::Span<const TensorView> views,
                       at::ScalarType dtype, const at::Tensor& position_tables)
    : architecture_(skeleton.architecture()), unit_(unit) {
  for (const TensorView& view : views) views_.emplace(view.info->name, view);
  for (const Unit::Part& part : unit.parts) {
    const Block& block = skeleton.blocks()[part.block];
    parts_.push_back(std::make_unique<PartOps>(block, position_tables));
    for (const TensorInfo* info : block.segments[part.segment]) {
      const bool linear = std::any_of(block.linears.begin(), block.linears.end(),
                                      [&](const LinearLayer& l) { return l.weight == info || l.bias == info; });
      if (!linear) parts_.back()->AddParam(info->name.substr(block.name.size() + 1), LoadTensor(views_.at(info->name), dtype));
    }
  }
}

UnitRunner::~UnitRunner() = default;

TensorView UnitRunner::Find(absl::string_view name) const {
  auto it = views_.find(name);
  return it == views_.end() ? TensorView{} : it->second;
}

at::Tensor UnitRunner::Run(const at::Tensor& x, UnitLinears& linears, bool values) {
  at::Tensor y = x;
  for (size_t i = 0; i < unit_.parts.size(); ++i) {
    parts_[i]->Prepare(linears, values || i + 1 < unit_.parts.size());
    y = architecture_.Segment(unit_.parts[i].block, unit_.parts[i].segment, y, *parts_[i]);
  }
  return y;
}

}  // namespace autoscheme
