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
  IsTwoByThree(Read(" {\"input_ids\": [[1,2,3],[4,5,2147483647]], \"attention_mask\": null}\n"));
  const std::string shape = ", 'fortran_order': False, 'shape': (2, 3), }";
  IsTwoByThree(Read(Npy("{'descr': '<i8'" + shape, LittleEndian(kIds, 8))));
  IsTwoByThree(Read(Npy("{'descr': '<i4'" + shape, LittleEndian(kIds, 4))));
  IsTwoByThree(Read(Npy("{'descr': '<i4'" + shape, LittleEndian(kIds, 4), 2)));
  IsTwoByThree(Read(SafetensorsBytes({{"input_ids", "I64", {2, 3}, LittleEndian(kIds, 8)}})));
  IsTwoByThree(Read(SafetensorsBytes({{"x", "U8", {1}, "x"}, {"input_ids", "I32", {2, 3}, LittleEndian(kIds, 4)}})));
}

TEST_CASE("Whole numbers may be written as floats, other floats are named by row and column") {
  IsTwoByThree(Read("[[1.0,2,3e0],[4,5.00,2147483647.0]]"));
  Refused("[[1.0,77.5]]", StatusCode::kInvalidArgument, {"row 0, column 1 is 77.5"});
  Refused("[[1],[-1.0]]", StatusCode::kInvalidArgument, {"row 1, column 0 is -1"});
  Refused("[[2147483648.0]]", StatusCode::kInvalidArgument, {"row 0, column 0 is 2147483648"});
  Refused("[[1e300]]", StatusCode::kInvalidArgument, {"row 0, column 0 is 1e+300"});
  Refused("[[true]]", StatusCode::kInvalidArgument, {"row 0, column 0 is not a number"});
}

TEST_CASE("Rows of a dataset are read, and JSON with a byte order mark") {
  IsTwoByThree(Read("[{\"input_ids\":[1,2,3]},{\"attention_mask\":[1,1,1],\"input_ids\":[4,5,2147483647]}]"));
  IsTwoByThree(Read("\xef\xbb\xbf[[1,2,3],[4,5,2147483647]]"));
  Refused("[{\"input_ids\":[1,2]},{\"text\":\"a\"}]", StatusCode::kInvalidArgument, {"row 1 has no \"input_ids\""});
  Refused("[{\"input_ids\":[1,2]},[3,4]]", StatusCode::kInvalidArgument, {"row 1 is not an object"});
  Refused("[{\"text\":\"a\",\"id\":7}]", StatusCode::kInvalidArgument,
          {"no \"input_ids\"", "\"text\", \"id\"", "list of equally long lists"});
}

// Beside the ids [[1,2,3],[4,5,2147483647]], in every form that can hold it.
void WithCompanion(const std::string& name, const std::vector<int64_t>& values, const std::vector<std::string>& words) {
  const auto list = [](const std::vector<int64_t>& v, size_t row) {
    return "[" + std::to_string(v[3 * row]) + "," + std::to_string(v[3 * row + 1]) + "," +
           std::to_string(v[3 * row + 2]) + "]";
  };
  std::vector<std::string> files = {"{\"" + name + "\":[" + list(values, 0) + "," + list(values, 1) +
                                        "],\"input_ids\":[" + list(kIds, 0) + "," + list(kIds, 1) + "]}",
                                    "[{\"input_ids\":" + list(kIds, 0) + ",\"" + name + "\":" + list(values, 0) +
                                        "},{\"input_ids\":" + list(kIds, 1) + ",\"" + name + "\":" + list(values, 1) +
                                        "}]"};
  for (const auto& [type, bytes] : {std::pair<const char*, int>{"I64", 8}, {"I32", 4}}) {
    files.push_back(SafetensorsBytes(
        {{name, type, {2, 3}, LittleEndian(values, bytes)}, {"input_ids", "I64", {2, 3}, LittleEndian(kIds, 8)}}));
  }
  for (const std::string& file : files) {
    if (words.empty()) {
      IsTwoByThree(Read(file));
    } else {
      Refused(file, StatusCode::kInvalidArgument, words);
    }
  }
}

