#include "checkpoint/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "support/fault_io.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

using absl::StatusCode;
using Catch::Matchers::Contains;

// What Context::log was given.
struct Log {
  std::vector<std::string> warnings;
  Context context;
  Log() {
    context.log = [this](LogLevel level, absl::string_view text) {
      if (level == LogLevel::kWarning) warnings.emplace_back(text);
    };
  }
};

std::string ReadAll(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  std::string bytes(tensor.bytes, ' ');
  const absl::Status status =
      checkpoint.Read(tensor, 0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size()));
  return status.ok() ? bytes : status.ToString();
}

void Fails(const std::string& dir, StatusCode code, const std::vector<std::string>& words) {
  const absl::Status status = Checkpoint::Open({}, dir).status();
  CAPTURE(status.ToString());
  CHECK(status.code() == code);
  for (const std::string& word : words) CHECK_THAT(std::string(status.message()), Contains(word));
}

const std::vector<RawTensor> kThree = {
    {"a", "U8", {4}, "aaaa"}, {"b", "F32", {2}, "bbbbbbbb"}, {"c", "BF16", {1, 2}, "cccc"}};

void WriteIndex(const TempDir& dir, const std::string& weight_map, const std::string& metadata = "{}") {
  dir.Write("model.safetensors.index.json", "{\"metadata\":" + metadata + ",\"weight_map\":{" + weight_map + "}}");
}

TEST_CASE("A folder with one file of weights gives every tensor its bytes") {
  const TempDir dir;
  TinyModel model;
  model.zero_byte_tensor = true;
  WriteTinyModel(model, dir.path());
  Log log;
  const auto checkpoint = Checkpoint::Open(log.context, dir.path());
  REQUIRE(checkpoint.ok());
  CHECK((*checkpoint)->directory() == dir.path());
  CHECK((*checkpoint)->config()["hidden_size"].GetInt() == 32);
  CHECK((*checkpoint)->config_text() == Slurp(dir / "config.json"));
  CHECK(log.warnings.empty());

  const std::vector<RawTensor> tensors = MakeTinyTensors(model);
  REQUIRE((*checkpoint)->tensors().size() == tensors.size());
  uint64_t total = 0;
  for (const RawTensor& raw : tensors) {
    CAPTURE(raw.name);
    const TensorInfo* tensor = (*checkpoint)->Find(raw.name);
    REQUIRE(tensor != nullptr);
    CHECK(tensor->shape == raw.shape);
    CHECK(DtypeName(tensor->dtype) == raw.dtype);
    CHECK(ReadAll(**checkpoint, *tensor) == raw.bytes);
    total += raw.bytes.size();
  }
  CHECK((*checkpoint)->bytes_read() == total);
  CHECK((*checkpoint)->Find("nothing") == nullptr);
}

TEST_CASE("Opening reads no weight byte") {
  const TempDir dir;
  WriteTinyModel({}, dir.path());
  FaultIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = Checkpoint::Open(context, dir.path());
  REQUIRE(checkpoint.ok());
  const uint64_t data = (*checkpoint)->tensors()[0].offset;
  uint64_t header_end = data;
  for (const TensorInfo& tensor : (*checkpoint)->tensors()) header_end = std::min(header_end, tensor.offset);
  CHECK(io.bytes_read() == (*checkpoint)->config_text().size() + header_end);
  CHECK((*checkpoint)->bytes_read() == 0);
}

TEST_CASE("Shards give the same tensors as one file, sorted by name") {
  const TempDir one, many;
  TinyModel model;
  WriteTinyModel(model, one.path());
  model.shards = 3;
  WriteTinyModel(model, many.path());
  const auto single = Checkpoint::Open({}, one.path());
  Log log;
  const auto sharded = Checkpoint::Open(log.context, many.path());
  REQUIRE(single.ok());
  REQUIRE(sharded.ok());
  CHECK(log.warnings.empty());
  REQUIRE((*sharded)->shards().size() == 3);
  CHECK((*sharded)->shards()[1].name == "model-00002-of-00003.safetensors");
  REQUIRE((*single)->tensors().size() == (*sharded)->tensors().size());
  for (size_t i = 0; i < (*single)->tensors().size(); ++i) {
    const TensorInfo& a = (*single)->tensors()[i];
    const TensorInfo& b = (*sharded)->tensors()[i];
    REQUIRE(a.name == b.name);
    if (i > 0) REQUIRE((*single)->tensors()[i - 1].name < a.name);
    REQUIRE(ReadAll(**single, a) == ReadAll(**sharded, b));
  }
}

