/* The header compiles alone and first, as C99 and as C11, with every warning an error. */
#include <autoscheme.h>

autoscheme_status header_test_uses_it(autoscheme_error** error);

autoscheme_status header_test_uses_it(autoscheme_error** error) {
  autoscheme_context* context = NULL;
  return autoscheme_context_create(&context, error);
}
