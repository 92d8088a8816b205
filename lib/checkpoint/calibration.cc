#include "autoscheme/calibration.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/count.h"
#include "base/io.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "checkpoint/calibration_json.h"
#include "checkpoint/file_kind.h"
#include "checkpoint/npy.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/token_rows.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;

absl::StatusOr<Calibration> FromNpy(const File& file);
absl::StatusOr<Calibration> FromSafetensors(const File& file, const CalibrationPart& part, const Context& context);
absl::StatusOr<Calibration> FromText(Io& io, const File& file, const FileKind& kind, const CalibrationPart& part,
                                     const Context& context);
absl::StatusOr<Calibration> Cut(Calibration calibration, const CalibrationPart& part);
absl::Status Foreign(const File& file, const FileKind& kind);

// A little-endian integer of `size` <= 8 bytes.
uint64_t Load(const void* bytes, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<const unsigned char*>(bytes)[i];
  return value;
}

}  // namespace

absl::StatusOr<Calibration> ReadCalibration(const Context& context, const std::string& path,
                                            const CalibrationPart& part) {
  AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
  Io& io = IoOf(context);
  AUTOSCHEME_ASSIGN_OR_RETURN(const File file, File::OpenRead(io, path));
  std::string head(std::min<uint64_t>(file.size(), 9), '\0');
  AUTOSCHEME_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(head.data()), head.size())));
  // Before text: a header of 123 bytes makes a safetensors file begin with '{'. No text has the length's zero bytes.
  const bool has_length = head.size() >= 8 && Load(head.data(), 8) <= file.size() - 8;
  const bool is_safetensors = has_length && head.size() == 9 && head[8] == '{', is_npy = IsNpy(head);
  FileKind kind;
  if (!is_safetensors && !is_npy) {
    AUTOSCHEME_ASSIGN_OR_RETURN(kind, RecognizeFile(file));
  }
  AUTOSCHEME_RETURN_IF_ERROR(Foreign(file, kind));
  if (file.size() > kMaxFileBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Quoted(path), " has ", file.size(), " bytes; at most ", kMaxFileBytes, " are accepted"));
  }
  absl::StatusOr<Calibration> whole;
  if (is_npy) {
    whole = FromNpy(file);
  } else if (is_safetensors || (has_length && kind.sort == FileKind::kUnknown)) {
    whole = FromSafetensors(file, part, context);
  } else {
    whole = FromText(io, file, kind, part, context);
  }
  return whole.ok() ? Cut(*std::move(whole), part) : whole;
}

absl::StatusOr<Calibration> HoldBack(Calibration& calibration, int64_t rows) {
  const int64_t held_rows = rows == 0 ? std::max<int64_t>(calibration.nsamples / 4, 1) : rows;
  if (held_rows < 0 || held_rows >= calibration.nsamples) {
    return absl::InvalidArgumentError(absl::StrCat(Count(held_rows, "row"), " cannot be held back of ",
                                                   calibration.nsamples, ": at least one must stay"));
  }
  const auto first = calibration.ids.end() - held_rows * calibration.seqlen;
  Calibration held{held_rows, calibration.seqlen, {first, calibration.ids.end()}};
  calibration.ids.erase(first, calibration.ids.end());
  calibration.nsamples -= held_rows;
  return held;
}

absl::StatusOr<Calibration> Truncate(Calibration calibration, int64_t nsamples, int64_t seqlen) {
  if (nsamples < 0 || seqlen < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("nsamples ", nsamples, " and seqlen ", seqlen, " must not be negative; 0 keeps all"));
  }
  const int64_t rows = nsamples == 0 ? calibration.nsamples : nsamples;
  const int64_t columns = seqlen == 0 ? calibration.seqlen : seqlen;
  if (rows > calibration.nsamples || columns > calibration.seqlen) {
    return absl::InvalidArgumentError(absl::StrCat("asked for ", Count(rows, "row"), " of ", Count(columns, "token id"),
                                                   ", but the calibration data has ",
                                                   Count(calibration.nsamples, "row"), " of ", calibration.seqlen));
  }
  if (columns != calibration.seqlen) {
    auto to = calibration.ids.begin();
    for (int64_t row = 0; row < rows; ++row) {
      const auto from = calibration.ids.begin() + row * calibration.seqlen;
      to = std::copy(from, from + columns, to);  // never overtakes what is still to be read
    }
  }
  calibration.nsamples = rows;
  calibration.seqlen = columns;
  calibration.ids.resize(static_cast<size_t>(rows * columns));
  return calibration;
}

