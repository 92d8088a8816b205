#include "checkpoint/file_kind.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace autoscheme {
namespace {

using absl::string_view;

constexpr size_t kHeadBytes = 512;

struct Magic {
  size_t offset;
  string_view bytes;
  FileKind kind;
};

// Zip archives, Arrow streams, older importance matrices and text are told apart below.
const Magic kMagics[] = {
    {0, "GGUF", {FileKind::kModel, "a GGUF file"}},
    {0, "lmgg", {FileKind::kModel, "a GGML file"}},
    {0, "fmgg", {FileKind::kModel, "a GGML file"}},
    {0, "tjgg", {FileKind::kModel, "a GGML file"}},
    {0, "PAR1", {FileKind::kArrays, "a Parquet file"}},
    {0, "ARROW1", {FileKind::kArrays, "an Arrow file (Feather)"}},
    {0, "FEA1", {FileKind::kArrays, "a Feather file"}},
    {0, "\x89HDF\r\n\x1a\n", {FileKind::kArrays, "an HDF5 file"}},
    {0, {"SQLite format 3\0", 16}, {FileKind::kArrays, "an SQLite database"}},
    {0, "\x93NUMPY", {FileKind::kArrays, "a NumPy array"}},
    {0, "\x1f\x8b", {FileKind::kCompressed, "a gzip file"}},
    {0, "\x28\xb5\x2f\xfd", {FileKind::kCompressed, "a Zstandard file"}},
    {0,
     {"\xfd"
      "7zXZ\0",
      6},
     {FileKind::kCompressed, "an xz file"}},
    {0, "\x04\x22\x4d\x18", {FileKind::kCompressed, "an LZ4 file"}},
    {0, "7z\xbc\xaf\x27\x1c", {FileKind::kCompressed, "a 7z archive"}},
    {4, "1AY&SY", {FileKind::kCompressed, "a bzip2 file"}},
    {257, "ustar", {FileKind::kCompressed, "a tar archive"}},
    {0, "\xff\xfe", {FileKind::kWideText, "UTF-16 text"}},
    {0, "\xfe\xff", {FileKind::kWideText, "UTF-16 text"}},
};

uint32_t Load32(string_view head, size_t offset) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<unsigned char>(head[offset + i]);
  return value;
}

// Tells them by the name of the first member, which both writers always put there.
FileKind KindOfZip(string_view head) {
  const size_t length = head.size() < 30 ? 0 : Load32(head, 26) & 0xffff;
  const string_view member = head.substr(std::min<size_t>(30, head.size()), length);
  if (absl::EndsWith(member, ".npy")) return {FileKind::kArrays, "an archive of NumPy arrays (.npz)"};
  if (absl::EndsWith(member, "data.pkl"))
    return {FileKind::kArrays, "a zip archive of PyTorch tensors (a checkpoint, .pt)"};
  return {FileKind::kArrays, "a zip archive (a PyTorch checkpoint?)"};
}

// The older importance matrices of llama.cpp: how many, and then the length of the first name, and the name.
bool IsLegacyImatrix(string_view head) {
  if (head.size() < 8) return false;
  const uint32_t count = Load32(head, 0), length = Load32(head, 4);
  if (count == 0 || count > (1 << 20) || length == 0 || length > head.size() - 8) return false;
  return absl::EndsWith(head.substr(8, length), ".weight");
}

// Messages of an Arrow stream, which is how the datasets library keeps tables.
bool IsArrowStream(string_view head) {
  return head.size() >= 8 && Load32(head, 0) == 0xffffffff && Load32(head, 4) - 1 < (1 << 24);
}

bool IsPickle(string_view head) { return head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5; }

// Without a byte order mark: letters and zero bytes in turns.
bool IsWideText(string_view head) {
  if (head.size() < 8) return false;
  for (const size_t zero : {0, 1}) {
    bool wide = true;
    for (size_t i = 0; i + 1 < head.size() && wide; i += 2) {
      wide =
          head[i + zero] == 0 && (absl::ascii_isprint(head[i + 1 - zero]) || absl::ascii_isspace(head[i + 1 - zero]));
    }
    if (wide) return true;
  }
  return false;
}

bool IsText(string_view head) {
  return !head.empty() &&
         absl::c_all_of(head, [](char c) { return !absl::ascii_iscntrl(c) || absl::ascii_isspace(c); });
}

bool AllNumbers(const std::vector<string_view>& fields) {
  return !fields.empty() && absl::c_all_of(fields, [](string_view field) {
    double number = 0;
    return absl::SimpleAtod(absl::StripAsciiWhitespace(field), &number);
  });
}

