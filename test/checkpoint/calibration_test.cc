#include "autoscheme/calibration.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "support/safetensors_writer.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

using absl::StatusCode;
using Catch::Matchers::Contains;

std::string LittleEndian(const std::vector<int64_t>& values, int bytes) {
  std::string out;
  for (int64_t value : values) {
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
  }
  return out;
}

std::string Npy(const std::string& dict, const std::string& data, int version = 1) {
  std::string header = dict + "\n";
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  return out + LittleEndian({static_cast<int64_t>(header.size())}, version == 1 ? 2 : 4) + header + data;
}

absl::StatusOr<Calibration> Read(const std::string& contents) {
  const TempDir dir;
  return ReadCalibration({}, dir.Write("tokens", contents));
}

void IsTwoByThree(const absl::StatusOr<Calibration>& calibration) {
  CAPTURE(calibration.status().ToString());
  REQUIRE(calibration.ok());
  CHECK(calibration->nsamples == 2);
  CHECK(calibration->seqlen == 3);
  CHECK(calibration->ids == std::vector<int32_t>{1, 2, 3, 4, 5, 2147483647});
}

void Refused(const std::string& contents, StatusCode code, const std::vector<std::string>& words) {
  const absl::Status status = Read(contents).status();
  CAPTURE(contents.substr(0, 200), status.ToString());
  CHECK(status.code() == code);
  for (const std::string& word : words) CHECK_THAT(std::string(status.message()), Contains(word));
}

const std::vector<int64_t> kIds = {1, 2, 3, 4, 5, 2147483647};

TEST_CASE("The same ids are read from JSON, .npy and safetensors") {
  IsTwoByThree(Read("[[1,2,3],[4,5,2147483647]]"));
  IsTwoByThree(Read(" {\"input_ids\": [[1,2,3],[4,5,2147483647]], \"attention_mask\": 1}\n"));
  const std::string shape = ", 'fortran_order': False, 'shape': (2, 3), }";
  IsTwoByThree(Read(Npy("{'descr': '<i8'" + shape, LittleEndian(kIds, 8))));
  IsTwoByThree(Read(Npy("{'descr': '<i4'" + shape, LittleEndian(kIds, 4))));
  IsTwoByThree(Read(Npy("{'descr': '<i4'" + shape, LittleEndian(kIds, 4), 2)));
  IsTwoByThree(Read(SafetensorsBytes({{"input_ids", "I64", {2, 3}, LittleEndian(kIds, 8)}})));
  IsTwoByThree(Read(SafetensorsBytes({{"x", "U8", {1}, "x"}, {"input_ids", "I32", {2, 3}, LittleEndian(kIds, 4)}})));
}

TEST_CASE("A safetensors file whose length begins like JSON is still one") {
  std::string header = R"({"input_ids":{"dtype":"I32","shape":[2,3],"data_offsets":[0,24]}})";
  header.resize('{', ' ');  // 123 bytes: the file's first byte is '{'
  IsTwoByThree(Read(SafetensorsRaw(header, LittleEndian(kIds, 4))));
}

TEST_CASE("Rows that are ragged, empty or hold no ids are named by number") {
  Refused("[[1,2],[3]]", StatusCode::kInvalidArgument, {"row 1 has 1", "row 0 has 2"});
  Refused("[]", StatusCode::kInvalidArgument, {"no rows"});
  Refused("[[]]", StatusCode::kInvalidArgument, {"row 0 is empty"});
  Refused("[[1],7]", StatusCode::kInvalidArgument, {"row 1 is not a list"});
  Refused("[[1,-2]]", StatusCode::kInvalidArgument, {"row 0, column 1 is -2"});
  Refused("[[1],[2147483648]]", StatusCode::kInvalidArgument, {"row 1, column 0 is 2147483648"});
  Refused("[[1,2.5]]", StatusCode::kInvalidArgument, {"row 0, column 1 is 2.5"});
  Refused("[[\"1\"]]", StatusCode::kInvalidArgument, {"row 0, column 0 is not a number"});
  Refused("{\"ids\":[[1]]}", StatusCode::kInvalidArgument, {"input_ids"});
  Refused("{\"input_ids\":7}", StatusCode::kInvalidArgument, {"input_ids"});
  Refused("17", StatusCode::kInvalidArgument, {"list of lists"});
}

TEST_CASE("Binary ids out of range are named by row and column") {
  Refused(SafetensorsBytes({{"input_ids", "I64", {2, 2}, LittleEndian({1, 2, 3, -1}, 8)}}),
          StatusCode::kInvalidArgument, {"row 1, column 1 is -1"});
  Refused(SafetensorsBytes({{"input_ids", "I64", {2, 2}, LittleEndian({1, 2, int64_t{1} << 31, 0}, 8)}}),
          StatusCode::kInvalidArgument, {"row 1, column 0 is 2147483648"});
  Refused(SafetensorsBytes({{"input_ids", "I32", {1, 2}, LittleEndian({1, -5}, 4)}}), StatusCode::kInvalidArgument,
          {"row 0, column 1 is -5"});
}