TEST_CASE("Any byte range of a tensor can be read, and none outside it") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("model.safetensors", SafetensorsBytes({{"x", "U8", {3, 4}, "abcdefghijkl"}, {"y", "U8", {1}, "y"}}));
  const auto checkpoint = Checkpoint::Open({}, dir.path());
  REQUIRE(checkpoint.ok());
  const TensorInfo& x = *(*checkpoint)->Find("x");
  std::string row(4, ' ');
  const auto out = absl::MakeSpan(reinterpret_cast<std::byte*>(row.data()), row.size());
  REQUIRE((*checkpoint)->Read(x, 4, out).ok());
  CHECK(row == "efgh");
  CHECK((*checkpoint)->bytes_read() == 4);
  CHECK((*checkpoint)->Read(x, 9, out).code() == StatusCode::kInvalidArgument);
  CHECK((*checkpoint)->Read(x, ~uint64_t{0}, out).code() == StatusCode::kInvalidArgument);
  TensorInfo elsewhere = x;
  elsewhere.shard = 7;
  CHECK((*checkpoint)->Read(elsewhere, 0, out).code() == StatusCode::kInvalidArgument);
  CHECK((*checkpoint)->bytes_read() == 4);
}

TEST_CASE("Large reads leave nothing in the page cache, small ones do not bother") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("model.safetensors", SafetensorsBytes({{"big", "U8", {1 << 20}, std::string(1 << 20, 'b')}}));
  FaultIo io;
  Context context;
  context.io = &io;
  const auto checkpoint = Checkpoint::Open(context, dir.path());
  REQUIRE(checkpoint.ok());
  const TensorInfo& big = *(*checkpoint)->Find("big");
  std::string bytes(1 << 20, ' ');
  io.Arm(kDropCache, EIO, 1, true);  // its failures concern nobody
  REQUIRE((*checkpoint)->Read(big, 0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), 1000)).ok());
  CHECK(io.calls() == 0);
  REQUIRE((*checkpoint)->Read(big, 0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), 1 << 20)).ok());
  CHECK(io.calls() == 1);
}

TEST_CASE("A shard that changes under the run is DATA_LOSS with tensor, shard and offset") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  const std::string path = dir.Write("model.safetensors", SafetensorsBytes(kThree));
  const auto checkpoint = Checkpoint::Open({}, dir.path());
  REQUIRE(checkpoint.ok());
  const TensorInfo& c = *(*checkpoint)->Find("c");
  REQUIRE(truncate(path.c_str(), static_cast<off_t>(c.offset + 1)) == 0);
  const std::string error = ReadAll(**checkpoint, c);
  CHECK_THAT(error, Contains("DATA_LOSS") && Contains("\"c\"") && Contains("\"model.safetensors\"") &&
                        Contains("offset " + std::to_string(c.offset)));
  CHECK_THAT(ReadAll(**checkpoint, *(*checkpoint)->Find("a")), Contains("changed while it was read"));
  CHECK((*checkpoint)->bytes_read() == 0);
}

TEST_CASE("What a folder lacks is said by name") {
  const TempDir dir;
  Fails(dir / "missing", StatusCode::kNotFound, {"missing"});
  Fails(dir.path(), StatusCode::kNotFound, {"config.json"});
  dir.Write("config.json", "{}");
  Fails(dir.path(), StatusCode::kNotFound, {"no weights in", "no model.safetensors.index.json and no set of shards"});
}

TEST_CASE("Formats that can run code are refused, unopened") {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth"}) {
    const TempDir dir;
    dir.Write("config.json", "{}");
    REQUIRE(mkfifo((dir / name).c_str(), 0600) == 0);  // opening it would block
    Fails(dir.path(), StatusCode::kUnimplemented, {name, "convert"});
  }
}

TEST_CASE("A config.json that is no JSON object is DATA_LOSS") {
  const TempDir dir;
  dir.Write("model.safetensors", SafetensorsBytes(kThree));
  for (const char* text : {"", "[]", "null", "{\"a\":1,\"a\":2}", "\xef\xbb\xbf{}", "{\"a\":nan}"}) {
    CAPTURE(text);
    dir.Write("config.json", text);
    Fails(dir.path(), StatusCode::kDataLoss, {"config.json"});
  }
  dir.Write("config.json", std::string(100000, '['));
  Fails(dir.path(), StatusCode::kDataLoss, {"deeper than 64"});
  std::filesystem::resize_file(dir / "config.json", uint64_t{1} << 30);
  Fails(dir.path(), StatusCode::kResourceExhausted, {"1073741824 bytes"});
}

