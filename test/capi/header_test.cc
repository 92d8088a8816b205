// The header compiles alone and first, as C++17, with every warning an error; and twice.
#include <autoscheme.h>

static_assert(sizeof(autoscheme_status) == 4, "the status is 32 bits wide");
