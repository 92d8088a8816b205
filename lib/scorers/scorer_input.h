// ScorerInput: what scorers are made for.
#pragma once

#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "autoscheme/scheme.h"
#include "autoscheme/score_table.h"
#include "scorers/imatrix.h"

namespace autoscheme {

struct ScorerInput {
  const MetaSkeleton* skeleton = nullptr;
  std::vector<Scheme> menu;
  std::vector<LayerInfo> layers;
  const Imatrix* imatrix =
      nullptr;                   // read from a file; null: collected during the run if the scorer reads one. Borrowed
  bool reference_rules = false;  // score k-quants themselves also in layers that will get stand-ins
};

}  // namespace autoscheme