std::string Sha256(const Calibration& calibration) {
  Sha256Hasher hasher;
  for (int32_t id : calibration.ids) {
    const uint64_t wide = static_cast<uint64_t>(int64_t{id});
    unsigned char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<unsigned char>(wide >> (8 * i));
    hasher.Update(bytes, sizeof(bytes));
  }
  return hasher.HexDigest();
}

namespace {

absl::StatusOr<Calibration> Cut(Calibration calibration, const CalibrationPart& part) {
  int64_t rows = part.nsamples;
  const int64_t seqlen = part.seqlen == 0 ? calibration.seqlen : part.seqlen;
  if (part.max_tokens < 0 || (part.max_tokens > 0 && part.max_tokens < seqlen)) {
    return absl::InvalidArgumentError(absl::StrCat("max_tokens is ", part.max_tokens, ", less than one row of ",
                                                   Count(static_cast<uint64_t>(seqlen), "id"),
                                                   ": raise it or give a smaller seqlen"));
  }
  if (part.max_tokens > 0) {
    rows = std::min(rows == 0 ? calibration.nsamples : rows, part.max_tokens / seqlen);
  }
  return Truncate(std::move(calibration), rows, part.seqlen);
}

std::string IsInstead(const File& file, absl::string_view what, absl::string_view remedy) {
  return absl::StrCat(Quoted(file.path()), " is ", what, ": ", remedy, "; ", kAcceptedTokens);
}

// OK for text, which may be JSON, and for what is not recognized.
absl::Status Foreign(const File& file, const FileKind& kind) {
  absl::string_view remedy = Remedy(kind.sort);
  switch (kind.sort) {
    case FileKind::kLfsPointer:
    case FileKind::kPage: return absl::DataLossError(IsInstead(file, kind.name, remedy));
    case FileKind::kWideText:
    case FileKind::kCompressed: break;
    case FileKind::kModel:
      remedy = "this is no calibration (an importance matrix is given as --imatrix, option imatrix_file)";
      break;
    case FileKind::kArrays:
      remedy = "open it with what has written it and save the ids, as by numpy.save(\"tokens.npy\", ids)";
      break;
    default: return absl::OkStatus();
  }
  return absl::UnimplementedError(IsInstead(file, kind.name, remedy));
}

absl::StatusOr<Calibration> FromText(Io& io, const File& file, const FileKind& kind, const CalibrationPart& part,
                                     const Context& context) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string contents, ReadFileToString(io, file.path(), kMaxFileBytes));
  const absl::string_view text = absl::StripPrefix(contents, "\xef\xbb\xbf");  // a byte order mark
  const absl::StatusOr<Json> json = ParseJson(text, Quoted(file.path()));
  if (json.ok()) return CalibrationFromJson(*json, file.path(), part, context);
  absl::string_view what = kind.name, remedy;
  if (IsJsonLines(text)) {
    what = "JSON Lines, a value in each line";
    remedy =
        "make one list of the lines (`jq -s . FILE`); text in them is first to be encoded with the model's tokenizer";
  } else if (kind.sort == FileKind::kNumbers) {
    remedy = "save the ids, as by numpy.save(\"tokens.npy\", numpy.loadtxt(FILE, dtype=int, delimiter=\",\"))";
  } else if (kind.sort == FileKind::kText) {
    remedy = "encode it with the model's tokenizer and save the ids";
  } else if (kind.sort == FileKind::kUnknown && !text.empty()) {
    what = "neither text nor a file of a known kind";
    remedy = "save the ids, as by numpy.save(\"tokens.npy\", ids)";
  } else {
    return json.status();
  }
  return absl::UnimplementedError(IsInstead(file, what, remedy));
}

// Little-endian items of 4 or 8 bytes from `offset` on.
absl::StatusOr<Calibration> FromIntegers(const File& file, const std::vector<int64_t>& shape, size_t item_bytes,
                                         uint64_t offset) {
  if (shape.size() != 2 || shape[0] == 0 || shape[1] == 0) return BadTokenShape(file.path(), shape);
  Calibration calibration;
  calibration.nsamples = shape[0];
  calibration.seqlen = shape[1];
  calibration.ids.resize(static_cast<size_t>(shape[0] * shape[1]));
  std::vector<std::byte> buffer(std::min<size_t>(calibration.ids.size(), 65536) * item_bytes);
  for (size_t done = 0; done < calibration.ids.size();) {
    const size_t count = std::min(buffer.size() / item_bytes, calibration.ids.size() - done);
    AUTOSCHEME_RETURN_IF_ERROR(
        file.ReadAt(offset + done * item_bytes, absl::MakeSpan(buffer.data(), count * item_bytes)));
    for (size_t i = 0; i < count; ++i, ++done) {
      const std::byte* item = buffer.data() + i * item_bytes;
      const int64_t id = item_bytes == 8 ? static_cast<int64_t>(Load(item, 8))
                                         : static_cast<int32_t>(static_cast<uint32_t>(Load(item, 4)));
      if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
        const auto at = static_cast<int64_t>(done);
        return BadTokenId(file.path(), at / calibration.seqlen, at % calibration.seqlen, absl::StrCat(id));
      }
      calibration.ids[done] = static_cast<int32_t>(id);
    }
  }
  AUTOSCHEME_RETURN_IF_ERROR(file.CheckUnchanged());
  return calibration;
}

