// Recognizes by content what people pass by accident for a safetensors file or for token ids, for a helpful message.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/io.h"
#include "base/json.h"

namespace autoscheme {

struct FileKind {
  // What can be done about it.
  enum Sort {
    kUnknown,
    kLfsPointer,
    kPage,  // came in place of a download
    kCompressed,
    kModel,     // weights, or sums over them
    kArrays,    // arrays or tables that their own programs read
    kText,      // plain text, whatever it says
    kWideText,  // whatever it says, not in UTF-8
    kNumbers,   // a table of numbers as text
    kJson,
  };
  Sort sort = kUnknown;
  absl::string_view name;  // "a Parquet file"
};

// What to do about files of kinds that are no use to anyone: pointers, pages, packed ones, text that is not in UTF-8.
// Empty for the others.
absl::string_view Remedy(FileKind::Sort sort);

// Looks at the first bytes alone. kUnknown with an empty name if they say nothing. An error is that of reading.
absl::StatusOr<FileKind> RecognizeFile(const File& file);

// The error for a file whose first bytes are not a safetensors header: names the format it really has and the remedy.
// OK if the format is not known either.
absl::Status DescribeForeignFile(const File& file);

// The contents of a model's JSON file, numbers of Python's that are not finite included (NonFiniteNumbers::kRead). The
// error names what the file is where it is of a known kind that is no JSON.
absl::StatusOr<Json> ParseJsonFile(absl::string_view text, const std::string& path);

}  // namespace autoscheme
