// A head that config.json ties to the embedding, or not, against the tensors that are there.
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "autoscheme/meta_skeleton.h"
#include "support/fault_io.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace autoscheme {
namespace {

using Catch::Contains;

struct Opened {
  absl::StatusOr<std::unique_ptr<MetaSkeleton>> skeleton;
  std::vector<std::string> warnings;
};

Opened Open(const std::string& dir, Io* io = nullptr) {
  Opened opened{nullptr, {}};
  Context context;
  context.io = io;
  context.log = [&](LogLevel, absl::string_view text) { opened.warnings.emplace_back(text); };
  opened.skeleton = MetaSkeleton::Open(context, dir);
  return opened;
}

RawTensor& Named(std::vector<RawTensor>& tensors, const std::string& name) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const RawTensor& t) { return t.name == name; });
}

// A model with both tensors whose config says `tied`.
struct Both {
  explicit Both(const std::string& dtype = "BF16", bool tied = true) {
    model.dtype = dtype;
    tensors = MakeTinyTensors(model);
    model.tied = tied;
    embedding = &Named(tensors, "model.embed_tokens.weight");
    head = &Named(tensors, "lm_head.weight");
  }
  Opened Write(int shards = 1, Io* io = nullptr, const std::string& key = "\"tie_word_embeddings\"") {
    std::string config = TinyConfig(model);
    config.replace(config.find("\"tie_word_embeddings\""), 21, key);
    std::ofstream(dir / "config.json") << config;
    if (shards > 1) std::filesystem::remove(dir / "model.safetensors");
    WriteTinyWeights(tensors, shards, dir.path());
    return Open(dir.path(), io);
  }
  TempDir dir;
  TinyModel model;
  std::vector<RawTensor> tensors;
  RawTensor *embedding, *head;
};

TEST_CASE("tied by what lies there alone: with a warning, unless the family ties by itself") {
  for (const char* type : {"llama", "gemma"}) {
    CAPTURE(type);
    Both both;
    both.tensors.erase(both.tensors.begin() + (both.head - both.tensors.data()));
    std::string config = TinyConfig(both.model);
    config.replace(config.find("\"tie_word_embeddings\""), 21, "\"head_dim\": 8, \"unused\"");
    config.replace(config.find("\"llama\""), 7, "\"" + std::string(type) + "\"");
    std::ofstream(both.dir / "config.json") << config;
    WriteTinyWeights(both.tensors, 1, both.dir.path());
    const Opened opened = Open(both.dir.path());
    INFO(opened.skeleton.status());
    REQUIRE(opened.skeleton.ok());
    CHECK((*opened.skeleton)->tied_head());
    const auto told = std::count_if(opened.warnings.begin(), opened.warnings.end(), [](const std::string& warning) {
      return warning.find("there is no \"lm_head.weight\": the head is taken to be the embedding") != std::string::npos;
    });
    CHECK(told == (std::string(type) == "llama" ? 1 : 0));
  }
}

TEST_CASE("tied in the config, but with another head: the head is used, with one warning") {
  Both both;
  for (const int shards : {1, 3}) {
    const Opened opened = both.Write(shards);
    REQUIRE(opened.skeleton.ok());
    CHECK_FALSE((*opened.skeleton)->tied_head());
    CHECK((*opened.skeleton)->head().weight->name == "lm_head.weight");
    REQUIRE(opened.warnings.size() == 1);
    CHECK_THAT(opened.warnings[0], Contains("tie_word_embeddings") && Contains("\"lm_head.weight\" differs"));
  }
}

TEST_CASE("tied in the config, and the head is the embedding once more: tied, silently") {
  Both both;
  both.head->bytes = both.embedding->bytes;
  for (const int shards : {1, 3}) {
    const Opened opened = both.Write(shards);
    REQUIRE(opened.skeleton.ok());
    CHECK((*opened.skeleton)->tied_head());
    CHECK((*opened.skeleton)->head().weight == (*opened.skeleton)->embedding());
    CHECK(opened.warnings.empty());
  }
}

TEST_CASE("one number that differs, the first or the last, makes another head") {
  Both both;
  for (const bool last : {false, true}) {
    both.head->bytes = both.embedding->bytes;
    both.head->bytes[last ? both.head->bytes.size() - 1 : 0] ^= 1;
    CHECK_FALSE((*both.Write().skeleton)->tied_head());
  }
}

