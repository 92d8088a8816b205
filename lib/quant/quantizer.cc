#include "quant/quantizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/io.h"
#include "base/status_macros.h"
#include "formats/data_types.h"
#include "quant/codec.h"
#include "quant/grouped.h"
#include "quant/k_quant.h"
#include "quant/rounding.h"

namespace autoscheme {
namespace {

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

int64_t CommonRowMultiple(int64_t multiple, const WeightQuantizer* quantizer) {
  if (quantizer == nullptr || multiple == 0) return multiple;
  const int64_t own = quantizer->row_multiple();
  return own == 0 ? 0 : std::lcm(multiple, own);
}

bool NeedsPreparing(const WeightQuantizer* quantizer) {
  return quantizer != nullptr && quantizer->needs_whole_tensor();
}

void PrepareRows(const WeightQuantizer* quantizer, const at::Tensor& rows, at::Tensor& prepared) {
  if (!NeedsPreparing(quantizer)) return;
  const at::Tensor part = quantizer->Prepare(rows);
  prepared = prepared.defined() ? at::maximum(prepared, part) : part;
}

void WeightQuantizer::ForwardInto(const at::Tensor& rows, const at::Tensor& prepared, at::Tensor& out) const {
  at::NoGradGuard no_grad;
  if (rows.numel() > 0) out.copy_(Saturated(Forward(rows.to(at::kFloat), prepared), out.scalar_type()));
}

std::unique_ptr<GroupCodec> MakeCodec(const Side& side) {
  switch (side.type->codec) {
    case Codec::kInt:
    case Codec::kIntFloatZero: return MakeIntCodec(side);
    case Codec::kMx:
    case Codec::kMxCeil:
    case Codec::kMxInt: return MakeMxCodec(side);
    case Codec::kNvfp4: return MakeNvfp4Codec(side);
    case Codec::kE5m3: return MakeE5m3Codec();
    case Codec::kFp8: return MakeFp8Codec(side);
    case Codec::kKQuant: break;
  }
  return MakeKQuantCodec(*side.type);
}

absl::StatusOr<std::unique_ptr<WeightQuantizer>> MakeWeightQuantizer(const Scheme& scheme, const at::Tensor& imatrix) {
  if (!scheme.QuantizesWeight()) return nullptr;
  AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  const Side side{true, TypeOf(scheme), scheme.bits, scheme.group, scheme.sym, scheme.act_bits.value_or(16)};
  if (!imatrix.defined() || !side.type->Has(DataType::kImatrix)) return MakeGroupedWeight(side);
  AUTOSCHEME_RETURN_IF_ERROR(CheckImatrix(scheme, imatrix));
  return MakeKQuantSearch(side, imatrix);
}

absl::StatusOr<std::unique_ptr<ActivationQuantizer>> MakeActivationQuantizer(const Scheme& scheme) {
  if (!scheme.QuantizesActivation()) return nullptr;
  AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
  const int bits = *scheme.act_bits;
  const DataType* type = FindDataType(scheme.act_data_type.value_or(scheme.data_type), bits);
  const GroupSize group = scheme.act_group.value_or(scheme.group);
  return MakeGroupedActivation({false, type, bits, group, scheme.act_sym.value_or(scheme.sym), bits});
}

}  // namespace autoscheme