TEST_CASE("Arrays that are not two-dimensional integers are refused") {
  Refused(SafetensorsBytes({{"input_ids", "F32", {1, 1}, "abcd"}}), StatusCode::kInvalidArgument, {"F32"});
  Refused(SafetensorsBytes({{"input_ids", "I32", {1}, "abcd"}}), StatusCode::kInvalidArgument, {"[1]"});
  Refused(SafetensorsBytes({{"input_ids", "I32", {0, 4}, ""}}), StatusCode::kInvalidArgument, {"[0, 4]"});
  Refused(SafetensorsBytes({{"tokens", "I32", {1, 1}, "abcd"}}), StatusCode::kInvalidArgument, {"no tensor"});
  const std::string data = LittleEndian({1, 2}, 8);
  Refused(Npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }", data), StatusCode::kUnimplemented,
          {"<f8"});
  Refused(Npy("{'descr': '>i8', 'fortran_order': False, 'shape': (1, 2), }", data), StatusCode::kUnimplemented,
          {">i8"});
  Refused(Npy("{'descr': '<i8', 'fortran_order': True, 'shape': (1, 2), }", data), StatusCode::kUnimplemented,
          {"Fortran"});
  Refused(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }", data), StatusCode::kInvalidArgument,
          {"[2]"});
}

TEST_CASE("Malformed files are DATA_LOSS") {
  const std::string data = LittleEndian({1, 2}, 8);
  Refused("", StatusCode::kDataLoss, {"JSON"});
  Refused("[[1,2]", StatusCode::kDataLoss, {"JSON"});
  Refused("\x93NUMPY", StatusCode::kDataLoss, {"6 bytes"});
  Refused(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 3), }", data), StatusCode::kDataLoss,
          {"24 bytes", "16 follow"});
  Refused(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1, -2), }", data), StatusCode::kDataLoss, {"-2"});
  Refused(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': 2, }", data), StatusCode::kDataLoss, {"tuple"});
  Refused(Npy("{'descr': '<i8', 'fortran_order': False}", data), StatusCode::kDataLoss, {"\"shape\""});
  Refused(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807), }", data),
          StatusCode::kDataLoss, {"more than 2^64"});
  Refused(std::string("\x93NUMPY\x01\x00\xff\xff{'descr'", 19), StatusCode::kDataLoss, {"65535"});
  Refused(Npy("{}", "", 9), StatusCode::kUnimplemented, {"version 9"});
  Refused(SafetensorsBytes({{"input_ids", "I32", {1, 1}, "abcd"}}) + "x", StatusCode::kDataLoss, {"1 extra"});
}

TEST_CASE("A missing file is NOT_FOUND") {
  const TempDir dir;
  CHECK(ReadCalibration({}, dir / "none.json").status().code() == StatusCode::kNotFound);
  CHECK(ReadCalibration({}, dir.path()).status().code() == StatusCode::kInvalidArgument);
}

TEST_CASE("Every prefix and bit flip of an .npy file gives a status", "[hostile]") {
  const TempDir dir;
  const std::string valid = Npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }", LittleEndian(kIds, 4));
  for (size_t length = 0; length < valid.size(); ++length) {
    REQUIRE_FALSE(ReadCalibration({}, dir.Write("t", valid.substr(0, length))).ok());
  }
  for (size_t bit = 0; bit < valid.size() * 8; ++bit) {
    std::string flipped = valid;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const absl::StatusOr<Calibration> calibration = ReadCalibration({}, dir.Write("t", flipped));
    if (calibration.ok()) REQUIRE(calibration->ids.size() == 6);
  }
}

TEST_CASE("Truncate keeps the first rows and the first ids of each") {
  const Calibration all = *Read("[[1,2,3],[4,5,6],[7,8,9]]");
  const Calibration some = *Truncate(all, 2, 2);
  CHECK(some.nsamples == 2);
  CHECK(some.seqlen == 2);
  CHECK(some.ids == std::vector<int32_t>{1, 2, 4, 5});
  CHECK(Truncate(all, 0, 1)->ids == std::vector<int32_t>{1, 4, 7});
  CHECK(Truncate(all, 1, 0)->ids == std::vector<int32_t>{1, 2, 3});
  CHECK(Truncate(all, 0, 0)->ids == all.ids);
  for (const auto& [rows, columns] : {std::pair{4, 0}, {0, 4}, {-1, 0}, {0, -1}}) {
    CHECK(Truncate(all, rows, columns).status().code() == StatusCode::kInvalidArgument);
  }
  CHECK_THAT(std::string(Truncate(all, 4, 3).status().message()), Contains("4 rows") && Contains("3 rows"));
}

TEST_CASE("The hash is that of the ids as little-endian int64") {
  // printf of the bytes of [[1,2,3],[4,5,6]] as int64, through sha256sum.
  CHECK(Sha256(*Read("[[1,2,3],[4,5,6]]")) == "5f544d51f4618ae3c5c6bcc2bbb9a8f64f63585665c1440d3075790d5e00ccbd");
  CHECK(Sha256(*Read("[[1,2,3],[4,5,6]]")) == Sha256(*Read("[[1,2],[3,4],[5,6]]")));
  CHECK(Sha256(*Read("[[1]]")) != Sha256(*Read("[[2]]")));
}

TEST_CASE("Tokens of the tiny models are valid calibration data") {
  const absl::StatusOr<Calibration> calibration = Read(TinyTokens(3, 5, 64));
  REQUIRE(calibration.ok());
  CHECK(calibration->nsamples == 3);
  CHECK(calibration->seqlen == 5);
  for (int32_t id : calibration->ids) CHECK((id >= 0 && id < 64));
}

}  // namespace
}  // namespace autoscheme
