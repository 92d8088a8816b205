#include "checkpoint/safetensors.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <ctime>
#include <string>
#include <vector>

#include "support/safetensors_writer.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

using Catch::Matchers::Contains;
using namespace std::string_literals;
using absl::StatusCode;

const std::string kEntry = R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
const std::string kHeader = "{" + kEntry + "}";
const std::string kData = "\1\2\3\4";

absl::StatusOr<SafetensorsHeader> Parse(const std::string& bytes) {
  static const TempDir dir;
  const absl::StatusOr<File> file = File::OpenRead(Io::Posix(), dir.Write("x.safetensors", bytes));
  REQUIRE(file.ok());
  return ReadSafetensorsHeader(*file);
}
absl::StatusOr<SafetensorsHeader> ParseHeader(const std::string& header, const std::string& data = kData) {
  return Parse(SafetensorsRaw(header, data));
}
std::string Entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}
std::string Length(uint64_t n) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(n >> (8 * i));
  return out;
}

void Rejects(const absl::StatusOr<SafetensorsHeader>& header, StatusCode code, const std::vector<std::string>& words) {
  REQUIRE_FALSE(header.ok());
  CAPTURE(header.status().ToString());
  CHECK(header.status().code() == code);
  CHECK_THAT(std::string(header.status().message()), Contains("x.safetensors"));
  for (const std::string& word : words) CHECK_THAT(std::string(header.status().message()), Contains(word));
  CHECK(header.status().message().find('\n') == absl::string_view::npos);
}

TEST_CASE("A header gives names, dtypes, shapes and places, ordered by offset") {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})";
  const auto parsed = ParseHeader(header, std::string(16, 'x'));
  REQUIRE(parsed.ok());
  REQUIRE(parsed->tensors.size() == 2);
  const TensorInfo& a = parsed->tensors[0];
  const TensorInfo& b = parsed->tensors[1];
  CHECK(a.name == "a");
  CHECK(a.dtype == Dtype::kF32);
  CHECK(a.shape.empty());
  CHECK(a.offset == 8 + header.size());
  CHECK(a.bytes == 4);
  CHECK(b.name == "b");
  CHECK(b.dtype == Dtype::kBF16);
  CHECK(b.shape == std::vector<int64_t>{2, 3});
  CHECK(b.offset == 8 + header.size() + 4);
  CHECK(b.bytes == 12);
}

TEST_CASE("Whitespace around the header is accepted, NUL padding is named") {
  CHECK(ParseHeader(kHeader + "   ").ok());
  CHECK(ParseHeader(kHeader + "\t\n\r").ok());
  CHECK(ParseHeader("  " + kHeader).ok());
  Rejects(ParseHeader(kHeader + "\0\0\0"s), StatusCode::kDataLoss, {"NUL", "spaces"});
  Rejects(ParseHeader("{\0}"s, ""), StatusCode::kDataLoss, {"a NUL byte", "byte 1"});
}

TEST_CASE("An empty object is a file without tensors") {
  const auto parsed = ParseHeader("{}", "");
  REQUIRE(parsed.ok());
  CHECK(parsed->tensors.empty());
  Rejects(ParseHeader("{}", "data"), StatusCode::kDataLoss, {"4 extra bytes"});
}

TEST_CASE("Files too short for their header say how many bytes there are") {
  Rejects(Parse(""), StatusCode::kDataLoss, {"0 bytes", "at least 8"});
  Rejects(Parse("1234567"), StatusCode::kDataLoss, {"7 bytes"});
  Rejects(Parse(std::string(8, '\0')), StatusCode::kDataLoss, {"header is empty"});
  Rejects(Parse(Length(1000) + kHeader + kData), StatusCode::kDataLoss, {"truncated", "1000", "58"});
  Rejects(Parse(Length(kHeader.size() + 1) + kHeader), StatusCode::kDataLoss, {"truncated"});
}