TEST_CASE("a zero is a zero, whatever its sign and the types") {
  for (const std::string dtype : {"BF16", "F16", "F32"}) {
    for (const std::string& other : {dtype, std::string("F32")}) {
      INFO(dtype << ", " << other);
      Both both(dtype);
      const size_t width = dtype == "F32" ? 4 : 2, other_width = other == "F32" ? 4 : 2;
      both.embedding->bytes.assign(both.embedding->bytes.size(), '\0');
      both.head->dtype = other;
      both.head->bytes.assign(both.embedding->bytes.size() / width * other_width, '\0');
      both.head->bytes[other_width - 1] = '\x80';  // the sign of the first number
      const Opened opened = both.Write();
      REQUIRE(opened.skeleton.ok());
      CHECK((*opened.skeleton)->tied_head());
      CHECK(opened.warnings.empty());
      both.head->bytes[other_width - 1] = '\x01';
      CHECK_FALSE((*both.Write().skeleton)->tied_head());
    }
  }
}

TEST_CASE("nothing said: a head that is there is used but where the family ties and it is the embedding once more") {
  for (const bool same : {false, true}) {
    for (const std::string type : {"llama", "smollm3"}) {
      INFO(type << ", the same " << same);
      Both both;
      both.model.model_type = type;
      if (same) both.head->bytes = both.embedding->bytes;
      const Opened opened = both.Write(1, nullptr, "\"unrelated\"");
      REQUIRE(opened.skeleton.ok());
      const bool ties = type != "llama";
      CHECK((*opened.skeleton)->tied_head() == (ties && same));
      REQUIRE(opened.warnings.size() == (ties && !same ? 1 : 0));
      if (ties && !same) CHECK_THAT(opened.warnings[0], Contains("by saying nothing") && Contains("differs"));
    }
  }
}

TEST_CASE("heads are compared as numbers where the types differ") {
  Both both("BF16");
  // bfloat16 is the upper half of float32.
  const auto widen = [](const std::string& narrow) {
    std::string wide;
    for (size_t i = 0; i < narrow.size(); i += 2) wide += std::string(2, '\0') + narrow.substr(i, 2);
    return wide;
  };
  both.head->dtype = "F32";
  both.head->bytes = widen(both.embedding->bytes);
  CHECK((*both.Write().skeleton)->tied_head());
  both.head->bytes[0] = 1;
  CHECK_FALSE((*both.Write().skeleton)->tied_head());
}

TEST_CASE(
    "not tied in the config, or nothing said: a head that is there is used, even where it is the embedding once more") {
  Both both("BF16", false);
  both.head->bytes = both.embedding->bytes;
  const Opened opened = both.Write();
  REQUIRE(opened.skeleton.ok());
  CHECK_FALSE((*opened.skeleton)->tied_head());
  CHECK(opened.warnings.empty());
}

TEST_CASE("a head of another shape is another head, and must fit the config") {
  Both both;
  both.head->shape = {both.model.vocab / 2, both.model.hidden * 2};
  const Opened opened = both.Write();
  CHECK(opened.skeleton.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(opened.skeleton.status().message()), Contains("lm_head.weight") && Contains("shape"));
}

TEST_CASE("not tied in the config and no head: the key and the remedy are named") {
  Both both("BF16", false);
  both.tensors.erase(both.tensors.begin() + (both.head - both.tensors.data()));
  const Opened opened = both.Write();
  CHECK(opened.skeleton.status().code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(opened.skeleton.status().message()),
             Contains("tie_word_embeddings") && Contains("lm_head.weight") && Contains("set it to true"));
}

TEST_CASE("comparing heads reads both in pieces, stops at the first difference, and reports what fails") {
  Both both;
  both.model.vocab = 40000, both.model.hidden = 32;  // 2.4 MiB each
  both.tensors = MakeTinyTensors([&] {
    TinyModel untied = both.model;
    untied.tied = false;
    return untied;
  }());
  both.embedding = &Named(both.tensors, "model.embed_tokens.weight"),
  both.head = &Named(both.tensors, "lm_head.weight");
  const uint64_t bytes = both.head->bytes.size();
  FaultIo io;
  CHECK_FALSE((*both.Write(1, &io).skeleton)->tied_head());
  const uint64_t until_difference = io.bytes_read();
  CHECK(until_difference < bytes);
  both.head->bytes = both.embedding->bytes;
  FaultIo whole;
  CHECK((*both.Write(1, &whole).skeleton)->tied_head());
  CHECK(whole.bytes_read() > 2 * bytes);
  // Calls of Pread: config, header length, header, then pieces.
  FaultIo broken(kPread, EIO, 6, false);
  const Opened opened = both.Write(1, &broken);
  CHECK(broken.fired() == 1);
  CHECK(opened.skeleton.status().code() == absl::StatusCode::kUnavailable);
  CHECK_THAT(std::string(opened.skeleton.status().message()), Contains("tensor \"") && Contains("offset"));
}

}  // namespace
}  // namespace autoscheme