TEST_CASE(
    "Padding, labels and positions beside the ids pass when they say what is done anyway, else the row is named") {
  WithCompanion("attention_mask", {1, 1, 1, 1, 1, 1}, {});
  WithCompanion("attention_mask", {1, 1, 1, 0, 0, 1},
                {"row 1 of attention_mask is not 1 at 2 of 3 positions", "0 at column 0", "padding"});
  WithCompanion("attention_mask", {0, 0, 1, 1, 1, 0}, {"row 0", "at 2 of 3", "in 1 further row", "without padding"});
  WithCompanion("attention_mask", {1, 1, 1, 1, 1, 2}, {"row 1", "2 at column 2"});
  WithCompanion("labels", kIds, {});
  WithCompanion("labels", {-100, -100, 3, 4, 5, 2147483647},
                {"row 0 of labels is not the token id at 2 of 3", "-100 at column 0, where the id is 1"});
  WithCompanion("labels", {2, 3, 4, 5, 2147483647, 7},
                {"row 0 of labels", "2 at column 0, where the id is 1", "in 1 further row"});
  WithCompanion("loss_mask", {1, 1, 1, 1, 1, 0}, {"row 1 of loss_mask", "at 1 of 3"});
  WithCompanion("position_ids", {0, 1, 2, 0, 1, 2}, {});
  WithCompanion("position_ids", {0, 1, 2, 0, 0, 1}, {"row 1 of position_ids", "at 2 of 3", "0 at column 1"});
  WithCompanion("token_type_ids", {0, 0, 0, 0, 0, 0}, {});
  WithCompanion("token_type_ids", {0, 0, 0, 0, 0, 1}, {"row 1 of token_type_ids"});
}

TEST_CASE("What lies outside of the part that is read may be padding") {
  const std::string json = "{\"input_ids\":[[1,2,3],[4,5,6],[7,8,9]],\"mask\":[[1,1,0],[1,0,0],[0,0,0]]}";
  const std::string tensors =
      SafetensorsBytes({{"input_ids", "I32", {3, 3}, LittleEndian({1, 2, 3, 4, 5, 6, 7, 8, 9}, 4)},
                        {"mask", "U8", {3, 3}, std::string("\1\1\0\1\0\0\0\0\0", 9)}});
  const TempDir dir;
  for (const std::string& text : {json, tensors}) {
    const std::string path = dir.Write("tokens", text);
    const auto read = [&](const CalibrationPart& part) { return ReadCalibration({}, path, part); };
    CHECK(read({1, 2, 0})->ids == std::vector<int32_t>{1, 2});
    CHECK(read({2, 1, 0})->ids == std::vector<int32_t>{1, 4});
    CHECK(read({0, 1, 2})->ids == std::vector<int32_t>{1, 4});
    CHECK_THAT(std::string(read({2, 2, 0}).status().message()), Catch::Contains("row 1 of mask is not 1 at 1 of 2"));
    CHECK_THAT(std::string(read({}).status().message()), Catch::Contains("row 0 of mask is not 1 at 1 of 3"));
    CHECK_THAT(std::string(read({0, 1, 0}).status().message()), Catch::Contains("row 2 of mask is not 1 at 1 of 1"));
    CHECK_THAT(std::string(read({1, 2, 1}).status().message()), Catch::Contains("less than one row of 2 ids"));
  }
  const absl::Status longer = ReadCalibration({}, dir.Write("plain", "[[1,2,3]]"), {1, 9, 0}).status();
  CHECK_THAT(std::string(longer.message()), Catch::Contains("asked for 1 row of 9"));
}

