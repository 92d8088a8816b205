// RunResources: what a run computes with. There is one for a run, made by the pipeline and handed down by reference.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "autoscheme/context.h"
#include "autoscheme/io_engine.h"
#include "autoscheme/run_stats.h"
#include "exec/products.h"
#include "exec/weights.h"
#include "plan/precision.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {

// Outlives all that holds tensors of a run. One thread.
struct RunResources {
  explicit RunResources(const Context& run_context) : context(run_context) {}
  RunResources(const RunResources&) = delete;
  RunResources& operator=(const RunResources&) = delete;

  at::ScalarType dtype() const { return TorchType(precision.dtype); }
  at::ScalarType operands() const { return TorchType(precision.operands); }

  const Context& context;
  Precision precision;
  IoEngine io_engine = IoEngine::kAuto;
  std::string work_dir;  // for the spill file; empty: TMPDIR, else /tmp
  // Dequantized weights lie apart from activations: saved activations would settle in the room that weights leave from
  // unit to unit, and the next unit's weights would find none.
  TensorPool activations, weights;
  ProductMeter products;
  RunStats stats;  // filled in place
};

}  // namespace autoscheme
