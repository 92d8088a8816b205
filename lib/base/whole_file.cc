#include "absl/strings/str_cat.h"
#include "base/count.h"
#include "base/io.h"
#include "base/status_macros.h"

namespace autoscheme {

absl::StatusOr<std::string> ReadFileToString(Io& io, const std::string& path, uint64_t max_bytes) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const File file, File::OpenRead(io, path));
  if (file.size() > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Quoted(path), " has ", file.size(), " bytes; at most ", max_bytes, " are accepted"));
  }
  std::string contents(file.size(), '\0');
  AUTOSCHEME_RETURN_IF_ERROR(
      file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(contents.data()), contents.size())));
  return contents;
}

}  // namespace autoscheme
