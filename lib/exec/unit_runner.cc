#include "exec/unit_runner.h"

#include <utility>

#include "exec/weights.h"

namespace autoscheme {

// What one sublayer sees: its block's linears and params.
class UnitRunner::PartOps : public BlockOps {
 public:
  PartOps(const Block& block, const std::vector<at::Tensor>& tables) : block_(block), tables_(tables) {}
  void AddParam(int index, at::Tensor value) { params_.emplace(index, std::move(value)); }
  // For the next run; `last_values`: whether products that are only added to the sublayer's output are computed.
  void Prepare(UnitLinears& linears, bool last_values) { linears_ = &linears, last_values_ = last_values; }

  at::Tensor Linear(int index, const at::Tensor& x) override {
    const LinearLayer& layer = block_.linears[index];
    return linears_->Apply(layer, x, last_values_ || !layer.last_product);
  }
  const at::Tensor& Param(int index) override { return params_.at(index); }
  const at::Tensor& position_tables(int table) const override { return tables_.at(table); }

 private:
  const Block& block_;
  const std::vector<at::Tensor>& tables_;
  UnitLinears* linears_ = nullptr;
  bool last_values_ = true;
  absl::flat_hash_map<int, at::Tensor> params_;
};

UnitRunner::UnitRunner(const MetaSkeleton& skeleton, const Unit& unit, absl::Span<const TensorView> views,
                       const RunResources& run, const std::vector<at::Tensor>& position_tables)
    : spec_(skeleton.spec()), unit_(unit) {
  for (const TensorView& view : views) views_.emplace(view.info->name, view);
  for (const Unit::Part& part : unit.parts) {
    const Block& block = skeleton.blocks()[part.block];
    parts_.push_back(std::make_unique<PartOps>(block, position_tables));
    const BlockSpec& spec = spec_.blocks[part.block];
    for (const int param : ParamsOf(spec.sublayers[part.sublayer])) {
      const TensorView& view = views_.at(block.params[param]->name);
      parts_.back()->AddParam(param, LoadTensor(view, run.dtype(), run.device.torch));
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
    y = Forward(spec_.blocks[unit_.parts[i].block].sublayers[unit_.parts[i].sublayer], y, *parts_[i]);
  }
  linears.LeaveInput();
  return y;
}

}  // namespace autoscheme
