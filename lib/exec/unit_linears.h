// UnitLinears: the linear layers of one unit under one variant.
#pragma once

#include <functional>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "exec/quantized_linear.h"
#include "plan/units.h"

namespace autoscheme {

// Layers that read one tensor (q, k and v; gate and up) and quantize it alike share its quantized form. Where the
// graphs of a forward pass are saved, this must live until they are differentiated.
class UnitLinears {
 public:
  // Errors: those of Scorer::Treat.
  static absl::StatusOr<std::unique_ptr<UnitLinears>> Create(RunResources& run, const ExecutionPlan& plan,
                                                             const Unit& unit, const Scorers& scorers, int variant);

  // `find` gives a small tensor of the unit by its name. `weights` is borrowed until Unbind.
  void Bind(const std::function<TensorView(absl::string_view)>& find, WeightRows& weights);
  void Unbind();

  // Graphs that are made from now on are saved: inputs that can be recomputed are dropped until the backward pass
  // comes.
  void set_saves_graph(bool saves) { saves_graph_ = saves; }
  // One call: x [..., in] -> [..., out]. Without `values` only the gradient of the result is wanted.
  at::Tensor Apply(const LinearLayer& layer, const at::Tensor& x, bool values);
  // The unit is through: else the input of its last product would stay, where a norm follows that.
  void LeaveInput();
  void EndBatch();  // backward: all micro-batches of a batch are through

 private:
  UnitLinears(const Scorers& scorers, int variant) : scorers_(scorers), variant_(variant) {}

  const Scorers& scorers_;
  const int variant_;
  bool shows_inputs_ = false, saves_graph_ = false;
  // What quantizes each layer's input, and one of these, which a layer without any goes along with.
  absl::flat_hash_map<const LinearLayer*, std::shared_ptr<const ActivationQuantizer>> activations_;
  std::shared_ptr<const ActivationQuantizer> activation_;
  absl::flat_hash_map<const LinearLayer*, std::unique_ptr<QuantizedLinear>> linears_;
  std::shared_ptr<LinearInput> input_;              // the last one, until another comes or nothing will read it
  const ActivationQuantizer* quantizes_ = nullptr;  // what that input is made with
};

}  // namespace autoscheme
