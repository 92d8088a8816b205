// Writes small checkpoints of the Llama kind with random weights: real folders for tests, without torch or downloads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "support/safetensors_writer.h"

namespace autoscheme {

struct TinyModel {
  std::string model_type = "llama";  // llama, mistral, qwen2 (adds q/k/v biases) or qwen3 (adds q/k norms)
  int blocks = 2;
  int64_t hidden = 32;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 0;  // 0: hidden / heads
  int64_t intermediate = 48;
  int64_t vocab = 64;
  int64_t max_positions = 128;
  int64_t sliding_window = 0;     // mistral: written when positive, else null
  bool tied = false;              // no lm_head.weight
  std::string dtype = "BF16";     // BF16, F16 or F32; values are rounded to it
  int shards = 1;                 // more than 1: model-0000i-of-0000n.safetensors and an index
  bool zero_byte_tensor = false;  // adds "model.extra" of shape [0, hidden]
  double std_dev = 0.05;          // spread of the matrices and biases; norms are 1 + that
  uint64_t seed = 1;
  std::string extra_config;  // members added to config.json: "\"mlp_bias\": false"
  std::string architecture;  // the class that config.json names; empty: the model_type's own
};

// With rows of whole groups of 128.
TinyModel WideTinyModel();

// The tensors, in the model's order. Same options, same bytes.
std::vector<RawTensor> MakeTinyTensors(const TinyModel& model);

// Writes config.json and the weights into `dir`, which exists. Throws std::runtime_error when it cannot.
void WriteTinyModel(const TinyModel& model, const std::string& dir);

// Writes only the weights: one file, or shards with their index. For tests that change the tensors first.
void WriteTinyWeights(const std::vector<RawTensor>& tensors, int shards, const std::string& dir);

// config.json of the model.
std::string TinyConfig(const TinyModel& model);

// nsamples rows of seqlen ids below `vocab` as calibration JSON.
std::string TinyTokens(int64_t nsamples, int64_t seqlen, int64_t vocab, uint64_t seed = 7);

}  // namespace autoscheme