TEST_CASE("A mask may be of truth values or floats, and must have a number for each id") {
  IsTwoByThree(Read("{\"input_ids\":[[1,2,3],[4,5,2147483647]],\"attention_mask\":[[true,true,1],[1.0,1,1]]}"));
  const auto refused = [](const std::string& mask, const std::string& words) {
    Refused("{\"input_ids\":[[1,2],[4,5]],\"attention_mask\":" + mask + "}", StatusCode::kInvalidArgument,
            {"attention_mask has " + words, "2 x 2"});
  };
  refused("1", "no rows");
  refused("[[1,1]]", "1 rows");
  refused("[[1,1],1]", "no list at row 1");
  refused("[[1,1],[1]]", "1 values in row 1");
  refused("[[1,1],[1,\"1\"]]", "no number at row 1, column 1");
  const RawTensor ids{"input_ids", "I32", {1, 2}, LittleEndian({7, 8}, 4)};
  CHECK(Read(SafetensorsBytes({ids, {"attention_mask", "BOOL", {1, 2}, "\1\1"}})).ok());
  CHECK(
      Read(SafetensorsBytes({ids, {"attention_mask", "F32", {1, 2}, LittleEndian({0x3f800000, 0x3f800000}, 4)}})).ok());
  Refused(SafetensorsBytes({ids, {"attention_mask", "BOOL", {1, 2}, std::string("\1\0", 2)}}),
          StatusCode::kInvalidArgument, {"0 at column 1"});
  Refused(SafetensorsBytes({ids, {"attention_mask", "U8", {2}, "\1\1"}}), StatusCode::kInvalidArgument,
          {"the shape [2]"});
  Refused(SafetensorsBytes({ids, {"attention_mask", "F8_E4M3", {1, 2}, "ab"}}), StatusCode::kInvalidArgument,
          {"the type F8_E4M3"});
}

TEST_CASE("What else stands beside the ids is named in one warning") {
  const auto warnings = [](const std::string& contents) {
    const TempDir dir;
    std::vector<std::string> all;
    Context context;
    context.log = [&](LogLevel, absl::string_view text) { all.emplace_back(text); };
    CHECK(ReadCalibration(context, dir.Write("tokens", contents)).ok());
    return all;
  };
  CHECK(warnings("{\"input_ids\":[[1]],\"attention_mask\":[[1]],\"x\":null}").empty());
  const auto named = warnings("[{\"input_ids\":[1],\"text\":\"a\"},{\"input_ids\":[1],\"url\":\"b\"}]");
  REQUIRE(named.size() == 1);
  CHECK_THAT(named[0], Contains("\"text\", \"url\""));
  const RawTensor ids{"input_ids", "I32", {1, 1}, LittleEndian({7}, 4)};
  CHECK(warnings(SafetensorsBytes({ids, {"special_tokens_mask", "U8", {1}, "x"}})).size() == 1);
}

TEST_CASE("Ids of other than two dimensions are told their shape and how to mend it") {
  Refused("[[[1,2]],[[3,4]],[[5,6]]]", StatusCode::kInvalidArgument, {"[3, 1, 2]", "reshape(3, 2)"});
  Refused("[[[1,2],[3,4],[5,6]]]", StatusCode::kInvalidArgument, {"[1, 3, 2]", "reshape(3, 2)"});
  Refused("{\"input_ids\":[[[1,2],[3,4]],[[5,6],[7,8]]]}", StatusCode::kInvalidArgument,
          {"[2, 2, 2]", "reshape(-1, 2)"});
  Refused("[[[1,2,3]]]", StatusCode::kInvalidArgument, {"[1, 1, 3]", "reshape(1, 3)"});
  Refused("[1,2,3]", StatusCode::kInvalidArgument, {"[3]", "[[...]]"});
  Refused("[\"some text\"]", StatusCode::kInvalidArgument, {"holds text", "tokenizer"});
  Refused(SafetensorsBytes({{"input_ids", "I32", {1, 1, 2}, LittleEndian({1, 2}, 4)}}), StatusCode::kInvalidArgument,
          {"[1, 1, 2]", "reshape(1, 2)"});
}

