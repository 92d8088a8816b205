// Ctrl-C: asks the running call to stop, once; a second one ends the program the usual way.
#pragma once

#include <autoscheme.h>

namespace cli {

// SIGINT cancels what runs on `context`, which must live as long as the program handles signals.
void CancelOnInterrupt(autoscheme_context* context);
// Puts the default back; `context` may be freed afterwards.
void StopHandlingInterrupts();
bool Interrupted();

}  // namespace cli
