#include "autoscheme/calibration.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/count.h"
#include "base/io.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "checkpoint/npy.h"
#include "checkpoint/safetensors.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;

absl::StatusOr<Calibration> FromJson(const std::string& text, const std::string& path);
absl::StatusOr<Calibration> FromNpy(const File& file);
absl::StatusOr<Calibration> FromSafetensors(const File& file);

// A little-endian integer of `size` <= 8 bytes.
uint64_t Load(const void* bytes, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<const unsigned char*>(bytes)[i];
  return value;
}

}  // namespace

absl::StatusOr<Calibration> ReadCalibration(const Context& context, const std::string& path) {
  AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
  Io& io = IoOf(context);
  AUTOSCHEME_ASSIGN_OR_RETURN(const File file, File::OpenRead(io, path));
  if (file.size() > kMaxFileBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Quoted(path), " has ", file.size(), " bytes; at most ", kMaxFileBytes, " are accepted"));
  }
  std::string head(std::min<uint64_t>(file.size(), 8), '\0');
  AUTOSCHEME_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(reinterpret_cast<std::byte*>(head.data()), head.size())));
  if (IsNpy(head)) return FromNpy(file);
  // Before JSON: a header of 123 bytes makes the file begin with '{'. No JSON text has the length's zero bytes.
  if (head.size() == 8 && Load(head.data(), 8) <= file.size() - 8) return FromSafetensors(file);
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string text, ReadFileToString(io, path, kMaxFileBytes));
  return FromJson(text, path);
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

absl::Status BadId(const std::string& path, int64_t row, int64_t column, const std::string& found) {
  return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": row ", row, ", column ", column, " is ", found,
                                                 ", not a token id from 0 to ", std::numeric_limits<int32_t>::max()));
}

absl::StatusOr<Calibration> FromJson(const std::string& text, const std::string& path) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const Json json, ParseJson(text, Quoted(path)));
  const JsonValue* rows = &json;
  if (json.IsObject()) rows = JsonFind(json, "input_ids");
  if (rows == nullptr || !rows->IsArray()) {
    return absl::InvalidArgumentError(absl::StrCat(
        Quoted(path), " is neither a list of lists of token ids nor an object whose \"input_ids\" is one"));
  }
  if (rows->Empty()) return absl::InvalidArgumentError(absl::StrCat(Quoted(path), " holds no rows of token ids"));

  Calibration calibration;
  for (const JsonValue& row : rows->GetArray()) {
    const int64_t number = calibration.nsamples++;
    if (!row.IsArray() || row.Empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Quoted(path), ": row ", number, row.IsArray() ? " is empty" : " is not a list of token ids"));
    }
    if (number == 0) {
      calibration.seqlen = row.Size();
      calibration.ids.reserve(size_t{rows->Size()} * row.Size());
    }
    if (row.Size() != calibration.seqlen) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(path), ": row ", number, " has ", row.Size(),
                                                     " token ids, row 0 has ", calibration.seqlen,
                                                     "; all rows must be equally long"));
    }
    int64_t column = 0;
    for (const JsonValue& id : row.GetArray()) {
      if (!id.IsInt() || id.GetInt() < 0) {
        return BadId(path, number, column,
                     id.IsInt64()    ? absl::StrCat(id.GetInt64())
                     : id.IsNumber() ? absl::StrCat(id.GetDouble())
                                     : "not a number");
      }
      calibration.ids.push_back(id.GetInt());
      ++column;
    }
  }
  return calibration;
}

// Little-endian items of 4 or 8 bytes from `offset` on.
absl::StatusOr<Calibration> FromIntegers(const File& file, const std::vector<int64_t>& shape, size_t item_bytes,
                                         uint64_t offset) {
  if (shape.size() != 2 || shape[0] == 0 || shape[1] == 0) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(file.path()), ": the token ids have shape [",
                                                   absl::StrJoin(shape, ", "),
                                                   "], not two dimensions with at least one id"));
  }
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
        return BadId(file.path(), at / calibration.seqlen, at % calibration.seqlen, absl::StrCat(id));
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

absl::StatusOr<Calibration> FromSafetensors(const File& file) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const SafetensorsHeader header, ReadSafetensorsHeader(file));
  const auto tensor = std::find_if(header.tensors.begin(), header.tensors.end(),
                                   [](const TensorInfo& t) { return t.name == "input_ids"; });
  if (tensor == header.tensors.end()) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(file.path()), " holds no tensor \"input_ids\""));
  }
  if (tensor->dtype != Dtype::kI32 && tensor->dtype != Dtype::kI64) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(file.path()), ": \"input_ids\" is ", DtypeName(tensor->dtype), ", not I32 or I64"));
  }
  return FromIntegers(file, tensor->shape, tensor->dtype == Dtype::kI64 ? 8 : 4, tensor->offset);
}

}  // namespace
}  // namespace autoscheme
