// What malloc keeps of freed memory: --max-ram is a promise about this process, so little.
#pragma once

namespace cli {

// Freed buffers above 1 MiB go back to the system at once, and of smaller ones at most 4 MiB stay. The library's large
// tensors are not malloc's, but what LibTorch packs for products of bfloat16 is: without this it leaves up to 100 MiB
// of gaps in the heap on a model of 1.1B, another number in every run; with it such a run takes up to a tenth longer
// where pages are dear. Called once at start: worker threads share one arena more instead of one each, and naming the
// thresholds keeps malloc from raising them as it goes.
void KeepHeapSmall();

}  // namespace cli
