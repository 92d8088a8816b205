// Where results go, looked at beforehand.
#include <string>
#include <vector>

#include "autoscheme/output.h"
#include "handles.h"

namespace {

absl::Status ToPaths(const char* const* paths, int64_t count, const char* what, std::vector<std::string>* out) {
  if (count < 0)
    return absl::InvalidArgumentError(absl::StrCat("the count of ", what, " is ", count, ", must be 0 or more"));
  if (paths == nullptr && count > 0) return autoscheme::capi::IsNull(what);
  for (int64_t i = 0; i < count; ++i) {
    if (paths[i] == nullptr) return autoscheme::capi::IsNull(absl::StrCat(what, "[", i, "]").c_str());
    out->push_back(paths[i]);
  }
  return absl::OkStatus();
}

}  // namespace

extern "C" autoscheme_status autoscheme_check_outputs(autoscheme_context* context, const char* const* outputs,
                                                      int64_t output_count, const char* const* inputs,
                                                      int64_t input_count, autoscheme_error** error) {
  return autoscheme::capi::Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(context);
    CAPI_RETURN_IF_ERROR(autoscheme::capi::CheckProcess(*context->state));
    std::vector<std::string> to, from;
    CAPI_RETURN_IF_ERROR(ToPaths(outputs, output_count, "outputs", &to));
    CAPI_RETURN_IF_ERROR(ToPaths(inputs, input_count, "inputs", &from));
    return autoscheme::CheckOutputs(autoscheme::capi::MakeContext(context->state.get(), /*cancellable=*/false), to,
                                    from);
  });
}
