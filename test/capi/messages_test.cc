// What leaves the library for people to read is one line of valid UTF-8 that drives no terminal, whatever names hold.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "capi/capi_test.h"

namespace autoscheme {
namespace {

const std::vector<std::string> kHostile = {"a\nb",
                                           "a\rb",
                                           "a\tb",
                                           "\x1b[31mred",
                                           "\x07",
                                           "\xff\xfe",
                                           "\xc3",
                                           "\xc2\x9b"
                                           "31m",
                                           "\xe2\x80\xae"
                                           "abc",
                                           "\xe2\x80\xa8",
                                           "\x7f",
                                           "\xed\xa0\x80"};

// By the bytes alone, apart from the code under test: printable ASCII and well-formed sequences of others.
bool IsClean(const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7f || (c >= 0x80 && c < 0xc2) || c > 0xf4) return false;
    const size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    }
    const std::string character = text.substr(i, length);
    if (character >= "\xc2\x80" && character <= "\xc2\x9f") return false;
    if (character >= "\xe2\x80\xa8" && character <= "\xe2\x80\xae") return false;
    if (character >= "\xed\xa0\x80" && character <= "\xed\xbf\xbf") return false;
    i += length;
  }
  return true;
}

void CheckMessage(const Result& result) {
  INFO(result.message);
  CHECK_FALSE(result.ok());
  CHECK(result.message.size() > 10);
  CHECK(IsClean(result.message));
}

// Collects what is logged.
struct Log {
  std::vector<std::string> lines;
  explicit Log(const ContextPtr& context) {
    REQUIRE(autoscheme_context_set_log(context.get(), OnLog, this, nullptr, nullptr) == AUTOSCHEME_OK);
  }
  static int32_t OnLog(void* self, const autoscheme_log_message* message) {
    static_cast<Log*>(self)->lines.emplace_back(message->text);
    return 0;
  }
};

TEST_CASE("errors about paths, names and texts of the host are clean") {
  TinyCase tiny;
  Log log(tiny.context);
  SkeletonPtr skeleton;
  ScoresPtr scores;
  REQUIRE(tiny.Open(skeleton).ok());
  REQUIRE(tiny.ScoreAll(scores).ok());
  for (size_t h = 0; h < kHostile.size(); ++h) {
    CAPTURE(h);
    const std::string& hostile = kHostile[h];
    TinyCase other;
    other.model_dir = "/nonexistent/" + hostile;
    SkeletonPtr none;
    CheckMessage(other.Open(none));
    other.tokens = "/nonexistent/" + hostile;
    CalibrationPtr no_tokens;
    CheckMessage(other.Load(no_tokens));
    other.tokens = tiny.dir.Write("tokens.json", "[[1, \"" + hostile + "\"]]");
    CheckMessage(other.Load(no_tokens));
    CheckMessage(Call([&](autoscheme_error** e) {
      return autoscheme_scores_save(scores.get(), ("/nonexistent/" + hostile + "/s.json").c_str(), e);
    }));
    auto info = Struct<autoscheme_scheme_info>();
    CheckMessage(Call([&](autoscheme_error** e) { return autoscheme_scheme_find(hostile.c_str(), &info, e); }));
    for (int64_t i = 0; i < autoscheme_option_count(); ++i) {
      const Result set = other.Set(autoscheme_option_at(i), hostile.c_str());
      if (!set.ok()) CheckMessage(set);
    }
    CheckMessage(other.Set(AUTOSCHEME_OPTION_LAYER_CONFIG, ("{\"" + hostile + "\": 3}").c_str()));
    CheckMessage(other.Set(AUTOSCHEME_OPTION_LAYER_CONFIG, ("{\"x\": " + JsonQuoted(hostile) + "}").c_str()));

    OffloadPtr offload;
    autoscheme_offload_callbacks callbacks = {sizeof(callbacks), [](void*, const char*, void*, size_t) { return 0; },
                                              [](void*, const char*) { return 5; },
                                              [](void*, const char*, const void*, size_t) { return 0; }};
    REQUIRE(other.Set(AUTOSCHEME_OPTION_OFFLOAD_MODE, "offload").ok());
    REQUIRE(Make(offload, [&](auto** out, auto** e) {
              return autoscheme_offload_create(tiny.context.get(), nullptr, other.options.get(), &callbacks, nullptr,
                                               nullptr, out, e);
            }).ok());
    const int64_t shape[] = {-1};
    const char* name = hostile.c_str();
    auto manage = [&](int32_t dtype, int64_t rank) {
      return Call(
          [&](autoscheme_error** e) { return autoscheme_offload_manage(offload.get(), name, dtype, shape, rank, e); });
    };
    CheckMessage(manage(99, 0));
    CheckMessage(manage(AUTOSCHEME_DTYPE_F32, 9));
    CheckMessage(manage(AUTOSCHEME_DTYPE_F32, 1));
    CheckMessage(Call([&](autoscheme_error** e) { return autoscheme_offload_release(offload.get(), &name, 1, e); }));
    REQUIRE(manage(AUTOSCHEME_DTYPE_F32, 0).ok());
    CheckMessage(manage(AUTOSCHEME_DTYPE_F32, 0));
    CheckMessage(Call([&](autoscheme_error** e) { return autoscheme_offload_release(offload.get(), &name, 1, e); }));
  }
  for (const std::string& line : log.lines) CHECK(IsClean(line));
}

