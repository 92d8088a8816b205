// The decoder that Llama, Mistral, Qwen2 and Qwen3 share: pre-norm, rotary grouped-query attention, SwiGLU.
#pragma once

#include <string>
#include <vector>

#include "model/decoder_spec.h"

namespace autoscheme {

struct DecoderConfig {
  std::string model_type;
  int64_t hidden = 0, intermediate = 0, heads = 0, kv_heads = 0, head_dim = 0, blocks = 0, vocab = 0, max_positions = 0;
  double rms_norm_eps = 1e-6;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool qk_norm = false;  // RMS norm of every query and key head
  bool tied_head = false, tied_head_given = false;
  std::vector<int64_t> window;        // per block; 0 = full attention
  std::vector<std::string> warnings;  // ModelSpec::warnings
};

// The fields that all these families spell alike, but for those of the rotation; the family's file sets the flags.
// INVALID_ARGUMENT names the key. Without a head_dim key it is `default_head_dim`, or hidden / heads when that is 0.
absl::StatusOr<DecoderConfig> ReadDecoderConfig(const Json& config, const std::string& model_type,
                                                int64_t default_head_dim = 0);

// sliding_window; 0 where the config says null. Configs that do not mention it mean 4096, with which these families
// began.
absl::StatusOr<int64_t> ReadSlidingWindow(const Json& config);

// Sets `window` from layer_types: blocks of sliding_attention get `sliding_window`, which is 0 where the config has
// none. False if there is no such key.
absl::StatusOr<bool> ReadLayerTypes(const Json& config, int64_t sliding_window, DecoderConfig& decoder);

// Sets `window` from layer_types (transformers 5) or from use_sliding_window + max_window_layers (the Qwen spelling).
absl::Status ReadQwenWindows(const Json& config, DecoderConfig& decoder);

// Reads the rotary frequencies, which may depend on the blocks' windows, and describes the model.
absl::StatusOr<ModelSpec> MakeDecoder(const Json& config, DecoderConfig decoder);

}  // namespace autoscheme
