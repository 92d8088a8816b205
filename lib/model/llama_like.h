// The decoder that Llama, Mistral, Qwen2 and Qwen3 share: pre-norm, rotary grouped-query attention, gated MLP.
#pragma once

#include <string>
#include <vector>

#include "model/decoder_builder.h"

namespace autoscheme {

struct LlamaLike {
  int64_t head_dim = 0;  // without a head_dim key; 0: hidden / heads
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  std::string activation = "silu";  // without a hidden_act key
  bool gated = true, interleaved = false, wide_norms = false;
  bool tied_head = false;          // without a tie_word_embeddings key
  bool qk_norm = false;            // RMS norm of every query and key head
  bool queries_grow = false;       // see Rotary
  std::vector<int64_t> windows;    // by block; empty: all attend to all
  std::vector<bool> rotates;       // by block; empty: all do
  std::vector<const char*> known;  // keys that only this family has
  double theta = 10000.0;          // without a rope_theta key
  double eps = 1e-6;               // without an rms_norm_eps key
};

// Reads the rest of config.json and describes the model. `decoder` has read the common keys.
absl::StatusOr<ModelSpec> DescribeLlamaLike(DecoderBuilder& decoder, const LlamaLike& family);

}  // namespace autoscheme
