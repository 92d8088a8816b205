#include "quant/quantizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "quant/codec.h"
#include "quant/gguf.h"
#include "quant/grouped.h"
#include "quant/rounding.h"
#include "formats/bits.h"

namespace autoscheme {
namespace {

// docs/algorithm.md 3.5: which function a data type means. One line per data type.
struct Entry {
  const char* data_type;
  std::unique_ptr<GroupCodec> (*make)(const Side& side);
};

constexpr Entry kCodecs[] = {
    {"int", MakeIntCodec},
    {"int_asym_float_zp", MakeIntCodec},
    {"mx_fp", MakeMxCodec},
    {"mx_fp_rceil", MakeMxCodec},
    {"mx_int", MakeMxCodec},
    {"nv_fp", MakeNvfp4Codec},
    {"nv_fp4_with_static_gs", MakeNvfp4Codec},
    {"nvfp4_v2", MakeE5m3Codec},
    {"fp", MakeFp8Codec},
    {"int_asym_dq", MakeKCodec},
    {"int_sym_dq", MakeKCodec},
};

absl::StatusOr<std::unique_ptr<GroupCodec>> MakeCodec(const Scheme& scheme, const Side& side) {
  for (const Entry& entry : kCodecs) {
    if (side.data_type == entry.data_type) return entry.make(side);
  }
  return absl::UnimplementedError(absl::StrCat("scheme ", Quoted(scheme.name), ": this build cannot quantize ",
                                               side.weight ? "weights" : "activations", " with data type ",
                                               Quoted(side.data_type)));
}

absl::Status CheckImatrix(const Scheme& scheme, const at::Tensor& imatrix) {
  if (imatrix.dim() == 1 && imatrix.scalar_type() == at::kFloat && imatrix.numel() > 0 &&
      imatrix.ge(0).logical_and_(imatrix.isfinite()).all().item<bool>()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("scheme ", Quoted(scheme.name),
                                                 ": the imatrix must be a vector of finite float32 values >= 0, one "
                                                 "for each input channel"));
}

}  // namespace

at::Tensor WeightQuantizer::Prepare(const at::Tensor& /*weight*/) const { return {}; }

void WeightQuantizer::ForwardInto(const at::Tensor& rows, const at::Tensor& prepared, at::Tensor& out) const {
  at::NoGradGuard no_grad;
  if (rows.numel() > 0) out.copy_(Saturated(Forward(rows.to(at::kFloat), prepared), out.scalar_type()));
}

absl::StatusOr<std::unique_ptr<WeightQuantizer>> MakeWeightQuantizer(const Scheme& scheme, const at::Tensor& imatrix) {
  if (!scheme.QuantizesWeight()) return nullptr;
  AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  Side side;
  side.bits = scheme.bits;
  side.group = scheme.group;
  side.sym = scheme.sym;
  side.data_type = scheme.data_type;
  side.act_bits = scheme.act_bits.value_or(16);
  side.super_groups = scheme.super_bits.has_value();
  if (side.super_groups && imatrix.defined()) {
    AUTOSCHEME_RETURN_IF_ERROR(CheckImatrix(scheme, imatrix));
    return MakeKSearchWeight(side, imatrix);
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<GroupCodec> codec, MakeCodec(scheme, side));
  return MakeGroupedWeight(side, std::move(codec));
}

absl::StatusOr<std::unique_ptr<ActivationQuantizer>> MakeActivationQuantizer(const Scheme& scheme) {
  if (!scheme.QuantizesActivation()) return nullptr;
  AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  Side side;
  side.weight = false;
  side.bits = *scheme.act_bits;
  side.group = scheme.act_group.value_or(scheme.group);
  side.sym = scheme.act_sym.value_or(scheme.sym);
  side.data_type = scheme.act_data_type.value_or(scheme.data_type);
  side.act_bits = side.bits;
  AUTOSCHEME_ASSIGN_OR_RETURN(std::unique_ptr<GroupCodec> codec, MakeCodec(scheme, side));
  return MakeGroupedActivation(side, std::move(codec));
}

}  // namespace autoscheme