TEST_CASE("Header lengths beyond the limit are refused before anything is allocated") {
  Rejects(Parse(Length(100000001) + kHeader + kData), StatusCode::kResourceExhausted, {"100000001", "100000000"});
  Rejects(Parse(Length(~uint64_t{0}) + kHeader), StatusCode::kResourceExhausted, {"18446744073709551615"});
  Rejects(Parse(Length(~uint64_t{7}) + kHeader), StatusCode::kResourceExhausted, {});
  std::string big = Length(kHeader.size());
  std::reverse(big.begin(), big.end());
  Rejects(Parse(big + kHeader + kData), StatusCode::kResourceExhausted, {"big-endian"});
}

TEST_CASE("Other kinds of file are named with their remedy") {
  Rejects(Parse("version https://git-lfs.github.com/spec/v1\noid sha256:34\nsize 17249664\n"), StatusCode::kDataLoss,
          {"Git LFS pointer", "git lfs pull"});
  Rejects(Parse("<!doctype html><html><body>404</body></html>"), StatusCode::kDataLoss, {"HTML"});
  Rejects(Parse("<?xml version=\"1.0\"?><Error/>"), StatusCode::kDataLoss, {"XML"});
  Rejects(Parse("PK\x03\x04" + std::string(60, '\0')), StatusCode::kUnimplemented, {"zip", "PyTorch"});
  Rejects(Parse("\x80\x02}q\0.\0\0"s + std::string(60, '\0')), StatusCode::kUnimplemented, {"pickle"});
  Rejects(Parse("GGUF\3\0\0\0"s + std::string(16, '\0')), StatusCode::kUnimplemented, {"GGUF"});
  Rejects(Parse("{\"metadata\": {}, \"weight_map\": {}}"), StatusCode::kDataLoss, {"JSON index", "folder"});
  Rejects(Parse("{\"hidden_size\": 64, \"vocab_size\": 100}"), StatusCode::kDataLoss, {"JSON text"});
}

TEST_CASE("A header that is not one JSON object is malformed") {
  for (const std::string& header : {"{"s, "[]"s, "null"s, "1"s, "\"x\""s, kHeader + "x", kHeader + kHeader, "{/*c*/}"s,
                                    "{" + kEntry + ",}", "{'w':1}"s, "\xef\xbb\xbf" + kHeader, "{\"\xff\":1}"s, "{\"w"s,
                                    "{\"w\":{\"dtype\":NaN}}"s, "{\"\xc0\xaf\":{}}"s}) {
    CAPTURE(header);
    Rejects(ParseHeader(header), StatusCode::kDataLoss, {"malformed"});
  }
}

TEST_CASE("A name that appears twice is refused, however it is spelled") {
  Rejects(ParseHeader("{" + kEntry + R"(,"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})"), StatusCode::kDataLoss,
          {"\"w\"", "twice"});
  Rejects(ParseHeader("{" + kEntry + R"(,"\u0077":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})"),
          StatusCode::kDataLoss, {"\"w\"", "twice"});
  Rejects(ParseHeader(R"({"w":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,4]}})"), StatusCode::kDataLoss,
          {"two fields \"dtype\""});
  Rejects(ParseHeader(R"({"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})"), StatusCode::kDataLoss,
          {"two fields \"shape\""});
}

TEST_CASE("__metadata__ maps strings to strings, once") {
  CHECK(ParseHeader(R"({"__metadata__":null})", "").ok());
  CHECK(ParseHeader(R"({"__metadata__":{}})", "").ok());
  CHECK(ParseHeader(R"({"__metadata__":{"dtype":"x","shape":"y"}})", "").ok());
  for (const char* header :
       {R"({"__metadata__":{"a":1}})", R"({"__metadata__":{"a":{"b":"c"}}})", R"({"__metadata__":[]})",
        R"({"__metadata__":"x"})", R"({"__metadata__":{"a":null}})", R"({"__metadata__":{"a":["b"]}})"}) {
    CAPTURE(header);
    Rejects(ParseHeader(header, ""), StatusCode::kDataLoss, {"__metadata__"});
  }
  Rejects(ParseHeader(R"({"__metadata__":{"a":"b"},"__metadata__":{}})", ""), StatusCode::kDataLoss, {"twice"});
  Rejects(ParseHeader(R"({"__metadata__":null,"__metadata__":null})", ""), StatusCode::kDataLoss, {"twice"});
  Rejects(ParseHeader(R"({"__metadata__":{"a":"b","\u0061":"c"}})", ""), StatusCode::kDataLoss,
          {"duplicate key \"a\""});
}