TEST_CASE("Files of other kinds are recognized by their bytes, with what is accepted and what to do") {
  using namespace std::string_literals;
  const std::string rest(64, '\0'), zip = "PK\3\4\24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s;
  struct Case {
    std::string contents;
    StatusCode code;
    std::vector<std::string> words;
  };
  const std::string random = "\x93\x01\x00\x05garbled\x02"s + rest;
  const std::string imatrix = LittleEndian({1, 19}, 4) + "blk.0.attn_q.weight" + rest;
  for (const Case& c : std::vector<Case>{
           {"{\"text\": \"a\"}\n{\"text\": \"b\"}\n", StatusCode::kUnimplemented, {"JSON Lines", "jq -s"}},
           {"[1,2]\n[3,4]\n", StatusCode::kUnimplemented, {"JSON Lines"}},
           {"It was a dark night.\nIt rained.\n", StatusCode::kUnimplemented, {"plain text", "tokenizer"}},
           {"1,2,3\n4,5,6\n", StatusCode::kUnimplemented, {"CSV", "loadtxt"}},
           {"id;text\n1;one\n", StatusCode::kUnimplemented, {"CSV"}},
           {"1 2 3\n4 5 6\n", StatusCode::kUnimplemented, {"numbers as text"}},
           {"\xff\xfe[\0[\0"s + "1\0]\0]\0"s, StatusCode::kUnimplemented, {"UTF-16", "iconv"}},
           {"[\0[\0001\0,\0002\0]\0]\0"s, StatusCode::kUnimplemented, {"UTF-16"}},
           {zip + "\x09\0\0\0ids_0.npy"s + rest, StatusCode::kUnimplemented, {".npz", "numpy.save"}},
           {zip + "\x10\0\0\0archive/data.pkl"s + rest, StatusCode::kUnimplemented, {"PyTorch", "numpy.save"}},
           {zip + "\x08\0\0\0tok.json"s + rest, StatusCode::kUnimplemented, {"zip archive"}},
           {"\x80\x04\x95"s + rest, StatusCode::kUnimplemented, {"pickle", "never opened"}},
           {"PAR1\x15\x04"s + rest, StatusCode::kUnimplemented, {"Parquet", "numpy.save"}},
           {"ARROW1\0\0"s + rest, StatusCode::kUnimplemented, {"Arrow"}},
           {"\xff\xff\xff\xff\x38\x01\0\0"s + rest, StatusCode::kUnimplemented, {"Arrow stream"}},
           {"FEA1"s + rest, StatusCode::kUnimplemented, {"Feather"}},
           {"\x1f\x8b\x08\x00\0\0\0\0\x02\xff"s + std::string(600000, 'x'),
            StatusCode::kUnimplemented,
            {"gzip", "unpack"}},
           {"\x28\xb5\x2f\xfd\x24"s + rest, StatusCode::kUnimplemented, {"Zstandard", "unpack"}},
           {"GGUF\3\0\0\0"s + rest, StatusCode::kUnimplemented, {"GGUF", "--imatrix"}},
           {imatrix, StatusCode::kUnimplemented, {"importance matrix", "--imatrix"}},
           {"<!DOCTYPE html><html></html>", StatusCode::kDataLoss, {"HTML", "download"}},
           {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            StatusCode::kDataLoss,
            {"Git LFS pointer", "git lfs pull"}},
           {random, StatusCode::kUnimplemented, {"neither text nor a file of a known kind"}},
       }) {
    std::vector<std::string> words = c.words;
    words.push_back("token ids are read from JSON");
    Refused(c.contents, c.code, words);
  }
  Refused("[[1,2],\n[3,4]", StatusCode::kDataLoss, {"not valid JSON"});
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
