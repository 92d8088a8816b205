#include "checkpoint/npy.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

constexpr absl::string_view kMagic("\x93NUMPY", 6);
constexpr uint64_t kMaxHeaderBytes = 65536;

// What follows `key` and its colon in a Python dict literal of one level, without leading blanks.
absl::StatusOr<absl::string_view> After(absl::string_view dict, absl::string_view key, const File& file);
absl::StatusOr<std::vector<int64_t>> ParseShape(absl::string_view text, const File& file);

absl::Status Malformed(const File& file, absl::string_view why) {
  return absl::DataLossError(absl::StrCat(Quoted(file.path()), " is not a valid .npy file: ", why));
}

}  // namespace

bool IsNpy(absl::string_view first_bytes) { return absl::StartsWith(first_bytes, kMagic); }

absl::StatusOr<NpyHeader> ReadNpyHeader(const File& file) {
  unsigned char fixed[12] = {};
  const size_t fixed_bytes = std::min<uint64_t>(sizeof(fixed), file.size());
  AUTOSCHEME_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(fixed), fixed_bytes)));
  if (fixed_bytes < sizeof(fixed)) return Malformed(file, absl::StrCat("it has only ", Count(file.size(), "byte")));
  const int version = fixed[6];
  if (version != 1 && version != 2) {
    return absl::UnimplementedError(
        absl::StrCat(Quoted(file.path()), " has .npy version ", version, "; 1 and 2 are supported"));
  }
  uint64_t length = uint64_t{fixed[8]} | uint64_t{fixed[9]} << 8;
  if (version == 2) length |= uint64_t{fixed[10]} << 16 | uint64_t{fixed[11]} << 24;
  const uint64_t start = version == 1 ? 10 : 12;
  if (length > kMaxHeaderBytes || length > file.size() - start) {
    return Malformed(file, absl::StrCat("its header has ", Count(length, "byte"), ", the file ", file.size()));
  }
  std::string dict(length, '\0');
  AUTOSCHEME_RETURN_IF_ERROR(
      file.ReadAt(start, absl::MakeSpan(reinterpret_cast<std::byte*>(dict.data()), dict.size())));

  NpyHeader header;
  header.data_offset = start + length;
  AUTOSCHEME_ASSIGN_OR_RETURN(absl::string_view descr, After(dict, "descr", file));
  descr = descr.substr(0, descr.find_first_of(",}"));
  if (absl::StrContains(descr, "<i8")) header.item_bytes = 8;
  if (absl::StrContains(descr, "<i4")) header.item_bytes = 4;
  if (header.item_bytes == 0) {
    return absl::UnimplementedError(
        absl::StrCat(Quoted(file.path()), " has items of type ", Quoted(descr), "; save it as int32 or int64"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const absl::string_view fortran, After(dict, "fortran_order", file));
  if (!absl::StartsWith(fortran, "False")) {
    return absl::UnimplementedError(
        absl::StrCat(Quoted(file.path()), " is in Fortran order; save numpy.ascontiguousarray() of it"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const absl::string_view shape, After(dict, "shape", file));
  AUTOSCHEME_ASSIGN_OR_RETURN(header.shape, ParseShape(shape, file));

  std::optional<uint64_t> bytes = static_cast<uint64_t>(header.item_bytes);
  for (int64_t dim : header.shape) {
    if (bytes) bytes = CheckedMul(*bytes, static_cast<uint64_t>(dim));
  }
  const uint64_t rest = file.size() - header.data_offset;
  if (!bytes || *bytes != rest) {
    return Malformed(file, absl::StrCat("its shape takes ", bytes ? absl::StrCat(*bytes) : "more than 2^64",
                                        " bytes, but ", rest, " follow the header"));
  }
  return header;
}

namespace {

absl::StatusOr<absl::string_view> After(absl::string_view dict, absl::string_view key, const File& file) {
  for (const char quote : {'\'', '"'}) {
    const std::string quoted = absl::StrCat(std::string(1, quote), key, std::string(1, quote));
    const size_t at = dict.find(quoted);
    if (at == absl::string_view::npos) continue;
    absl::string_view rest = absl::StripLeadingAsciiWhitespace(dict.substr(at + quoted.size()));
    if (!absl::ConsumePrefix(&rest, ":")) break;
    return absl::StripLeadingAsciiWhitespace(rest);
  }
  return Malformed(file, absl::StrCat("its header has no ", Quoted(key)));
}

// "(16, 128)", "(3,)" or "()".
absl::StatusOr<std::vector<int64_t>> ParseShape(absl::string_view text, const File& file) {
  const size_t close = text.find(')');
  if (!absl::ConsumePrefix(&text, "(") || close == absl::string_view::npos) {
    return Malformed(file, "its shape is not a tuple");
  }
  std::vector<int64_t> shape;
  for (absl::string_view item : absl::StrSplit(text.substr(0, close - 1), ',', absl::SkipWhitespace())) {
    int64_t dim = 0;
    if (shape.size() == 8 || !absl::SimpleAtoi(item, &dim) || dim < 0) {
      return Malformed(file, absl::StrCat("its shape has the dimension ", Quoted(item)));
    }
    shape.push_back(dim);
  }
  return shape;
}

}  // namespace
}  // namespace autoscheme