FileKind KindOfText(string_view text) {
  absl::ConsumePrefix(&text, "\xef\xbb\xbf");
  if (text.empty()) return {};
  if (absl::StartsWith(text, "version https://git-lfs")) return {FileKind::kLfsPointer, "a Git LFS pointer"};
  if (absl::StartsWithIgnoreCase(text, "<!doctype") || absl::StartsWithIgnoreCase(text, "<html") ||
      absl::StartsWith(text, "<?xml")) {
    return {FileKind::kPage, "an HTML or XML page (a failed download?)"};
  }
  if (text[0] == '{' || text[0] == '[') return {FileKind::kJson, "JSON text"};
  // The last line of many may be cut off.
  std::vector<string_view> lines = absl::StrSplit(text, absl::ByAnyChar("\r\n"), absl::SkipWhitespace());
  if (lines.size() > 2) lines.resize(2);
  for (const char separator : {',', ';', '\t'}) {
    const std::vector<string_view> first = absl::StrSplit(lines.front(), separator),
                                   last = absl::StrSplit(lines.back(), separator);
    if (first.size() > 1 && (AllNumbers(last) || (lines.size() == 2 && first.size() == last.size()))) {
      return {FileKind::kNumbers, "a table as text (CSV)"};
    }
  }
  if (AllNumbers(absl::StrSplit(lines.front(), absl::ByAnyChar(" \t"), absl::SkipWhitespace()))) {
    return {FileKind::kNumbers, "numbers as text"};
  }
  return {FileKind::kText, "plain text"};
}

absl::StatusOr<std::string> ReadHead(const File& file) {
  std::string head(std::min<uint64_t>(file.size(), kHeadBytes), '\0');
  AUTOSCHEME_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(head.data()), head.size())));
  return head;
}

FileKind Recognize(string_view head) {
  for (const Magic& magic : kMagics) {
    if (head.size() > magic.offset && absl::StartsWith(head.substr(magic.offset), magic.bytes)) return magic.kind;
  }
  if (absl::StartsWith(head, "PK\x03\x04")) return KindOfZip(head);
  if (IsPickle(head)) return {FileKind::kArrays, "a Python pickle (a PyTorch checkpoint?), which is never opened"};
  if (IsArrowStream(head)) return {FileKind::kArrays, "an Arrow stream (a table of the datasets library)"};
  if (IsLegacyImatrix(head)) return {FileKind::kModel, "an importance matrix of llama.cpp"};
  if (IsWideText(head)) return {FileKind::kWideText, "UTF-16 text"};
  const string_view text = absl::StripLeadingAsciiWhitespace(head);
  return IsText(text) ? KindOfText(text) : FileKind{};
}

}  // namespace

absl::StatusOr<FileKind> RecognizeFile(const File& file) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string head, ReadHead(file));
  return Recognize(head);
}

absl::string_view Remedy(FileKind::Sort sort) {
  switch (sort) {
    case FileKind::kLfsPointer: return "run `git lfs pull` in its folder";
    case FileKind::kPage: return "download it again";
    case FileKind::kCompressed: return "unpack it";
    case FileKind::kWideText: return "write it in UTF-8 (iconv -f UTF-16 -t UTF-8)";
    default: return "";
  }
}

absl::Status DescribeForeignFile(const File& file) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string head, ReadHead(file));
  const FileKind kind = Recognize(head);
  const auto is = [&](string_view remedy) {
    return absl::StrCat(Quoted(file.path()), " is ", kind.name, ", not a safetensors file; ", remedy);
  };
  switch (kind.sort) {
    case FileKind::kLfsPointer:
    case FileKind::kPage: return absl::DataLossError(is(Remedy(kind.sort)));
    case FileKind::kCompressed: return absl::UnimplementedError(is(Remedy(kind.sort)));
    case FileKind::kModel: return absl::UnimplementedError(is("convert it to a Hugging Face folder"));
    case FileKind::kArrays: return absl::UnimplementedError(is("convert it to safetensors"));
    case FileKind::kJson:
      return absl::DataLossError(
          absl::StrContains(head, "weight_map") || absl::StrContains(head, "\"metadata\"")
              ? absl::StrCat(Quoted(file.path()),
                             " is a JSON index of shards, not a safetensors file; pass the model's folder")
              : is("those begin with the 8-byte length of their header"));
    default: return absl::OkStatus();
  }
}

absl::StatusOr<Json> ParseJsonFile(absl::string_view text, const std::string& path) {
  absl::StatusOr<Json> json = ParseJson(text, Quoted(path), NonFiniteNumbers::kRead);
  if (json.ok()) return json;
  const FileKind kind = Recognize(text.substr(0, kHeadBytes));
  const string_view remedy = Remedy(kind.sort);
  if (remedy.empty()) return json;
  return absl::DataLossError(absl::StrCat(Quoted(path), " is ", kind.name, ", not JSON; ", remedy));
}

}  // namespace autoscheme
