// DeltaLoss: the measurement that scores schemes (SPEC 4). One trajectory per scheme, and one before them that collects
// the importance matrix when a K type is on the menu.
#ifndef AUTOSCHEME_SCORERS_DELTA_LOSS_H_
#define AUTOSCHEME_SCORERS_DELTA_LOSS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "autoscheme/score_table.h"
#include "scorers/imatrix.h"
#include "exec/linear_input.h"
#include "exec/measurement.h"
#include "exec/precision.h"
#include "exec/scored_linear.h"

namespace autoscheme {

class DeltaLoss : public Measurement {
 public:
  struct Options {
    Precision precision;
    uint64_t chunk_bytes = uint64_t{8} << 20;
    bool cache_weights = true;  // keep a unit's dequantized weights while its batches run
    bool sliced = false;        // batches come in slices
    ProductMeter* meter = nullptr;  // borrowed; null: none
    TensorPool* pool = nullptr;     // of dequantized weights; borrowed, null: LibTorch's allocator
    int64_t batches = 1;
    // Taken as it is instead of being collected; layers that it lacks are quantized without. Borrowed; null: collect.
    const Imatrix* imatrix = nullptr;
    // Measure K types themselves also in layers that will get stand-ins.
    bool reference_rules = false;
  };
  // Fills `table.scores` and `table.ce_loss` for table.schemes and table.layers; both are borrowed and must outlive this.
  // Layers that are not in the table, fixed layers and layers of pass-through schemes stay as they are. A layer that cannot hold a K
  // type is measured with its stand-in, which its score then says.
  // UNIMPLEMENTED for a scheme whose quantizer this build lacks; INVALID_ARGUMENT for one that cannot hold a layer's shape
  // (names both).
  static absl::StatusOr<std::unique_ptr<DeltaLoss>> Create(ScoreTable& table, const Options& options);

  int trajectories() const override { return forward_only_trajectories() + static_cast<int>(schemes_.size()); }
  int forward_only_trajectories() const override { return collects_imatrix_ ? 1 : 0; }
  absl::Status BeginUnit(Pass pass, int trajectory, const ResidentUnit& unit) override;
  at::Tensor Linear(const LinearLayer& layer, const at::Tensor& x, bool values) override;
  absl::Status EndBatch() override;
  absl::Status EndUnit() override;
  WeightUse weight_use(int trajectory, const LinearLayer& layer) const override;
  HeadTreatment head(int trajectory) override;
  void OnHeadInput(int trajectory, int slice, const at::Tensor& x) override;
  void OnLoss(int trajectory, int batch, double loss) override;
  void OnHeadScore(int trajectory, double weight, double activation) override;

 private:
  // How one layer's weight is quantized under one scheme.
  struct LayerWeight {
    Scheme scheme;                               // the scheme, or its stand-in
    const WeightQuantizer* quantizer = nullptr;  // null: stays as it is
    bool weighs = false;                         // searched by the importance matrix where there is one
  };
  struct ActiveScheme {
    int index = 0;  // into table.schemes
    std::vector<LayerWeight> layers;                            // by layer of the table
    std::vector<std::unique_ptr<WeightQuantizer>> quantizers;  // what `layers` points at: the scheme's and those of its stand-ins
    std::unique_ptr<ActivationQuantizer> activation;
    std::unique_ptr<WeightQuantizer> head_weight;  // where the head has an importance matrix of its own
  };
  DeltaLoss(ScoreTable& table, const Options& options) : table_(table), options_(options) {}
  absl::StatusOr<ActiveScheme> Activate(int scheme);
  void PutScore(int trajectory, int layer, double weight, double activation);
  // Null for the trajectory that collects the importance matrix.
  ActiveScheme* active(int trajectory) {
    const int index = trajectory - forward_only_trajectories();
    return index < 0 ? nullptr : &schemes_[index];
  }
  const ActiveScheme* active(int trajectory) const { return const_cast<DeltaLoss*>(this)->active(trajectory); }
  const at::Tensor* FindImatrix(const std::string& layer) const;

  // The linears of one unit under one trajectory.
  struct UnitLinears {
    absl::flat_hash_map<const LinearLayer*, std::unique_ptr<ScoredLinear>> linears;
    std::vector<std::unique_ptr<WeightQuantizer>> quantizers;  // those made for one layer's importance matrix
  };
  absl::StatusOr<UnitLinears> MakeLinears(int trajectory, const Unit& unit) const;
  void LeaveInput();  // done with input_ for now; in a kept graph it drops what can be made again

  ScoreTable& table_;
  const Options options_;
  bool collects_imatrix_ = false;
  Imatrix collected_;
  std::vector<ActiveScheme> schemes_;
  absl::flat_hash_map<std::string, int> measured_layers_;  // name -> index into table.layers
  int head_layer_ = -1;
  // The begun unit.
  Pass pass_ = Pass::kForward;
  int trajectory_ = 0;
  const ResidentUnit* unit_ = nullptr;
  UnitLinears current_;
  std::shared_ptr<LinearInput> input_;  // the last one, until another comes or the segment's last linear is through
  // Linears that graphs kept for the backward pass point at, by (unit, trajectory).
  absl::flat_hash_map<std::pair<int, int>, UnitLinears> kept_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORERS_DELTA_LOSS_H_
