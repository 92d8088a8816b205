#include "formats/stand_in.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "formats/rules.h"

namespace autoscheme {

std::optional<Scheme> StandIn(const Scheme& scheme, const LayerInfo& layer) {
  if (!IsGgufKType(scheme) || layer.in_features % 256 == 0) return std::nullopt;
  if (layer.in_features % 32 != 0) {
    Scheme plain = scheme;
    plain.name = "GGUF:BF16";
    plain.bits = 16;
    plain.sym = true;
    plain.data_type = "int_sym_dq";
    plain.super_bits.reset();
    plain.super_group_size.reset();
    return plain;
  }
  const char* suffixes[2] = {scheme.sym ? "_0" : "_1", scheme.sym ? "_1" : "_0"};
  for (const char* suffix : suffixes) {
    if (layer.is_embedding) break;
    absl::StatusOr<Scheme> found = FindScheme(absl::StrCat("GGUF:Q", scheme.bits, suffix));
    if (found.ok()) return *std::move(found);
  }
  absl::StatusOr<Scheme> found = FindScheme(scheme.bits == 6 ? "GGUF:Q8_0" : "GGUF:Q5_0");
  if (found.ok()) return *std::move(found);
  return std::nullopt;
}

Scheme StoredScheme(const Scheme& scheme, const LayerInfo& layer) {
  std::optional<Scheme> stand_in = StandIn(scheme, layer);
  return stand_in.has_value() ? *std::move(stand_in) : scheme;
}

}  // namespace autoscheme