TEST_CASE("With both one file and an index, the file counts and a warning says so") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("model.safetensors", SafetensorsBytes(kThree));
  WriteIndex(dir, R"("z":"absent.safetensors")");
  Log log;
  const auto checkpoint = Checkpoint::Open(log.context, dir.path());
  REQUIRE(checkpoint.ok());
  CHECK((*checkpoint)->tensors().size() == 3);
  REQUIRE(log.warnings.size() == 1);
  CHECK_THAT(log.warnings[0], Contains("model.safetensors") &&
                                  Contains("the index is ignored with its 1 shard (\"absent.safetensors\")"));
  CHECK((*checkpoint)->index_ignored());
  dir.Write("model.safetensors.index.json", "no JSON");
  CHECK(Checkpoint::Open(log.context, dir.path()).ok());
  REQUIRE(log.warnings.size() == 2);
  CHECK_THAT(log.warnings[1], Contains("the index is ignored; if"));
}

TEST_CASE("A config with NaN and Infinity is read, as Python writes them, and a header with them is not") {
  const TempDir dir;
  dir.Write("config.json", R"({"limit": [0.0, Infinity], "x": NaN, "y": -Infinity, "hidden_size": 3})");
  dir.Write("model.safetensors", SafetensorsBytes(kThree));
  const auto checkpoint = Checkpoint::Open({}, dir.path());
  REQUIRE(checkpoint.ok());
  CHECK((*checkpoint)->config()["hidden_size"].GetInt() == 3);
  dir.Write("model.safetensors",
            SafetensorsRaw(R"({"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}})", "1234"));
  Fails(dir.path(), StatusCode::kDataLoss, {"header is malformed"});
  dir.Write("config.json", "{\n  \"a\": nul\n}");
  Fails(dir.path(), StatusCode::kDataLoss, {"config.json", "line 2, column"});
}

TEST_CASE("JSON files of a model that are something else are named for what they are, with the remedy") {
  const std::string config = "{\"hidden_size\": 3}";
  std::string little, big;
  for (const char c : config) {
    (little += c) += '\0';
    (big += '\0') += c;
  }
  const std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", {"is a Git LFS pointer", "git lfs pull"}},
      {"<!DOCTYPE html>\n<html>", {"is an HTML or XML page", "download it again"}},
      {"\xff\xfe" + little, {"is UTF-16 text, not JSON", "iconv -f UTF-16 -t UTF-8"}},
      {"\xfe\xff" + big, {"is UTF-16 text, not JSON", "iconv"}},
      {little, {"is UTF-16 text, not JSON", "iconv"}},
      {"\x1f\x8b\x08 and more", {"is a gzip file, not JSON", "unpack it"}},
      {"\xef\xbb\xbf" + config, {"byte order mark", "UTF-8 without one"}},
      {"{\n  'hidden_size': 3\n}", {"is not valid JSON", "at line 2, column 3"}},
      {"{\"a\": 1, // why\n}", {"is not valid JSON", "at line 1, column 10"}},
      {"{\"a\": 1,\n\"b\": [1e999]}", {"is not valid JSON: number too big", "at line 2, column 7"}},
      {"", {"is not valid JSON", "the document is empty at line 1, column 1"}}};
  for (const auto& [text, words] : cases) {
    CAPTURE(text);
    const TempDir dir;
    dir.Write("config.json", text);
    Fails(dir.path(), StatusCode::kDataLoss, words);
    dir.Write("config.json", config);
    dir.Write("model.safetensors.index.json", text);
    Fails(dir.path(), StatusCode::kDataLoss, words);
  }
}

TEST_CASE("An index with NaN and Infinity in its metadata is read") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("s1.safetensors", SafetensorsBytes({kThree[0]}));
  WriteIndex(dir, R"("a":"s1.safetensors")", R"({"total_size": NaN, "loss": -Infinity})");
  Log log;
  const auto checkpoint = Checkpoint::Open(log.context, dir.path());
  REQUIRE(checkpoint.ok());
  CHECK((*checkpoint)->tensors().size() == 1);
  CHECK(log.warnings.empty());
}

TEST_CASE("All missing shards are listed at once") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("s1.safetensors", SafetensorsBytes({kThree[0]}));
  WriteIndex(dir, R"("a":"s1.safetensors","b":"s2.safetensors","c":"s3.safetensors")");
  Fails(dir.path(), StatusCode::kNotFound,
        {"2 of 3 shards", "\"s2.safetensors\"", "\"s3.safetensors\"", "incomplete download"});
}