absl::StatusOr<Calibration> FromNpy(const File& file) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const NpyHeader header, ReadNpyHeader(file));
  return FromIntegers(file, header.shape, static_cast<size_t>(header.item_bytes), header.data_offset);
}

// A number of a type that masks and labels have; nothing for other types.
std::optional<double> Number(const std::byte* item, Dtype dtype) {
  const uint64_t bits = Load(item, static_cast<size_t>(DtypeBits(dtype)) / 8);
  switch (dtype) {
    case Dtype::kBool:
    case Dtype::kU8:
    case Dtype::kU16:
    case Dtype::kU32:
    case Dtype::kU64: return static_cast<double>(bits);
    case Dtype::kI8: return static_cast<int8_t>(bits);
    case Dtype::kI16: return static_cast<int16_t>(bits);
    case Dtype::kI32: return static_cast<int32_t>(bits);
    case Dtype::kI64: return static_cast<double>(static_cast<int64_t>(bits));
    case Dtype::kBF16:
    case Dtype::kF32: {
      const uint32_t word = static_cast<uint32_t>(dtype == Dtype::kBF16 ? bits << 16 : bits);
      float value;
      std::memcpy(&value, &word, sizeof(value));
      return value;
    }
    case Dtype::kF64: {
      double value;
      std::memcpy(&value, &bits, sizeof(value));
      return value;
    }
    default: return std::nullopt;
  }
}

absl::Status CheckCompanion(const File& file, const TensorInfo& tensor, const Calibration& calibration,
                            const CalibrationPart& part) {
  CompanionCheck check(file.path(), tensor.name, calibration, part);
  if (tensor.shape != std::vector<int64_t>{calibration.nsamples, calibration.seqlen}) {
    return check.BadShape(absl::StrCat("the shape [", absl::StrJoin(tensor.shape, ", "), "]"));
  }
  const size_t item_bytes = static_cast<size_t>(DtypeBits(tensor.dtype)) / 8;
  std::vector<std::byte> row(static_cast<size_t>(calibration.seqlen) * item_bytes);
  for (int64_t i = 0; i < calibration.nsamples; ++i) {
    AUTOSCHEME_RETURN_IF_ERROR(file.ReadAt(tensor.offset + static_cast<uint64_t>(i) * row.size(), absl::MakeSpan(row)));
    for (int64_t k = 0; k < calibration.seqlen; ++k) {
      const std::optional<double> value = Number(row.data() + static_cast<size_t>(k) * item_bytes, tensor.dtype);
      if (!value.has_value()) return check.BadShape(absl::StrCat("the type ", DtypeName(tensor.dtype)));
      check.See(i, k, *value);
    }
  }
  return check.Finish();
}

absl::StatusOr<Calibration> FromSafetensors(const File& file, const CalibrationPart& part, const Context& context) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(file));
  const auto ids = std::find_if(header.tensors.begin(), header.tensors.end(),
                                [](const TensorInfo& t) { return t.name == "input_ids"; });
  if (ids == header.tensors.end()) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(file.path()), " holds no tensor \"input_ids\""));
  }
  if (ids->dtype != Dtype::kI32 && ids->dtype != Dtype::kI64) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(file.path()), ": \"input_ids\" is ", DtypeName(ids->dtype), ", not I32 or I64"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(Calibration calibration,
                              FromIntegers(file, ids->shape, ids->dtype == Dtype::kI64 ? 8 : 4, ids->offset));
  std::vector<std::string> unused;
  for (const TensorInfo& tensor : header.tensors) {
    if (CompanionCheck::Knows(tensor.name)) {
      AUTOSCHEME_RETURN_IF_ERROR(CheckCompanion(file, tensor, calibration, part));
    } else if (tensor.name != ids->name) {
      unused.push_back(tensor.name);
    }
  }
  WarnOfUnused(context, file.path(), unused);
  return calibration;
}

}  // namespace
}  // namespace autoscheme
