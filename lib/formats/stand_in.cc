#include "formats/stand_in.h"

#include "formats/data_types.h"

namespace autoscheme {

std::optional<Scheme> StandIn(const Scheme& scheme, const LayerInfo& layer) {
  if (!IsKQuant(scheme)) return std::nullopt;
  const SuperGroup& super = TypeOf(scheme)->super;
  if (layer.in_features % (super.groups * scheme.group.size) == 0) return std::nullopt;
  Scheme stand_in = *FindScheme(layer.is_embedding ? super.embedding_stand_in : super.stand_in);
  if (layer.in_features % stand_in.group.size == 0) return stand_in;
  Scheme plain = scheme;
  plain.name = "GGUF:BF16";
  plain.bits = 16;
  plain.sym = true;
  plain.data_type = "int_sym_dq";
  plain.super_bits.reset();
  plain.super_group_size.reset();
  return plain;
}

Scheme StoredScheme(const Scheme& scheme, const LayerInfo& layer) { return StandIn(scheme, layer).value_or(scheme); }

}  // namespace autoscheme