TEST_CASE("An index that is malformed is DATA_LOSS") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  for (const char* text :
       {"", "not json", "{}", "[]", R"({"weight_map":[]})", R"({"weight_map":null})", R"({"weight_map":{"a":1}})",
        R"({"weight_map":{"a":"s.safetensors","a":"s.safetensors"}})"}) {
    CAPTURE(text);
    dir.Write("model.safetensors.index.json", text);
    Fails(dir.path(), StatusCode::kDataLoss, {"model.safetensors.index.json"});
  }
  std::filesystem::resize_file(dir / "model.safetensors.index.json", uint64_t{500} << 20);
  Fails(dir.path(), StatusCode::kResourceExhausted, {"524288000"});
}

TEST_CASE("Shard names that leave the folder are refused and never opened") {
  const TempDir dir;
  dir.Write("sub/config.json", "{}");
  dir.Write("x.safetensors", SafetensorsBytes(kThree));
  for (const std::string& name :
       {std::string("../x.safetensors"), dir / "x.safetensors", std::string("a/b.safetensors"),
        std::string("a\\\\b.safetensors"), std::string("C:\\\\x.safetensors"), std::string(""), std::string("."),
        std::string(".."), std::string("x\\u0000.safetensors"), std::string(10240, 'a') + ".safetensors",
        std::string("pytorch_model.bin")}) {
    CAPTURE(name);
    dir.Write("sub/model.safetensors.index.json", R"({"weight_map":{"a":")" + name + "\"}}");
    FaultIo io(kOpen, EIO, 1000, false);
    Context context;
    context.io = &io;
    const absl::Status status = Checkpoint::Open(context, dir / "sub").status();
    CHECK(status.code() == StatusCode::kInvalidArgument);
    CHECK(status.message().size() < 1000);
    CHECK(io.calls() == 2);  // config.json and the index
  }
}

// The warnings of opening, after which `tensors` are there, each with its own bytes of kThree.
std::vector<std::string> WarningsOfOpening(const TempDir& dir, const std::vector<std::string>& tensors) {
  Log log;
  const auto checkpoint = Checkpoint::Open(log.context, dir.path());
  CAPTURE(checkpoint.status().ToString());
  REQUIRE(checkpoint.ok());
  std::vector<std::string> found;
  for (const TensorInfo& tensor : (*checkpoint)->tensors()) {
    found.push_back(tensor.name);
    for (const RawTensor& raw : kThree) {
      if (raw.name == tensor.name) CHECK(ReadAll(**checkpoint, tensor) == raw.bytes);
    }
  }
  CHECK(found == tensors);
  return log.warnings;
}

TEST_CASE("An index only says which files to open: what it places wrongly is read where it lies, with a warning") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("s1.safetensors", SafetensorsBytes({kThree[0]}));
  dir.Write("s2.safetensors", SafetensorsBytes({kThree[1], kThree[2]}));

  WriteIndex(dir, R"("a":"s1.safetensors","b":"s2.safetensors","c":"s2.safetensors","e":"s2.safetensors",
                     "d":"s1.safetensors")");
  std::vector<std::string> warnings = WarningsOfOpening(dir, {"a", "b", "c"});
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("lists 2 tensors that no shard holds") && Contains("\"d\", \"e\""));

  WriteIndex(dir, R"("a":"s1.safetensors","b":"s1.safetensors","c":"s2.safetensors")");
  warnings = WarningsOfOpening(dir, {"a", "b", "c"});
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("misplaces 1 tensor that another shard holds") && Contains(": \"b\""));

  WriteIndex(dir, R"("b":"s2.safetensors","x":"s1.safetensors")");
  warnings = WarningsOfOpening(dir, {"a", "b", "c"});
  REQUIRE(warnings.size() == 2);
  CHECK_THAT(warnings[0], Contains("lists 1 tensor that no shard holds"));
  CHECK_THAT(warnings[1], Contains("does not list 2 tensors that the shards hold: \"a\", \"c\""));
}

