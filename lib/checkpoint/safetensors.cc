#include "checkpoint/safetensors.h"

#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/header_handler.h"

namespace autoscheme {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100000000;  // the format's own cap

absl::StatusOr<uint64_t> ReadHeaderLength(const File& file);
absl::StatusOr<std::vector<HeaderEntry>> ParseHeader(const File& file, absl::string_view header);
absl::Status CheckNames(const File& file, const std::vector<HeaderEntry>& entries);
absl::Status CheckSizes(const File& file, const std::vector<HeaderEntry>& entries);
absl::Status CheckLayout(const File& file, const std::vector<HeaderEntry>& sorted, uint64_t data_bytes);
absl::Status CheckDtypes(const File& file, const std::vector<HeaderEntry>& entries);

}  // namespace

absl::StatusOr<SafetensorsHeader> ReadSafetensorsHeader(const File& file) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const uint64_t header_bytes, ReadHeaderLength(file));
  std::string header(header_bytes, '\0');
  AUTOSCHEME_RETURN_IF_ERROR(
      file.ReadAt(kLengthBytes, absl::MakeSpan(reinterpret_cast<std::byte*>(header.data()), header.size())));
  AUTOSCHEME_ASSIGN_OR_RETURN(std::vector<HeaderEntry> entries, ParseHeader(file, header));
  std::string().swap(header);

  AUTOSCHEME_RETURN_IF_ERROR(CheckNames(file, entries));
  AUTOSCHEME_RETURN_IF_ERROR(CheckSizes(file, entries));
  std::sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::tie(a.begin, a.end, a.tensor.name) < std::tie(b.begin, b.end, b.tensor.name);
  });
  const uint64_t data_start = kLengthBytes + header_bytes;
  AUTOSCHEME_RETURN_IF_ERROR(CheckLayout(file, entries, file.size() - data_start));
  AUTOSCHEME_RETURN_IF_ERROR(CheckDtypes(file, entries));

  SafetensorsHeader result;
  result.tensors.reserve(entries.size());
  for (HeaderEntry& entry : entries) {
    entry.tensor.offset = data_start + entry.begin;
    entry.tensor.bytes = entry.end - entry.begin;
    result.tensors.push_back(std::move(entry.tensor));
  }
  return result;
}

namespace {

std::string Where(const File& file, const HeaderEntry& entry) {
  return absl::StrCat(Quoted(file.path()), ": tensor ", Quoted(entry.tensor.name));
}

// Little-endian whatever the host is.
uint64_t LoadLength(const std::byte (&bytes)[kLengthBytes]) {
  uint64_t value = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) value = value << 8 | std::to_integer<uint64_t>(bytes[i]);
  return value;
}

absl::StatusOr<uint64_t> ReadHeaderLength(const File& file) {
  if (file.size() < kLengthBytes) {
    return absl::DataLossError(
        absl::StrCat(Quoted(file.path()), " has ", Count(file.size(), "byte"),
                     "; a safetensors file has at least 8 (an interrupted download? fetch it again)"));
  }
  std::byte raw[kLengthBytes];
  AUTOSCHEME_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(raw)));
  const uint64_t length = LoadLength(raw);
  const uint64_t rest = file.size() - kLengthBytes;
  if (length > 0 && length <= rest && length <= kMaxHeaderBytes) return length;

  AUTOSCHEME_RETURN_IF_ERROR(DescribeForeignFile(file));
  if (length == 0) return absl::DataLossError(absl::StrCat(Quoted(file.path()), ": the header is empty (0 bytes)"));
  if (length > kMaxHeaderBytes) {
    const uint64_t swapped = __builtin_bswap64(length);
    return absl::ResourceExhaustedError(absl::StrCat(
        Quoted(file.path()), ": the header length says ", length, " bytes; at most ", kMaxHeaderBytes, " are allowed",
        swapped <= rest ? " (written big-endian? the format is little-endian)" : " (not a safetensors file?)"));
  }
  return absl::DataLossError(absl::StrCat(Quoted(file.path()), " is truncated: its header has ", length,
                                          " bytes, but only ", rest,
                                          " follow the length field (an interrupted download? fetch it again)"));
}

absl::Status NotJson(const File& file, absl::string_view why, size_t offset) {
  return absl::DataLossError(
      absl::StrCat(Quoted(file.path()), ": the header is malformed: ", why, " at header byte ", offset));
}

