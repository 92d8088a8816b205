#include "checkpoint/imatrix_file.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "support/imatrix_writer.h"
#include "support/temp_dir.h"

namespace autoscheme {
namespace {

using Catch::Contains;

absl::StatusOr<ImatrixFile> Read(const std::string& bytes) {
  TempDir dir;
  return ReadImatrixFile({}, dir.Write("imatrix", bytes));
}

const ImatrixRows kRows = {
    {"blk.0.attn_q.weight", {1, 2, 3}}, {"blk.0.ffn_down.weight", {0, 4.5f}}, {"output.weight", {7}}};

TEST_CASE("both formats of llama-imatrix are read") {
  for (const std::string& bytes : {LegacyImatrix(kRows), GgufImatrix(kRows)}) {
    const auto file = Read(bytes);
    INFO(file.status().ToString());
    REQUIRE(file.ok());
    REQUIRE(file->size() == 3);
    CHECK(file->at("blk.0.attn_q.weight") == std::vector<float>{1, 2, 3});
    CHECK(file->at("blk.0.ffn_down.weight") == std::vector<float>{0, 4.5f});
    CHECK(file->at("output.weight") == std::vector<float>{7});
  }
}

TEST_CASE("a file cut anywhere is an error, and never read past its end") {
  const std::string legacy = LegacyImatrix(kRows), gguf = GgufImatrix(kRows);
  const size_t legacy_tail = 4 + 4 + 4;  // last call, length and text of the data set's name are not needed
  for (size_t size = 0; size + legacy_tail < legacy.size(); ++size) {
    const auto file = Read(legacy.substr(0, size));
    INFO("legacy, " << size << " bytes");
    CHECK(file.status().code() == absl::StatusCode::kDataLoss);
  }
  for (size_t size = 0; size + 32 < gguf.size(); ++size) {  // behind the last sums lie only padding and a count
    INFO("GGUF, " << size << " bytes");
    CHECK_FALSE(Read(gguf.substr(0, size)).ok());
  }
}

TEST_CASE("flipped bytes give an error or other numbers, nothing worse") {
  for (const std::string& whole : {LegacyImatrix(kRows), GgufImatrix(kRows)}) {
    for (size_t i = 0; i < whole.size(); ++i) {
      for (const char flip : {'\x01', '\x80', '\xff'}) {
        std::string bytes = whole;
        bytes[i] = static_cast<char>(bytes[i] ^ flip);
        const auto file = Read(bytes);
        if (!file.ok()) continue;
        for (const auto& [name, values] : *file) {
          for (const float value : values) CHECK((std::isfinite(value) && value >= 0));
        }
      }
    }
  }
}

TEST_CASE("what cannot be a sum of squares is named with its channel") {
  for (const float bad : {-1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const ImatrixRows rows = {{"blk.3.ffn_up.weight", {1, bad}}};
    for (const std::string& bytes : {LegacyImatrix(rows), GgufImatrix(rows)}) {
      const absl::Status status = Read(bytes).status();
      CHECK(status.code() == absl::StatusCode::kDataLoss);
      CHECK_THAT(std::string(status.message()), Contains("\"blk.3.ffn_up.weight\"") && Contains("channel 1"));
    }
  }
}

TEST_CASE("a tensor without channels is refused by name") {
  const ImatrixRows rows = {{"blk.0.attn_q.weight", {1, 2}}, {"blk.0.attn_k.weight", {}}};
  const absl::Status status = Read(GgufImatrix(rows)).status();
  CHECK(status.code() == absl::StatusCode::kDataLoss);
  CHECK_THAT(std::string(status.message()), Contains("\"blk.0.attn_k.weight\" has no channels"));
  CHECK(Read(LegacyImatrix(rows)).status().code() == absl::StatusCode::kDataLoss);
}

TEST_CASE("experts lie one after the other, and one that saw no token weighs its channels alike") {
  const ImatrixRows rows = {{"blk.0.ffn_up_exps.weight", {1, 2, 0, 0, 5, 6}}};
  const auto file = Read(GgufImatrix(rows, "imatrix", {7, 0, 1}));
  INFO(file.status().ToString());
  REQUIRE(file.ok());
  CHECK(file->at("blk.0.ffn_up_exps.weight") == std::vector<float>{1, 2, 1, 1, 5, 6});
}

TEST_CASE("sums whose counts are missing or do not divide them are refused") {
  const ImatrixRows rows = {{"blk.0.ffn_up.weight", {1, 2, 3}}};
  std::string bytes = GgufImatrix(rows);
  bytes.replace(bytes.find(".counts"), 7, ".Counts");
  CHECK_THAT(std::string(Read(bytes).status().message()), Contains("no counts"));
  CHECK_THAT(std::string(Read(GgufImatrix(rows, "imatrix", {1, 1})).status().message()), Contains("do not divide"));
}

TEST_CASE("another kind of GGUF file is said to be one") {
  const absl::Status status = Read(GgufImatrix(kRows, "model")).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(status.message()), Contains("\"model\"") && Contains("llama-imatrix"));
  CHECK(Read("").status().code() == absl::StatusCode::kDataLoss);
  CHECK(Read("{\"a\": 1}").status().code() == absl::StatusCode::kDataLoss);
  CHECK(ReadImatrixFile({}, "/nonexistent/imatrix").status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("a tensor that is there twice is refused") {
  const ImatrixRows rows = {{"blk.0.attn_q.weight", {1}}, {"blk.0.attn_q.weight", {2}}};
  CHECK(Read(LegacyImatrix(rows)).status().code() == absl::StatusCode::kDataLoss);
  CHECK(Read(GgufImatrix(rows)).status().code() == absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace autoscheme
