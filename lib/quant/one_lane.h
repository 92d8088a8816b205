// The loops that a device runs (group_team.h, k_quant_team.h, thread_sums.h) in plain memory, thread after thread in
// the same order: what tests compare with the CPU's, and what a stand-in for a device has in its table. Slow, serial,
// done when a call returns; `device` and the stream are not looked at.
#pragma once

#include "device/device_api.h"
#include "quant/device_quant_api.h"

namespace autoscheme {

extern const DeviceQuantApi kOneLaneQuant;

// As the functions of DeviceApi.
DeviceResult OneLaneAddAbsProducts(void* device, const void* grad, Number grad_type, const void* w, Number w_type,
                                   const void* wq, Number wq_type, int64_t count, double* sum);
DeviceResult OneLaneFindNonFinite(void* device, DeviceStream stream, const void* data, int64_t count, Number type,
                                  NonFinite* found);

}  // namespace autoscheme
