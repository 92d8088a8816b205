#include "interrupt.h"

#include <atomic>
#include <csignal>

namespace cli {
namespace {

std::atomic<autoscheme_context*> context_to_cancel{nullptr};
volatile std::sig_atomic_t interrupted = 0;

// Calls only what a signal handler may: autoscheme_cancel says that it is.
void OnInterrupt(int) {
  interrupted = 1;
  autoscheme_cancel(context_to_cancel.load());
}

}  // namespace

void CancelOnInterrupt(autoscheme_context* context) {
  context_to_cancel = context;
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

void StopHandlingInterrupts() {
  signal(SIGINT, SIG_DFL);
  context_to_cancel = nullptr;
}

bool Interrupted() { return interrupted != 0; }

}  // namespace cli
