// The data types: one table, which bit and byte accounting, shape rules, quantizers and scorers read. A new data type
// is a row of it, a codec in lib/quant and a test.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "autoscheme/scheme.h"

namespace autoscheme {

// The function of lib/quant that quantizes.
enum class Codec { kInt, kIntFloatZero, kMx, kMxCeil, kMxInt, kNvfp4, kE5m3, kFp8, kKQuant };

// Whether one number of the whole tensor enters the scale of every group.
enum class TensorScale { kNone, kWhereOneGroup, kAlways };

// The shapes of weights that runtimes can hold: rows and columns in multiples of 32 unless activations are quantized
// too, or columns in multiples of the group.
enum class ShapeRule { kNone, kMultiplesOf32, kWholeGroups };

// Bits beside the elements: for each group, and once for the tensor.
struct Overhead {
  int scale_bits = 0;
  bool zero_point = false;  // with as many bits as an element
  int tensor_bits = 0;
};

// k-quants: the scales (and minima) of so many groups are integers of `bits`, times one float16 factor.
struct SuperGroup {
  int groups = 0;  // 0: no k-quant
  int bits = 0;
  bool sym = false;  // scales alone
  // The presets that take its place where super-groups do not divide the rows: in a linear layer, in the embedding.
  const char* stand_in = nullptr;
  const char* embedding_stand_in = nullptr;
};

struct DataType {
  enum Flags : unsigned {
    kActivations = 1,  // for activations too, not for weights alone
    kFamily = 2,       // a width may stand behind the name ("mx_fp4"); activations have it as well where none is named
    kTiles = 4,        // groups of weights may be tiles
    kOnlyGroups = 8,   // no other groups than those of the row
    kGguf = 16,        // only in GGUF files; other types are there as well, in the presets called "GGUF:..."
    kImatrix = 32,     // its search is weighed by an importance matrix where there is one
  };
  const char* name;  // as the reference spells it
  Codec codec;
  std::vector<int> bits;    // the widths that this row is of
  std::vector<int> groups;  // group sizes, the usual one first
  Overhead counted;         // as the reference counts; asymmetric schemes have a zero point in any case
  Overhead stored;          // in files; symmetric schemes have a zero point only where activations are not quantized
  TensorScale tensor_scale;
  ShapeRule shape;
  unsigned flags;
  SuperGroup super = {};

  bool Has(Flags flag) const { return (flags & flag) != 0; }
};

const std::vector<DataType>& DataTypes();

// Null: none has that name and that width.
const DataType* FindDataType(absl::string_view name, int bits);

// The row of a valid scheme's weights; null where they stay as they are.
const DataType* TypeOf(const Scheme& scheme);

// GGUF:Q2_K_S to GGUF:Q6_K, by which the reference knows that a model is for GGUF files (docs/algorithm.md 2.4).
bool IsKQuant(const Scheme& scheme);
// Whether the scheme is called as the presets for GGUF files are.
bool HasGgufName(const Scheme& scheme);
bool UsesImatrix(const Scheme& scheme);

// Whether a number of the whole tensor must be known before a group of it can be quantized.
bool NeedsWholeTensor(const DataType& type, const GroupSize& group);
// Whether the rows of a quantized activation share a scale, so that a batch cannot be cut.
bool SpansBatch(const Scheme& scheme);

// INVALID_ARGUMENT naming the field and what it may be.
absl::Status ValidateScheme(const Scheme& scheme);

}  // namespace autoscheme
