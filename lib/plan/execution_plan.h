// ExecutionPlan: how a run is carried out, as plain data. The planner makes it, the sweeps obey it, and nothing in it
// changes a score beyond float rounding.
#pragma once

#include <cstdint>

namespace autoscheme {

// The ring of host memory by which weights go to a device: so many slots of so many bytes.
inline constexpr uint64_t kUploadSlots = 8, kUploadSlotBytes = uint64_t{16} << 20;

// A process's context on a device, with the kernels that LibTorch loads: assumed until it is seen on one.
inline constexpr uint64_t kDeviceContextBytes = uint64_t{512} << 20;

// What lies in a spill file instead of memory. kEverything: besides the saved inputs of units also what passes from
// unit to unit (activations, gradients, and the sums of the head).
enum class Spilled { kNothing, kInputs, kEverything };

struct ExecutionPlan {
  int64_t batch_size = 8;         // the user's choice, not the planner's: gradients are summed over a batch
  int64_t micro_batch_rows = 0;   // rows of a batch that are computed at once; 0 = whole batches
  int sublayers_per_unit = 0;     // 0 = a block to a unit (units.h)
  int unit_slots = 2;             // units in memory while they are streamed; 1 = no read-ahead
  int cached_units = 0;           // the last units, whose weights stay in memory between the sweeps
  int saved_units = 0;            // the last units, whose autograd graphs stay until the backward sweep
  bool tiled = false;             // weights come by row tiles, read anew at every use
  bool drop_page_cache = true;    // false where the system has room for the whole model beside the budget
  int64_t head_tile_rows = 4096;  // vocabulary rows per tile
  int input_interval = 1;         // the input of every so many units is saved, the others are recomputed (schedule.h)
  Spilled spilled = Spilled::kNothing;
  bool cache_weights = true;                 // dequantized weights of a unit stay while its batches run
  uint64_t chunk_bytes = uint64_t{8} << 20;  // size of a chunk of dequantized rows
  // On a device, where what passes from unit to unit always stays: its memory for tensors, and whether saved inputs lie
  // there too.
  uint64_t device_pool_bytes = 0, device_weight_pool_bytes = 0;
  uint64_t staging_bytes = 0;  // pinned host memory for one tensor
  bool inputs_on_device = false;
  // Devices that compute some variants each, and what the head's passes are for where that is not said by the variants
  // of one: whether quantizers see the head whole beforehand, whether its gradients are shown, and what the height of a
  // tile is a multiple of (0 = the whole head).
  int lanes = 1;
  bool head_prepares = false, head_shows = false;
  int64_t head_row_multiple = 1;

  bool inputs_in_ram() const { return spilled == Spilled::kNothing && !inputs_on_device; }
  bool transient_in_ram() const { return spilled != Spilled::kEverything; }
};

}  // namespace autoscheme
