// MachineRates: how fast a machine multiplies, reads and spills.
#pragma once

namespace autoscheme {

// Speeds of the machine, for the time estimate. The defaults are of two cores of a present server; choices are made
// with them, so that one budget always gives one plan.
struct MachineRates {
  double flops = 1.2e11;      // by matrix products, per second
  double read_bytes = 1.5e9;  // per second
  double spill_bytes = 1.0e9;
};

}  // namespace autoscheme