TEST_CASE("Names are checked before they reach a message or a C string") {
  const auto named = [](const std::string& name) {
    return ParseHeader("{\"" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})");
  };
  CHECK(named("").ok());
  CHECK(named("../../x").ok());
  CHECK(named(std::string(1024, 'a')).ok());
  Rejects(named(std::string(1025, 'a')), StatusCode::kResourceExhausted, {"1025", "1024"});
  Rejects(named("a\\u0000b"), StatusCode::kDataLoss, {R"(\x00)", "control"});
  Rejects(named("\\u001b[2J"), StatusCode::kDataLoss, {R"(\x1b)", "control"});
  Rejects(named("a\\nb"), StatusCode::kDataLoss, {"control"});
  Rejects(named("\\ud800"), StatusCode::kDataLoss, {});
  Rejects(named("\\udc00"), StatusCode::kDataLoss, {"surrogate"});
}

TEST_CASE("An entry must be an object with its three fields, others are ignored") {
  CHECK(ParseHeader(R"({"w":{"dtype":"F32","strides":[7,{"a":[null,true,1.5,"x"]}],"shape":[1],)"
                    R"("x":{},"data_offsets":[0,4],"y":"z"}})")
            .ok());
  Rejects(ParseHeader(R"({"w":{"shape":[1],"data_offsets":[0,4]}})"), StatusCode::kDataLoss, {"\"w\"", "\"dtype\""});
  Rejects(ParseHeader(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})"), StatusCode::kDataLoss, {"\"shape\""});
  Rejects(ParseHeader(R"({"w":{"dtype":"F32","shape":[1]}})"), StatusCode::kDataLoss, {"\"data_offsets\""});
  for (const char* value : {R"(["F32",[1],[0,4]])", "\"F32\"", "7", "null", "true"}) {
    CAPTURE(value);
    Rejects(ParseHeader("{\"w\":" + std::string(value) + "}"), StatusCode::kDataLoss, {"\"w\" is"});
  }
}

TEST_CASE("Unknown dtypes are UNIMPLEMENTED, wrong types malformed") {
  Rejects(ParseHeader(Entry("F128", "[1]", "[0,16]"), std::string(16, 'x')), StatusCode::kUnimplemented,
          {"\"w\"", "\"F128\""});
  Rejects(ParseHeader(Entry("f32", "[1]", "[0,4]")), StatusCode::kUnimplemented, {"\"f32\""});
  Rejects(ParseHeader(Entry("", "[1]", "[0,4]")), StatusCode::kUnimplemented, {});
  Rejects(ParseHeader(R"({"w":{"dtype":3,"shape":[1],"data_offsets":[0,4]}})"), StatusCode::kDataLoss, {"dtype is"});
  // The ranges are checked all the same.
  Rejects(ParseHeader(Entry("F128", "[1]", "[0,99]")), StatusCode::kDataLoss, {"truncated"});
}

TEST_CASE("A dimension is plain digits, at most 2^48") {
  for (const char* shape :
       {"[-1]", "[1.0]", "[1e0]", "[18446744073709551616]", "[\"1\"]", "[null]", "[true]", "[[1]]", "[{}]", "[-0]"}) {
    CAPTURE(shape);
    Rejects(ParseHeader(Entry("F32", shape, "[0,4]")), StatusCode::kDataLoss, {"\"w\""});
  }
  for (const char* shape : {"null", "1", "\"x\"", "{}"}) {
    CAPTURE(shape);
    Rejects(ParseHeader(Entry("F32", shape, "[0,4]")), StatusCode::kDataLoss, {"shape is"});
  }
  CHECK(ParseHeader(Entry("F32", "[0,281474976710656]", "[0,0]"), "").ok());
  Rejects(ParseHeader(Entry("F32", "[0,281474976710657]", "[0,0]"), ""), StatusCode::kResourceExhausted,
          {"281474976710657"});
}