TEST_CASE("Of a tensor in several shards the index picks one, and without its word the shards are named") {
  const std::string other = SafetensorsBytes({{"b", "F32", {2}, "########"}, kThree[0]});
  for (const std::string right : {"s1", "s2", "s3"}) {
    CAPTURE(right);
    const TempDir dir;
    dir.Write("config.json", "{}");
    for (const std::string name : {"s1", "s2", "s3"}) dir.Write(name + ".safetensors", other);
    dir.Write(right + ".safetensors", SafetensorsBytes({kThree[0], kThree[1], kThree[2]}));
    const std::string shard = "\"" + right + ".safetensors\"", c = ",\"c\":" + shard;
    WriteIndex(dir, "\"a\":\"s1.safetensors\",\"b\":" + shard + c + R"(,"x":"s2.safetensors","y":"s3.safetensors")");
    const std::vector<std::string> warnings = WarningsOfOpening(dir, {"a", "b", "c"});
    REQUIRE(warnings.size() == 2);
    CHECK_THAT(warnings[0], Contains("2 tensors") && Contains("in more than one shard") && Contains("\"a\", \"b\""));

    WriteIndex(dir, R"("a":"s2.safetensors")" + c + R"(,"x":"s1.safetensors","y":"s3.safetensors")");
    Fails(dir.path(), StatusCode::kDataLoss,
          {"tensor \"b\" is in two shards", "\"s1.safetensors\" and \"s2.safetensors\"", "nothing says which"});
  }
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("s1.safetensors", SafetensorsBytes({kThree[1]}));
  dir.Write("s2.safetensors", SafetensorsBytes({kThree[1]}));
  dir.Write("s3.safetensors", SafetensorsBytes({kThree[0]}));
  WriteIndex(dir, R"("b":"s3.safetensors","x":"s1.safetensors","y":"s2.safetensors")");
  Fails(dir.path(), StatusCode::kDataLoss, {"\"s1.safetensors\" and \"s2.safetensors\"", "nothing says which"});
}

TEST_CASE("Tensors that the index does not list are taken, with one warning, files it does not list are not") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("s1.safetensors", SafetensorsBytes(kThree));
  dir.Write("model-stale.safetensors", "garbage");
  WriteIndex(dir, R"("b":"s1.safetensors")");
  const std::vector<std::string> warnings = WarningsOfOpening(dir, {"a", "b", "c"});
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], Contains("2 tensors") && Contains("\"a\", \"c\""));
}

TEST_CASE("A total_size says nothing, right or wrong") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("s1.safetensors", SafetensorsBytes({kThree[0]}));
  for (const char* metadata :
       {"{}", "null", "{\"total_size\":4}", "{\"total_size\":5}", "{\"total_size\":4.0}", "{\"total_size\":\"x\"}"}) {
    WriteIndex(dir, R"("a":"s1.safetensors")", metadata);
    CHECK(WarningsOfOpening(dir, {"a"}).empty());
  }
}

TEST_CASE("One short shard among many is found at open") {
  const TempDir dir;
  TinyModel model;
  model.shards = 5;
  WriteTinyModel(model, dir.path());
  const std::string name = "model-00004-of-00005.safetensors";
  std::filesystem::resize_file(dir / name, std::filesystem::file_size(dir / name) - 1);
  Fails(dir.path(), StatusCode::kDataLoss, {name, "truncated"});
}

TEST_CASE("A shard may be a link to a file, and nothing else that a file is not") {
  const TempDir dir;
  dir.Write("config.json", "{}");
  dir.Write("blobs/abc", SafetensorsBytes(kThree));
  const std::string path = dir / "model.safetensors";
  REQUIRE(symlink("blobs/abc", path.c_str()) == 0);
  CHECK(Checkpoint::Open({}, dir.path()).ok());
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(symlink("blobs", path.c_str()) == 0);
  Fails(dir.path(), StatusCode::kInvalidArgument, {"is a folder"});
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(symlink("model.safetensors", path.c_str()) == 0);
  Fails(dir.path(), StatusCode::kNotFound, {"model.safetensors"});
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(symlink("gone", path.c_str()) == 0);
  Fails(dir.path(), StatusCode::kNotFound, {"no weights"});
  REQUIRE(unlink(path.c_str()) == 0);
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  Fails(dir.path(), StatusCode::kInvalidArgument, {"not a regular file"});
}

TEST_CASE("Too few descriptors for the shards is an error that says so, and leaks none") {
  const TempDir dir;
  TinyModel model;
  model.shards = 8;
  WriteTinyModel(model, dir.path());
  const int before = OpenDescriptors();
  FaultIo io(kOpen, EMFILE, 6, true);
  Context context;
  context.io = &io;
  const absl::Status status = Checkpoint::Open(context, dir.path()).status();
  CHECK(status.code() == StatusCode::kResourceExhausted);
  CHECK_THAT(std::string(status.message()), Contains("Too many open files"));
  CHECK(OpenDescriptors() == before);
}

TEST_CASE("Opening a sharded model can be cancelled") {
  const TempDir dir;
  TinyModel model;
  model.shards = 2;
  WriteTinyModel(model, dir.path());
  CancelToken cancel;
  cancel.Cancel();
  Context context;
  context.cancel = &cancel;
  CHECK(Checkpoint::Open(context, dir.path()).status().code() == StatusCode::kCancelled);
}

}  // namespace
}  // namespace autoscheme
