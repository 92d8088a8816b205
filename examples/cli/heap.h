// What malloc keeps of freed memory: --max-ram is a promise about this process, so little.
#ifndef AUTOSCHEME_EXAMPLES_CLI_HEAP_H_
#define AUTOSCHEME_EXAMPLES_CLI_HEAP_H_

namespace cli {

// Freed buffers above 16 MiB go back to the system at once, and of smaller ones at most 64 MiB stay, which costs little
// speed; the memory plan counts that slack in. Called once at start: worker threads share one arena more instead of one
// each, and naming the thresholds keeps malloc from raising them as it goes.
void KeepHeapSmall();

// Every buffer above 1 MiB goes back at once, so that the process holds what is alive and nothing else. Every use of
// one then takes fresh pages, which costs up to half the speed: for runs that leave the heap no room.
void KeepHeapTight();

}  // namespace cli

#endif  // AUTOSCHEME_EXAMPLES_CLI_HEAP_H_