TEST_CASE("Sizes that overflow are no empty tensors, whatever the order of the dimensions") {
  for (const char* shape : {"[4294967296,4294967296]", "[4294967296,4294967296,0]", "[0,4294967296,4294967296]",
                            "[281474976710656,16384]"}) {
    CAPTURE(shape);
    Rejects(ParseHeader(Entry("F32", shape, "[0,0]"), ""), StatusCode::kDataLoss, {"overflows"});
  }
}

TEST_CASE("A shape has at most 8 dimensions") {
  CHECK(ParseHeader(Entry("F32", "[1,1,1,1,1,1,1,1]", "[0,4]")).ok());
  Rejects(ParseHeader(Entry("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]")), StatusCode::kResourceExhausted, {"8 dimensions"});
}

TEST_CASE("Offsets are two sizes in order that hold shape x dtype") {
  for (const char* offsets : {"[-4,0]", "[0]", "[]", "[0,4,8]", "[0,4.0]", "[0,\"4\"]", "null", "{}", "[[0,4]]"}) {
    CAPTURE(offsets);
    Rejects(ParseHeader(Entry("F32", "[1]", offsets)), StatusCode::kDataLoss, {"\"w\"", "offset"});
  }
  Rejects(ParseHeader(Entry("F32", "[1]", "[4,0]")), StatusCode::kDataLoss, {"reversed", "[4, 0]"});
  Rejects(ParseHeader(Entry("F32", "[32,8]", "[0,4]")), StatusCode::kDataLoss, {"[32, 8]", "1024 bytes", "hold 4"});
  Rejects(ParseHeader(Entry("F32", "[]", "[0,0]"), ""), StatusCode::kDataLoss, {"takes 4 bytes"});
}

TEST_CASE("Truncation and trailing bytes show at open, with both numbers") {
  Rejects(ParseHeader(kHeader, "123"), StatusCode::kDataLoss, {"truncated", "ends at data byte 4", "3 bytes"});
  Rejects(ParseHeader(Entry("F32", "[1000,1000]", "[0,4000000]")), StatusCode::kDataLoss, {"truncated", "4000000"});
  Rejects(ParseHeader(kHeader, kData + "extra"), StatusCode::kDataLoss, {"5 extra bytes"});
}

std::string Two(const std::string& a, const std::string& b, const std::string& shape_b = "[1]") {
  return R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + a + R"(},"b":{"dtype":"F32","shape":)" + shape_b +
         R"(,"data_offsets":)" + b + "}}";
}

TEST_CASE("Ranges follow one another without hole or overlap") {
  CHECK(ParseHeader(Two("[4,8]", "[0,4]"), std::string(8, 'x')).ok());
  Rejects(ParseHeader(Entry("F32", "[1]", "[4,8]"), std::string(8, 'x')), StatusCode::kDataLoss, {"must begin at 0"});
  Rejects(ParseHeader(Two("[0,4]", "[8,12]"), std::string(12, 'x')), StatusCode::kDataLoss,
          {"\"a\"", "\"b\"", "a hole"});
  Rejects(ParseHeader(Two("[0,4]", "[2,6]"), std::string(6, 'x')), StatusCode::kDataLoss,
          {"\"a\"", "\"b\"", "an overlap"});
  Rejects(ParseHeader(Two("[0,4]", "[0,4]")), StatusCode::kDataLoss, {"an overlap"});
}

TEST_CASE("Empty tensors may stand at either end or between others, not inside one or past the end") {
  for (const char* offsets : {"[0,0]", "[4,4]"}) CHECK(ParseHeader(Two("[0,4]", offsets, "[0]")).ok());
  CHECK_FALSE(ParseHeader(Two("[0,4]", "[2,2]", "[0]")).ok());
  CHECK_FALSE(ParseHeader(Two("[0,4]", "[99,99]", "[0]")).ok());
}

