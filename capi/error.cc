// Versions, status codes, error objects.
#include <exception>
#include <new>

#include "absl/strings/string_view.h"
#include "autoscheme/build_info.h"
#include "autoscheme/quoted.h"
#include "handles.h"

extern "C" {

const char* autoscheme_version(void) { return AUTOSCHEME_VERSION; }

int32_t autoscheme_abi_version(void) { return AUTOSCHEME_ABI_VERSION; }

const char* autoscheme_build_info(void) {
  try {
    static const std::string* const text = new std::string(autoscheme::BuildInfo());
    return text->c_str();
  } catch (...) {
    return "";
  }
}

const char* autoscheme_status_name(autoscheme_status status) {
  switch (status) {
    case AUTOSCHEME_OK: return "OK";
    case AUTOSCHEME_CANCELLED: return "CANCELLED";
    case AUTOSCHEME_UNKNOWN: return "UNKNOWN";
    case AUTOSCHEME_INVALID_ARGUMENT: return "INVALID_ARGUMENT";
    case AUTOSCHEME_DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    case AUTOSCHEME_NOT_FOUND: return "NOT_FOUND";
    case AUTOSCHEME_ALREADY_EXISTS: return "ALREADY_EXISTS";
    case AUTOSCHEME_PERMISSION_DENIED: return "PERMISSION_DENIED";
    case AUTOSCHEME_RESOURCE_EXHAUSTED: return "RESOURCE_EXHAUSTED";
    case AUTOSCHEME_FAILED_PRECONDITION: return "FAILED_PRECONDITION";
    case AUTOSCHEME_ABORTED: return "ABORTED";
    case AUTOSCHEME_OUT_OF_RANGE: return "OUT_OF_RANGE";
    case AUTOSCHEME_UNIMPLEMENTED: return "UNIMPLEMENTED";
    case AUTOSCHEME_INTERNAL: return "INTERNAL";
    case AUTOSCHEME_UNAVAILABLE: return "UNAVAILABLE";
    case AUTOSCHEME_DATA_LOSS: return "DATA_LOSS";
    case AUTOSCHEME_UNAUTHENTICATED: return "UNAUTHENTICATED";
    case AUTOSCHEME_CALLBACK_FAILED: return "CALLBACK_FAILED";
    default: return "UNKNOWN_STATUS";
  }
}

}  // extern "C"

namespace autoscheme::capi {
namespace {

// Handed out when there is no memory for an error object; autoscheme_error_free leaves it alone. Its message is short
// enough to lie inside the string object, so that making it cannot fail.
const autoscheme_error kOutOfMemory{AUTOSCHEME_RESOURCE_EXHAUSTED, 0, "out of memory"};

autoscheme_status SetError(autoscheme_error** error, autoscheme_status code, int32_t callback_value,
                           absl::string_view message) noexcept {
  if (error == nullptr) return code;
  try {
    auto made = std::make_unique<autoscheme_error>();
    made->code = code;
    made->callback_value = callback_value;
    made->message = OneLine(message);
    *error = made.release();
    return code;
  } catch (...) {
    *error = const_cast<autoscheme_error*>(&kOutOfMemory);
    return AUTOSCHEME_RESOURCE_EXHAUSTED;
  }
}

// LibTorch appends a backtrace to its messages, from the second line on.
absl::string_view FirstLine(absl::string_view text) { return text.substr(0, text.find('\n')); }

}  // namespace

autoscheme_status Report(autoscheme_error** error, const Outcome& outcome) noexcept {
  try {
    if (outcome.callback_value != 0) {
      return SetError(error, AUTOSCHEME_CALLBACK_FAILED, outcome.callback_value,
                      absl::StrCat("a callback returned ", outcome.callback_value, ": ", outcome.status.message()));
    }
    return SetError(error, static_cast<autoscheme_status>(outcome.status.code()), 0, outcome.status.message());
  } catch (...) {
    return ReportException(error);
  }
}

autoscheme_status ReportException(autoscheme_error** error) noexcept {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    if (error != nullptr) *error = const_cast<autoscheme_error*>(&kOutOfMemory);
    return AUTOSCHEME_RESOURCE_EXHAUSTED;
  } catch (const std::exception& e) {
    return SetError(error, AUTOSCHEME_INTERNAL, 0, FirstLine(e.what()));
  } catch (...) {
    return SetError(error, AUTOSCHEME_INTERNAL, 0, "an exception that is not a std::exception");
  }
}

}  // namespace autoscheme::capi

extern "C" {

autoscheme_status autoscheme_error_code(const autoscheme_error* error) {
  return error == nullptr ? AUTOSCHEME_OK : error->code;
}

const char* autoscheme_error_message(const autoscheme_error* error) {
  return error == nullptr ? "" : error->message.c_str();
}

int32_t autoscheme_error_callback_value(const autoscheme_error* error) {
  return error == nullptr ? 0 : error->callback_value;
}

void autoscheme_error_free(autoscheme_error* error) {
  if (error != &autoscheme::capi::kOutOfMemory) delete error;
}

}  // extern "C"
