#include "calibration.h"

#include <limits>

using autoscheme::Calibration;
using autoscheme::capi::CheckProcess;
using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::Guard;

namespace {

autoscheme_calibration* Make(Calibration calibration) {
  auto made = std::make_unique<autoscheme_calibration>();
  made->calibration = std::move(calibration);
  made->sha256 = autoscheme::Sha256(made->calibration);
  return made.release();
}

template <typename Id>
autoscheme_status FromArray(const Id* ids, int64_t nsamples, int64_t seqlen, autoscheme_calibration** out,
                            autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(ids);
    CAPI_REQUIRE(out);
    constexpr int64_t kMostIds = int64_t{1} << 40;
    if (nsamples <= 0 || seqlen <= 0 || seqlen > kMostIds / nsamples) {
      return absl::InvalidArgumentError(absl::StrCat("calibration of ", nsamples, " rows with ", seqlen,
                                                     " ids: both must be at least 1, their product at most 2^40"));
    }
    Calibration calibration;
    calibration.nsamples = nsamples;
    calibration.seqlen = seqlen;
    calibration.ids.resize(static_cast<size_t>(nsamples * seqlen));
    for (int64_t i = 0; i < nsamples * seqlen; ++i) {
      if (ids[i] < 0 || ids[i] > std::numeric_limits<int32_t>::max()) {
        return absl::InvalidArgumentError(absl::StrCat("id ", ids[i], " in row ", i / seqlen, ", column ", i % seqlen,
                                                       " of the calibration is not from 0 to 2147483647"));
      }
      calibration.ids[i] = static_cast<int32_t>(ids[i]);
    }
    *out = Make(std::move(calibration));
    return absl::OkStatus();
  });
}

}  // namespace

extern "C" {

autoscheme_status autoscheme_calibration_load(autoscheme_context* context, const char* path,
                                              autoscheme_calibration** out, autoscheme_error** error) {
  return autoscheme_calibration_load_part(context, path, 0, 0, 0, out, error);
}

autoscheme_status autoscheme_calibration_load_part(autoscheme_context* context, const char* path, int64_t nsamples,
                                                   int64_t seqlen, int64_t max_tokens, autoscheme_calibration** out,
                                                   autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_REQUIRE(path);
    CAPI_REQUIRE(out);
    CAPI_RETURN_IF_ERROR(CheckProcess(*context->state));
    auto read = autoscheme::ReadCalibration(MakeContext(context->state.get(), /*cancellable=*/false), path,
                                            {nsamples, seqlen, max_tokens});
    if (!read.ok()) return read.status();
    *out = Make(*std::move(read));
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_calibration_from_i32(const int32_t* ids, int64_t nsamples, int64_t seqlen,
                                                  autoscheme_calibration** out, autoscheme_error** error) {
  return FromArray(ids, nsamples, seqlen, out, error);
}

autoscheme_status autoscheme_calibration_from_i64(const int64_t* ids, int64_t nsamples, int64_t seqlen,
                                                  autoscheme_calibration** out, autoscheme_error** error) {
  return FromArray(ids, nsamples, seqlen, out, error);
}

autoscheme_status autoscheme_calibration_truncate(const autoscheme_calibration* calibration, int64_t nsamples,
                                                  int64_t seqlen, autoscheme_calibration** out,
                                                  autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(calibration);
    CAPI_REQUIRE(out);
    auto cut = autoscheme::Truncate(calibration->calibration, nsamples, seqlen);
    if (!cut.ok()) return cut.status();
    *out = Make(*std::move(cut));
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_calibration_hold_back(const autoscheme_calibration* calibration, int64_t rows,
                                                   autoscheme_calibration** rest, autoscheme_calibration** held_back,
                                                   autoscheme_error** error) {
  Clear(rest, held_back);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(calibration);
    CAPI_REQUIRE(rest);
    CAPI_REQUIRE(held_back);
    autoscheme::Calibration stays = calibration->calibration;
    auto held = autoscheme::HoldBack(stays, rows);
    if (!held.ok()) return held.status();
    std::unique_ptr<autoscheme_calibration> made(Make(std::move(stays)));
    *held_back = Make(*std::move(held));
    *rest = made.release();
    return absl::OkStatus();
  });
}

void autoscheme_calibration_free(autoscheme_calibration* calibration) { delete calibration; }

autoscheme_status autoscheme_calibration_get_info(const autoscheme_calibration* calibration,
                                                  autoscheme_calibration_info* info, autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(calibration);
    CAPI_REQUIRE(info);
    autoscheme_calibration_info filled{};
    filled.nsamples = calibration->calibration.nsamples;
    filled.seqlen = calibration->calibration.seqlen;
    filled.ids = calibration->calibration.ids.data();
    filled.sha256 = calibration->sha256.c_str();
    return FillStruct(filled, info);
  });
}

}  // extern "C"