TEST_CASE("Elements of 4 and 6 bits must fill whole bytes") {
  CHECK(ParseHeader(Entry("F4", "[2]", "[0,1]"), "x").ok());
  CHECK(ParseHeader(Entry("F6_E2M3", "[4]", "[0,3]"), "xyz").ok());
  Rejects(ParseHeader(Entry("F4", "[3]", "[0,2]"), "xy"), StatusCode::kDataLoss, {"12 bits"});
  Rejects(ParseHeader(Entry("F6_E3M2", "[1]", "[0,1]"), "x"), StatusCode::kDataLoss, {"6 bits"});
}

TEST_CASE("Each dtype is accepted with one group of elements and with none") {
  for (int d = 0; d <= static_cast<int>(Dtype::kU64); ++d) {
    const auto dtype = static_cast<Dtype>(d);
    const std::string name(DtypeName(dtype));
    CAPTURE(name);
    const size_t bytes = static_cast<size_t>(DtypeBits(dtype)) * 4 / 8;
    CHECK(ParseHeader(Entry(name, "[4]", "[0," + std::to_string(bytes) + "]"), std::string(bytes, '\2')).ok());
    CHECK(ParseHeader(Entry(name, "[0]", "[0,0]"), "").ok());
  }
}

TEST_CASE("Odd offsets and header lengths are accepted") {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}} )";
  CHECK(ParseHeader(header, "12345").ok());
  CHECK(ParseHeader(header + " ", "12345").ok());
}

TEST_CASE("Deep nesting ends at 64 levels without touching the stack") {
  const auto nested = [](size_t depth) {
    return R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":)" + std::string(depth, '[') +
           std::string(depth, ']') + "}}";
  };
  CHECK(ParseHeader(nested(62)).ok());
  Rejects(ParseHeader(nested(63)), StatusCode::kResourceExhausted, {"64"});
  Rejects(ParseHeader(nested(100000)), StatusCode::kResourceExhausted, {"64"});
  Rejects(ParseHeader("{\"w\":" + std::string(100000, '[')), StatusCode::kDataLoss, {"array"});
}

TEST_CASE("Every prefix and every single-bit flip of a valid file gives a status", "[hostile]") {
  const std::string valid = SafetensorsBytes({{"model.embed.weight", "BF16", {2, 3}, std::string(12, 'e')},
                                              {"model.norm.weight", "F32", {3}, std::string(12, 'n')},
                                              {"model.empty", "I64", {0, 7}, ""},
                                              {"scalar", "U8", {}, "s"}});
  REQUIRE(Parse(valid).ok());
  for (size_t length = 0; length < valid.size(); ++length) REQUIRE_FALSE(Parse(valid.substr(0, length)).ok());

  int accepted = 0;
  for (size_t bit = 0; bit < valid.size() * 8; ++bit) {
    std::string flipped = valid;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << (bit % 8)));
    const auto header = Parse(flipped);
    if (!header.ok()) {
      REQUIRE_FALSE(header.status().message().empty());
      continue;
    }
    ++accepted;  // flips in data, in a name or between types of one size make a different valid file
    for (const TensorInfo& tensor : header->tensors) REQUIRE(tensor.offset + tensor.bytes <= flipped.size());
  }
  CHECK(accepted > 25 * 8);
}

TEST_CASE("A header of 100,000 tensors is parsed in a bounded time") {
  std::string header = "{";
  for (int i = 0; i < 100000; ++i) {
    const std::string n = std::to_string(i), end = std::to_string(i + 1);
    header +=
        (i == 0 ? "" : ",") + ("\"w" + n) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + n + "," + end + "]}";
  }
  header += "}";
  const std::string bytes = SafetensorsRaw(header, std::string(100000, 'x'));
  const std::clock_t start = std::clock();  // processor time: a busy machine must not fail the test
  const auto parsed = Parse(bytes);
  const double elapsed_s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  REQUIRE(parsed.ok());
  CHECK(parsed->tensors.size() == 100000);
  CHECK(elapsed_s < 10);  // 0.3 s in a release build; room for sanitizers and busy machines
}

}  // namespace
}  // namespace autoscheme
