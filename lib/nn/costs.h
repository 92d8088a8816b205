// What the parts of a decoder hold in memory, for the plan. No torch.
#ifndef AUTOSCHEME_NN_COSTS_H_
#define AUTOSCHEME_NN_COSTS_H_

#include <cstdint>

#include "model/decoder_spec.h"

namespace autoscheme {

// Values of the compute dtype per token.
struct Activations {
  // What waits for the backward pass where the graph of the forward pass is saved. What can be recomputed from it by a
  // pass or two (RecomputableNode) is let go of.
  int64_t saved = 0;
  int64_t graph = 0;      // what the graph holds where it is differentiated at once: that and what could be recomputed
  int64_t transient = 0;  // what the busiest moment of the backward pass holds beside `graph`
};

// Bytes that a part holds beside that for a moment: forward for every row of the batch that a thread is at, backward in
// every thread.
struct Scratch {
  int64_t shared = 0;  // forward, once
  int64_t forward = 0;
  int64_t forward_outside = 0;  // the share of `forward` that LibTorch allocates itself, not from the run's pools
  int64_t backward = 0;
};

// Where `quantized_inputs` is set, a graph holds every linear's input twice.
Activations ActivationsOf(const Sublayer& sublayer, int64_t hidden, bool quantized_inputs);
Scratch ScratchOf(const Sublayer& sublayer, int64_t seqlen);

}  // namespace autoscheme

#endif  // AUTOSCHEME_NN_COSTS_H_
