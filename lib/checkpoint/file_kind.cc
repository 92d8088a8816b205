#include "checkpoint/file_kind.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace autoscheme {

absl::Status DescribeForeignFile(const File& file) {
  std::string head(std::min<uint64_t>(file.size(), 512), '\0');
  if (!file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(head.data()), head.size())).ok()) {
    return absl::OkStatus();
  }
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(head);
  const auto is = [&](absl::string_view what) { return absl::StrCat(Quoted(file.path()), " is ", what); };

  if (absl::StartsWith(text, "version https://git-lfs")) {
    return absl::DataLossError(is("a Git LFS pointer, not the weights; run `git lfs pull` in its folder"));
  }
  if (absl::StartsWithIgnoreCase(text, "<!doctype") || absl::StartsWithIgnoreCase(text, "<html") ||
      absl::StartsWith(text, "<?xml")) {
    return absl::DataLossError(
        is("an HTML or XML page (a failed download?), not a safetensors file; download it again"));
  }
  if (absl::StartsWith(head, "PK\x03\x04")) {
    return absl::UnimplementedError(
        is("a zip archive (a PyTorch checkpoint?), not a safetensors file; convert it to safetensors"));
  }
  if (head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5) {
    return absl::UnimplementedError(
        is("a Python pickle (a PyTorch checkpoint?), which is never opened; convert it to safetensors"));
  }
  if (absl::StartsWith(head, "GGUF")) {
    return absl::UnimplementedError(is("a GGUF file, not a safetensors file; convert it to a Hugging Face folder"));
  }
  if (absl::StartsWith(text, "{") && !absl::StrContains(head, '\0')) {
    return absl::DataLossError(
        absl::StrContains(text, "weight_map") || absl::StrContains(text, "\"metadata\"")
            ? is("a JSON index of shards, not a safetensors file; pass the model's folder")
            : is("a JSON text, not a safetensors file, which begins with the 8-byte length of its header"));
  }
  return absl::OkStatus();
}

}  // namespace autoscheme
