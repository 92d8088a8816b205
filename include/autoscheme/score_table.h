// What scoring measures and selection reads. Plain values; written to and read from scores.json (docs/formats.md).
#ifndef AUTOSCHEME_SCORE_TABLE_H_
#define AUTOSCHEME_SCORE_TABLE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "autoscheme/run_stats.h"
#include "autoscheme/scheme.h"

namespace autoscheme {

// A layer that takes part in the budget, in model order (blocks first, the head last).
struct LayerInfo {
  std::string name;          // without ".weight": "model.layers.0.self_attn.q_proj"
  int64_t out_features = 0;  // rows of the weight
  int64_t in_features = 0;   // columns of the weight
  int block = -1;            // index of its block; -1 outside the blocks
  bool is_head = false;      // the lm_head
  // The token embedding [vocabulary, hidden]. It takes part only beside k-quants, is never scored, and gets its scheme
  // by a rule of its own (docs/algorithm.md 8.4).
  bool is_embedding = false;
  // Set for a layer whose scheme the user or a shape rule has fixed (docs/algorithm.md 2.3, 2.5): it stays unquantized
  // while scoring and is charged to the budget with this scheme.
  std::optional<Scheme> fixed;
};

// By scorer deltaloss the two terms of docs/algorithm.md 6.1, summed over batches: sum|dL/dWq * (W - Wq)| and
// sum|dL/dxq * (x - xq)|. Both are always measured; which of them count depends on the menu (NeedWeightTerm in
// lib/formats/bits.h). By other scorers `weight` is the whole loss, in nats per token, and `activation` is 0.
struct LayerScore {
  double weight = 0;
  double activation = 0;
  // By how much the loss may be off for the choice of rows: the standard error over the calibration's rows. 0: not
  // known.
  double standard_error = 0;
  // Measured with the layer's stand-in in place of the scheme: a k-quant cannot hold a layer whose rows are no multiple
  // of 256 weights (docs/formats.md).
  bool stand_in = false;
};

struct ScoreTable {
  // The model: its path or repo id, model_type of config.json, and a hash over config and tensor headers.
  std::string model, model_type, fingerprint;
  bool tied_head = false;
  // Bytes of the checkpoint's tensors that are no weight of a layer below: embedding, norms, biases. -1: not known.
  int64_t other_bytes = -1;
  // The calibration: number of rows, tokens in each, rows in a batch, sha256 of the ids as int64 little-endian.
  int64_t nsamples = 0, seqlen = 0, batch_size = 0;
  std::string calibration_sha256;
  std::string dtype = "float32";     // compute dtype
  std::string scorer = "deltaloss";  // what measured (docs/scorers.md)

  std::vector<Scheme> schemes;
  std::vector<LayerInfo> layers;
  // scores[s][l] for schemes[s] and layers[l]; zeros for fixed layers and for schemes that quantize nothing.
  std::vector<std::vector<LayerScore>> scores;
  // Mean cross entropy (nats) of each batch with all layers quantized by schemes[s]: ce_loss[s][batch].
  std::vector<std::vector<double>> ce_loss;
  // What measuring them has cost; absent in files of versions that did not write it.
  std::optional<RunStats> run;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCORE_TABLE_H_
