/* A host that finds the library at run time: dlopen, compare the ABI version, look a few functions up, use them.
 * usage: dlopen_test path/to/libautoscheme.so */
#include <autoscheme.h>
#include <dlfcn.h>
#include <string.h>

#include "check.h"

/* ISO C has no conversion from an object pointer to a function pointer; copying the bits is what POSIX has in mind. */
static int look_up(void* library, const char* name, void* function) {
  void* found = dlsym(library, name);
  memcpy(function, &found, sizeof found);
  return found != NULL;
}

int main(int argc, char** argv) {
  int failures = 0;
  void* library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  int32_t (*abi_version)(void) = NULL;
  autoscheme_status (*create)(autoscheme_context**, autoscheme_error**) = NULL;
  void (*release)(autoscheme_context*) = NULL;
  void (*internal)(void) = NULL;
  autoscheme_context* context = NULL;
  if (library == NULL) {
    fprintf(stderr, "%s\n", argc == 2 ? dlerror() : "usage: dlopen_test path/to/libautoscheme.so");
    return 1;
  }
  CHECK_C(look_up(library, "autoscheme_abi_version", &abi_version));
  CHECK_C(look_up(library, "autoscheme_context_create", &create));
  CHECK_C(look_up(library, "autoscheme_context_free", &release));
  CHECK_C(!look_up(library, "_ZN10autoscheme15SchemeCatalogueEv", &internal)); /* C++ stays inside */
  if (failures == 0) {
    CHECK_C(abi_version() == AUTOSCHEME_ABI_VERSION);
    CHECK_C(create(&context, NULL) == AUTOSCHEME_OK);
    release(context);
  }
  return failures == 0 ? 0 : 1;
}
