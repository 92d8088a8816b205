// DeltaLoss: the measurement that scores schemes (SPEC 4). One trajectory per scheme.
#ifndef AUTOSCHEME_SCORE_DELTA_LOSS_H_
#define AUTOSCHEME_SCORE_DELTA_LOSS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "autoscheme/score_table.h"
#include "score/measurement.h"
#include "score/scored_linear.h"

namespace autoscheme {

class DeltaLoss : public Measurement {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;
    uint64_t chunk_bytes = uint64_t{8} << 20;
    bool cache_weights = true;  // keep a block's dequantized weights while its batches run
    int64_t batches = 1;
  };
  // Fills `table.scores` and `table.ce_loss` for table.schemes and table.layers; both are borrowed and must outlive this.
  // Layers that are not in the table, fixed layers and layers of pass-through schemes stay as they are.
  // UNIMPLEMENTED for a scheme whose quantizer this build lacks.
  static absl::StatusOr<std::unique_ptr<DeltaLoss>> Create(ScoreTable& table, const Options& options);

  int trajectories() const override { return static_cast<int>(schemes_.size()); }
  bool needs_gradients() const override { return true; }
  absl::Status BeginBlock(Pass pass, int trajectory, const ResidentBlock& block) override;
  at::Tensor Linear(int index, const at::Tensor& x) override { return linears_[index]->Apply(x); }
  absl::Status EndBlock() override;
  HeadTreatment head(int trajectory) override;
  void OnLoss(int trajectory, int batch, double loss) override;
  void OnHeadScore(int trajectory, double weight, double activation) override;

 private:
  struct ActiveScheme {
    int index = 0;  // into table.schemes
    std::unique_ptr<WeightQuantizer> weight;
    std::unique_ptr<ActivationQuantizer> activation;
  };
  DeltaLoss(ScoreTable& table, const Options& options) : table_(table), options_(options) {}

  ScoreTable& table_;
  const Options options_;
  std::vector<ActiveScheme> schemes_;                       // by trajectory
  absl::flat_hash_map<std::string, int> measured_layers_;   // name -> index into table.layers
  int head_layer_ = -1;
  // The begun block.
  Pass pass_ = Pass::kForward;
  int trajectory_ = 0;
  const Block* block_ = nullptr;
  std::vector<std::unique_ptr<ScoredLinear>> linears_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_DELTA_LOSS_H_