absl::StatusOr<std::vector<HeaderEntry>> ParseHeader(const File& file, absl::string_view header) {
  // The first bytes of a large file of another kind may make a length that fits.
  if (header[0] != '{') AUTOSCHEME_RETURN_IF_ERROR(DescribeForeignFile(file));
  // RapidJSON takes a zero byte for the end of the text.
  if (const size_t nul = header.find('\0'); nul != absl::string_view::npos) {
    const bool padding = header.find_first_not_of('\0', nul) == absl::string_view::npos;
    return NotJson(file,
                   padding ? "padded with NUL bytes where the format requires spaces; write the file again with "
                             "a current safetensors library; NUL"
                           : "a NUL byte",
                   nul);
  }
  constexpr unsigned kFlags =
      rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag | rapidjson::kParseNumbersAsStringsFlag;
  HeaderHandler handler;
  rapidjson::MemoryStream stream(header.data(), header.size());
  rapidjson::Reader reader;
  const rapidjson::ParseResult parsed = reader.Parse<kFlags>(stream, handler);
  if (!handler.status().ok()) {
    return absl::Status(handler.status().code(), absl::StrCat(Quoted(file.path()), ": ", handler.status().message(),
                                                              " at header byte ", parsed.Offset()));
  }
  if (parsed.IsError()) return NotJson(file, rapidjson::GetParseError_En(parsed.Code()), parsed.Offset());
  return std::move(handler).TakeEntries();
}

// Names are compared here, after unescaping, so that two spellings of one name do not pass.
absl::Status CheckNames(const File& file, const std::vector<HeaderEntry>& entries) {
  std::vector<uint32_t> order(entries.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return entries[a].tensor.name < entries[b].tensor.name; });
  const auto same = std::adjacent_find(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return entries[a].tensor.name == entries[b].tensor.name;
  });
  if (same == order.end()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(Where(file, entries[*same]), " appears twice (duplicate name)"));
}

// shape x dtype must be the length of the byte range. A dimension of 0 excuses no overflow among the others, so that
// the order of the dimensions does not matter.
absl::Status CheckSizes(const File& file, const std::vector<HeaderEntry>& entries) {
  for (const HeaderEntry& entry : entries) {
    if (entry.end < entry.begin) {
      return absl::DataLossError(
          absl::StrCat(Where(file, entry), " has reversed data_offsets [", entry.begin, ", ", entry.end, "]"));
    }
    if (!entry.unknown_dtype.empty()) continue;
    const std::vector<int64_t>& shape = entry.tensor.shape;
    std::optional<uint64_t> bits = static_cast<uint64_t>(DtypeBits(entry.tensor.dtype));
    bool empty = false;
    for (int64_t dim : shape) {
      if (dim == 0) empty = true;
      if (dim != 0 && bits) bits = CheckedMul(*bits, static_cast<uint64_t>(dim));
    }
    const std::string shape_text = ShapeText(shape);
    if (!bits) {
      return absl::DataLossError(absl::StrCat(Where(file, entry), ": the size of shape ", shape_text, " overflows"));
    }
    if (empty) bits = 0;
    if (*bits % 8 != 0) {
      return absl::DataLossError(absl::StrCat(Where(file, entry), ": shape ", shape_text, " of ",
                                              DtypeName(entry.tensor.dtype), " is ", *bits,
                                              " bits, not a whole number of bytes"));
    }
    if (*bits / 8 != entry.end - entry.begin) {
      return absl::DataLossError(absl::StrCat(
          Where(file, entry), ": shape ", shape_text, " of ", DtypeName(entry.tensor.dtype), " takes ", *bits / 8,
          " bytes, but data_offsets [", entry.begin, ", ", entry.end, "] hold ", entry.end - entry.begin));
    }
  }
  return absl::OkStatus();
}

// The ranges must follow one another without hole or overlap and end where the file ends.
absl::Status CheckLayout(const File& file, const std::vector<HeaderEntry>& sorted, uint64_t data_bytes) {
  uint64_t end = 0;
  const HeaderEntry* previous = nullptr;
  for (const HeaderEntry& entry : sorted) {
    if (entry.begin != end) {
      return absl::DataLossError(
          absl::StrCat(Where(file, entry), " begins at data byte ", entry.begin, ", but ",
                       previous == nullptr
                           ? "the first tensor must begin at 0"
                           : absl::StrCat("the tensor before it, ", Quoted(previous->tensor.name), ", ends at ", end),
                       entry.begin > end ? " (a hole)" : " (an overlap)"));
    }
    if (entry.end > data_bytes) {
      return absl::DataLossError(absl::StrCat(Quoted(file.path()), " is truncated: tensor ", Quoted(entry.tensor.name),
                                              " ends at data byte ", entry.end, ", but the file holds ", data_bytes,
                                              " bytes of data (an interrupted download? fetch it again)"));
    }
    end = entry.end;
    previous = &entry;
  }
  if (end != data_bytes) {
    return absl::DataLossError(absl::StrCat(Quoted(file.path()), " has ", data_bytes - end,
                                            " extra bytes after the last tensor, which ends at data byte ", end, " of ",
                                            data_bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckDtypes(const File& file, const std::vector<HeaderEntry>& entries) {
  for (const HeaderEntry& entry : entries) {
    if (entry.unknown_dtype.empty()) continue;
    return absl::UnimplementedError(
        absl::StrCat(Where(file, entry), " has the unknown dtype ", Quoted(entry.unknown_dtype)));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace autoscheme
