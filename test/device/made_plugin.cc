// A plugin with a table that is not CUDA's, of the version that AUTOSCHEME_MADE_VERSION says.
#include "device/made_table.h"

extern "C" __attribute__((visibility("default"))) const autoscheme::DeviceApi* autoscheme_device_api() {
  static const autoscheme::DeviceApi api = [] {
    autoscheme::DeviceApi made = autoscheme::MadeTable::Make("cuda");
    made.version = AUTOSCHEME_MADE_VERSION;
    return made;
  }();
  return &api;
}
