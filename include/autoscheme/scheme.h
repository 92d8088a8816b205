// A quantization scheme: plain fields, as the reference names them (docs/algorithm.md 3).
#ifndef AUTOSCHEME_SCHEME_H_
#define AUTOSCHEME_SCHEME_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace autoscheme {

// Group of elements that share a scale. rows == 0: `size` elements along a row (> 0), the whole row (-1) or the whole
// tensor (0). rows > 0: a tile of rows x size elements (FP8_BLOCK).
struct GroupSize {
  int size = 128;
  int rows = 0;
  bool operator==(const GroupSize& o) const { return size == o.size && rows == o.rows; }
};

// Unset optional fields are "None" in the reference: a preset given by name keeps them unset (docs/algorithm.md 3.2).
struct Scheme {
  std::string name;  // "W4A16", "MXFP4", ...; for a user-defined scheme the name the user gave, or a description
  int bits = 4;
  GroupSize group;
  bool sym = true;
  std::string data_type = "int";
  std::optional<int> act_bits;
  std::optional<GroupSize> act_group;
  std::optional<bool> act_sym;
  std::optional<std::string> act_data_type;
  std::optional<bool> act_dynamic;
  std::optional<int> super_bits;
  std::optional<int> super_group_size;

  bool QuantizesWeight() const { return bits <= 8; }
  bool QuantizesActivation() const { return act_bits.value_or(16) <= 8; }
  // 16-bit weights and activations: never run, loss 0 (docs/algorithm.md 6.1).
  bool IsPassThrough() const { return !QuantizesWeight() && !QuantizesActivation(); }
};

// The presets, in the order of the catalogue (lib/formats/catalogue.cc). Never fails.
const std::vector<Scheme>& SchemeCatalogue();

// Looks a preset up; case-insensitive, aliases included. INVALID_ARGUMENT names the known ones.
absl::StatusOr<Scheme> FindScheme(absl::string_view name);

// True when the two quantize alike. Names do not count, nor do act_* fields where neither quantizes activations
// (act_bits unset or >= 16), by docs/algorithm.md 3.3.
bool SameScheme(const Scheme& a, const Scheme& b);

// Why runtimes cannot hold a linear layer of that shape under the scheme; null if they can. Borrowed forever. What then
// happens is in docs/algorithm.md 2.5.
const char* WhyUnsuited(const Scheme& scheme, int64_t out_features, int64_t in_features);

// "W2A16, w4a16,MXFP4" -> schemes, in order; one that equals an earlier one is dropped (docs/algorithm.md 3.3).
// INVALID_ARGUMENT for an unknown name or an empty list.
absl::StatusOr<std::vector<Scheme>> ParseSchemeList(absl::string_view comma_separated);

}  // namespace autoscheme

#endif  // AUTOSCHEME_SCHEME_H_