TEST_CASE("names in files reach errors and the log clean") {
  for (size_t h = 0; h < kHostile.size(); ++h) {
    CAPTURE(h);
    const std::string& hostile = kHostile[h];
    TinyCase tiny;
    Log log(tiny.context);
    REQUIRE(tiny.Set(AUTOSCHEME_OPTION_IGNORE_LAYERS, hostile.c_str()).ok());
    REQUIRE(tiny.Set(AUTOSCHEME_OPTION_SHARED_LAYERS, (hostile + ",x" + hostile).c_str()).ok());
    ScoresPtr scores;
    CheckMessage(tiny.ScoreAll(scores));  // no pattern, or none that matches
    REQUIRE(tiny.Set(AUTOSCHEME_OPTION_IGNORE_LAYERS, "").ok());
    CheckMessage(tiny.ScoreAll(scores));
    REQUIRE(tiny.Set(AUTOSCHEME_OPTION_SHARED_LAYERS, "").ok());
    REQUIRE(tiny.ScoreAll(scores).ok());
    RecipesPtr recipes;
    CHECK(Make(recipes, [&](auto** out, auto** e) {
            return autoscheme_scores_select(scores.get(), tiny.options.get(), nullptr, 0, out, e);
          }).ok());
    CheckMessage(Call([&](autoscheme_error** e) {
      int64_t at = 0;
      return autoscheme_recipes_find_layer(recipes.get(), 0, hostile.c_str(), &at, e);
    }));

    // A layer's name in scores.json, in an error about its loss and in one about reach.
    std::string text = JsonOf(scores);
    for (size_t at; (at = text.find("\"W4A16\"")) != std::string::npos;) text.replace(at, 7, JsonQuoted(hostile));
    ScoresPtr loaded;
    const std::string path = tiny.dir.Write("scores.json", text);
    const Result load = Make(
        loaded, [&](auto** out, auto** e) { return autoscheme_scores_load(tiny.context.get(), path.c_str(), out, e); });
    if (!load.ok()) {
      CheckMessage(load);  // not UTF-8
      continue;
    }
    const double target = 0.5;
    CheckMessage(Make(recipes, [&](auto** out, auto** e) {
      return autoscheme_scores_select(loaded.get(), nullptr, &target, 1, out, e);
    }));

    // An architecture and a tensor.
    tiny.dir.Write("model/config.json",
                   "{\"model_type\": " + JsonQuoted(hostile) + ", \"architectures\": [" + JsonQuoted(hostile) + "]}");
    SkeletonPtr skeleton;
    CheckMessage(tiny.Open(skeleton));
    WriteTinyModel(tiny.model, tiny.model_dir);
    std::vector<RawTensor> tensors = MakeTinyTensors(tiny.model);
    tensors.back().name = hostile;
    WriteTinyWeights(tensors, 1, tiny.model_dir);
    const Result open = tiny.Open(skeleton);
    CheckMessage(open);
    for (const std::string& line : log.lines) CHECK(IsClean(line));
  }
}

}  // namespace
}  // namespace autoscheme
