// Rotary position embedding: what config.json says of its frequencies, and the tables made from them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/json.h"

namespace autoscheme {

struct RopeConfig {
  double theta = 10000.0;
  std::string type = "default";  // "default", "linear", "llama3", "dynamic", "yarn" or "longrope"
  double factor = 1, low_freq_factor = 1, high_freq_factor = 1;
  double original_max_positions = 0;     // all but default: those the model was first trained for
  double attention_scale = 1;            // yarn, longrope: of cos and sin
  double beta_fast = 32, beta_slow = 1;  // yarn: rotations over those positions between which frequencies are blended
  bool truncate = true;                  // yarn: to whole frequencies
  double query_growth = 0;               // see Rotary
  std::vector<double> short_factors, long_factors;  // longrope: by frequency, for runs up to those positions and beyond

  bool operator==(const RopeConfig& other) const;
};

// What a family means where the config says nothing.
struct RopeDefaults {
  double theta = 10000.0;
  double part = 1;              // share of a head's numbers that turns
  bool may_be_partial = false;  // whether another part can be asked for
  const char* part_key = "partial_rotary_factor";
  // Where set, this key gives the theta and nothing is scaled, unless the object that decides is nested by attention
  // type.
  const char* theta_key = nullptr;
  int64_t max_positions = 0;  // max_position_embeddings
  bool queries_grow = false;  // llama_4_scaling_beta must be there
};

// Reads rope_theta, rope_scaling (transformers 4) and rope_parameters (transformers 5) as transformers does where its
// versions agree: rope_scaling, where it says anything, decides alone; the theta inside of the object that decides goes
// before the one beside it. An object may be nested by attention type ("full_attention", "sliding_attention"): then
// what it has for `attention_type` is read. Sets `part`. What the config says twice or in vain is added to `warnings`.
// Errors name the key: INVALID_ARGUMENT where it contradicts itself, a number is impossible or a member unknown,
// UNIMPLEMENTED for another type and for heads that are rotated in part in a family that rotates them whole.
absl::StatusOr<RopeConfig> ReadRopeConfig(const Json& config, const std::string& attention_type,
                                          const RopeDefaults& defaults, double* part,
                                          std::vector<std::string>* warnings);

}  // namespace autoscheme
