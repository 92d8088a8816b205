// What the parts of a decoder hold in memory, for the plan. No torch.
#pragma once

#include <cstdint>

#include "model/decoder_spec.h"
#include "nn/attention_cost.h"

namespace autoscheme {

// Values of the compute dtype per token.
struct Activations {
  // What waits for the backward pass where the graph of the forward pass is saved. What can be recomputed from it by a
  // pass or two (RecomputableNode) is let go of.
  int64_t saved = 0;
  int64_t graph = 0;      // what the graph holds where it is differentiated at once: that and what could be recomputed
  int64_t transient = 0;  // what the busiest moment of the backward pass holds beside `graph`
};

// Where `quantized_inputs` is set, a graph holds every linear's input twice.
Activations ActivationsOf(const Sublayer& sublayer, int64_t hidden, bool quantized_inputs);
Scratch ScratchOf(const Sublayer& sublayer, int64_t seqlen, const AttentionBytes& bytes);

}  // namespace autoscheme
