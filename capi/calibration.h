#ifndef AUTOSCHEME_CAPI_CALIBRATION_H_
#define AUTOSCHEME_CAPI_CALIBRATION_H_

#include <string>

#include "autoscheme/calibration.h"
#include "handles.h"

struct autoscheme_calibration {
  autoscheme::Calibration calibration;
  std::string sha256;
};

#endif  // AUTOSCHEME_CAPI_CALIBRATION_H_
