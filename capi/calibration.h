#pragma once

#include <string>

#include "autoscheme/calibration.h"
#include "handles.h"

struct autoscheme_calibration {
  autoscheme::Calibration calibration;
  std::string sha256;
};
