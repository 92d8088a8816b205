// Finds a model's folder: a path, or a repo id in the local Hugging Face cache.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/io.h"

namespace autoscheme {

// `model` if that is a folder. Else, if it is spelled like a repo id ("org/name"), the snapshot that refs/main of the
// cache names. The cache is HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or
// HOME/.cache/huggingface/hub: the first variable that is set. No network is ever used.
// Errors: NOT_FOUND naming the places looked at; INVALID_ARGUMENT for a file or an empty name.
absl::StatusOr<std::string> ResolveModelFolder(Io& io, const std::string& model);

// A name that stays inside its folder: not empty, not "." or "..", at most 255 bytes, no slash of either direction, no
// colon, no control byte.
bool IsPlainFileName(absl::string_view name);

}  // namespace autoscheme
