// Finds a model's folder: a path, or a repo id in the local Hugging Face cache.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/io.h"

namespace autoscheme {

// `model` if that is a folder; for one of a Hugging Face cache (a repository's, its snapshots', or the cache's own with
// one model in it) the snapshot in it. Else, if it is spelled like a repo id ("org/name", "org/name@revision"), the
// snapshot in the cache: the revision is a branch, a tag, a commit or the unique beginning of one, and without it
// "main", or the only snapshot where the cache knows no "main". The cache is HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE,
// HF_HOME/hub, XDG_CACHE_HOME/huggingface/hub or HOME/.cache/huggingface/hub: the first variable that is set, "~" and
// variables in it expanded. No network is ever used. Errors: NOT_FOUND naming the places looked at; INVALID_ARGUMENT
// for a file, an empty name, or a choice between snapshots or models, which are named.
absl::StatusOr<std::string> ResolveModelFolder(Io& io, const std::string& model);

// A name that stays inside its folder: not empty, not "." or "..", at most 255 bytes, no slash of either direction, no
// colon, no control byte.
bool IsPlainFileName(absl::string_view name);

}  // namespace autoscheme
