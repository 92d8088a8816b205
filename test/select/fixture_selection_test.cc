// Rules and selection against the reference, on the losses that the reference measured: every selection of the score
// fixtures, and of the few that are carried under test/golden/select.
#include <dirent.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "autoscheme/recipe.h"
#include "base/json.h"
#include "formats/bits.h"
#include "formats/rules.h"
#include "formats/scheme_json.h"
#include "select/losses.h"

namespace autoscheme {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Text(const JsonValue& value) { return std::string(value.GetString(), value.GetStringLength()); }

std::vector<std::string> Keys(const JsonValue& object) {
  std::vector<std::string> keys;
  for (const auto& member : object.GetObject()) keys.push_back(Text(member.name));
  return keys;
}

// One case: expected.json, and the model's linear layers.
struct Case {
  std::string name;
  Json expected, config;
  std::string config_text;
  std::vector<LayerInfo> candidates;
  bool tied = false;
};

using Shapes = std::map<std::string, std::pair<int64_t, int64_t>>;

Shapes ReadShapes(const std::string& folder, const Json& expected) {
  Shapes shapes;
  if (const JsonValue* listed = JsonFind(expected, "shapes"); listed != nullptr) {
    for (const auto& member : listed->GetObject()) {
      shapes[Text(member.name)] = {member.value[0].GetInt64(), member.value[1].GetInt64()};
    }
    return shapes;
  }
  const std::string file = ReadText(folder + "/model/model.safetensors");
  if (file.size() > 8) {
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    const auto header = ParseJson(absl::string_view(file).substr(8, length), "header");
    REQUIRE(header.ok());
    for (const auto& member : header->GetObject()) {
      if (Text(member.name) == "__metadata__" || member.value["shape"].Size() != 2) continue;
      std::string name = Text(member.name);
      name.resize(name.size() - std::string(".weight").size());
      // The reference calls Mixtral's experts by other names than the file does.
      if (absl::StrContains(name, "block_sparse_moe")) {
        name = absl::StrReplaceAll(
            name, {{"block_sparse_moe", "mlp"}, {".w1", ".gate_proj"}, {".w2", ".down_proj"}, {".w3", ".up_proj"}});
      }
      shapes[name] = {member.value["shape"][0].GetInt64(), member.value["shape"][1].GetInt64()};
    }
    return shapes;
  }
  // SmolLM2-135M: its weights are not there.
  for (const std::string& name : Keys(expected["singles"]["W4A16"]["scores"])) {
    std::pair<int64_t, int64_t> shape = {576, 576};
    if (absl::EndsWith(name, "k_proj") || absl::EndsWith(name, "v_proj")) shape = {192, 576};
    if (absl::EndsWith(name, "gate_proj") || absl::EndsWith(name, "up_proj")) shape = {1536, 576};
    if (absl::EndsWith(name, "down_proj")) shape = {576, 1536};
    shapes[name] = shape;
  }
  shapes["lm_head"] = {49152, 576};
  return shapes;
}

LayerInfo MakeLayer(const std::string& name, const Shapes& shapes) {
  LayerInfo layer;
  layer.name = name;
  REQUIRE(shapes.count(name) == 1);
  std::tie(layer.out_features, layer.in_features) = shapes.at(name);
  const size_t at = name.find("layers.");
  if (at != std::string::npos) layer.block = std::atoi(name.c_str() + at + 7);
  layer.is_head = name == "lm_head";
  layer.is_embedding = absl::EndsWith(name, "embed_tokens");
  return layer;
}

Case LoadCase(const std::string& folder) {
  Case c;
  c.name = folder.substr(folder.rfind('/') + 1);
  auto expected = ParseJson(ReadText(folder + "/expected.json"), folder);
  REQUIRE(expected.ok());
  c.expected = *std::move(expected);
  const Shapes shapes = ReadShapes(folder, c.expected);
  const JsonValue& run = c.expected["singles"]["W4A16"];
  for (const std::string& name : Keys(run["scores"])) c.candidates.push_back(MakeLayer(name, shapes));
  if (shapes.count("model.embed_tokens") == 1) c.candidates.push_back(MakeLayer("model.embed_tokens", shapes));
  c.tied = shapes.count("lm_head") == 0 || c.name == "smollm2_135m";
  LayerInfo head;
  head.name = "lm_head";
  head.is_head = true;
  std::tie(head.out_features, head.in_features) =
      c.tied && c.name != "smollm2_135m" ? shapes.at("model.embed_tokens") : shapes.at("lm_head");
  c.candidates.insert(
      std::find_if(c.candidates.begin(), c.candidates.end(), [](const LayerInfo& layer) { return layer.is_embedding; }),
      head);
  c.config_text = ReadText(folder + "/model/config.json");
  return c;
}

// One run of a case: a menu with its settings, and the layers that the rules give.
struct Run {
  std::string title;
  const JsonValue* json = nullptr;
  const JsonValue* scores = nullptr;  // option -> layer -> [bits, loss]; null where the file holds none
  RuleOptions rules;
  SelectOptions select;
  std::vector<LayerInfo> layers;
};

Run MakeRun(const Case& c, const std::vector<std::string>& options, const JsonValue& json) {
  Run run;
  run.json = &json;
  for (const std::string& option : options) {
    absl::StrAppend(&run.title, run.title.empty() ? "" : "+", option);
    const auto scheme = FindScheme(option);
    REQUIRE(scheme.ok());
    run.rules.menu.push_back(*scheme);
  }
  run.rules.tied_head = c.tied;
  run.rules.config_text = c.config_text;
  if (json.HasMember("ignore_layers")) run.rules.ignore_layers = Text(json["ignore_layers"]);
  if (json.HasMember("quant_lm_head")) run.rules.quant_lm_head = json["quant_lm_head"].GetBool();
  if (json.HasMember("ignore_scale_zp_bits")) run.select.ignore_scale_zp_bits = json["ignore_scale_zp_bits"].GetBool();
  if (json.HasMember("layer_config")) {
    for (const auto& member : json["layer_config"].GetObject()) {
      Scheme scheme = run.rules.menu[0];
      scheme.name = "fixed by the user";
      REQUIRE(ReadSchemeFields(member.value, "layer_config", &scheme).ok());
      run.rules.layer_config.emplace_back(Text(member.name), scheme);
    }
  }
  if (json.HasMember("shared_layers")) {
    for (const JsonValue& group : json["shared_layers"].GetArray()) {
      run.select.shared_layers.emplace_back();
      for (const JsonValue& pattern : group.GetArray()) run.select.shared_layers.back().push_back(Text(pattern));
    }
  }
  if (json.HasMember("scores")) run.scores = &json["scores"];
  const auto layers = ResolveLayers(c.candidates, run.rules);
  INFO(layers.status());
  REQUIRE(layers.ok());
  run.layers = *layers;
  return run;
}

void CheckLayers(const Case& c, const Run& run) {
  const JsonValue* names = JsonFind(*run.json, "quant_layer_names");
  if (names == nullptr) names = JsonFind(c.expected["singles"]["W4A16"], "quant_layer_names");
  if (names != nullptr) {
    std::set<std::string> want, got;
    for (const JsonValue& name : names->GetArray()) want.insert(Text(name));
    for (const LayerInfo& layer : run.layers) got.insert(layer.name);
    CHECK(got == want);
  }
  const JsonValue* fixed = JsonFind(*run.json, "fixed_layers");
  for (const LayerInfo& layer : run.layers) {
    const JsonValue* want = fixed == nullptr ? nullptr : JsonFind(*fixed, layer.name);
    INFO(layer.name);
    REQUIRE(layer.fixed.has_value() == (want != nullptr));
    if (want == nullptr) continue;
    Scheme scheme;
    REQUIRE(ReadSchemeFields(*want, layer.name, &scheme).ok());
    CHECK(SchemeToJson(*layer.fixed) == SchemeToJson(scheme));
  }
}

// The losses are the reference's; they go into the term that this menu counts.
ScoreTable MakeTable(const Case& c, const Run& run) {
  ScoreTable table;
  table.tied_head = c.tied;
  table.schemes = run.rules.menu;
  table.layers = run.layers;
  const bool weight = NeedWeightTerm(run.rules.menu);
  for (const Scheme& scheme : table.schemes) {
    const JsonValue* losses = nullptr;
    if (run.scores != nullptr) {
      losses = JsonFind(*run.scores, scheme.name);
    } else if (!scheme.IsPassThrough()) {  // sets of SmolLM2 refer to the single runs
      losses = JsonFind(c.expected["singles"][scheme.name.c_str()], "scores");
    }
    std::vector<LayerScore> row(table.layers.size());
    for (size_t l = 0; l < row.size() && losses != nullptr; ++l) {
      const LayerInfo& layer = table.layers[l];
      if (layer.fixed.has_value() || layer.is_embedding) continue;
      const JsonValue* entry = JsonFind(*losses, layer.name);
      INFO(layer.name << " " << scheme.name);
      REQUIRE(entry != nullptr);
      CHECK(LayerBits(scheme, layer.out_features, layer.in_features, run.select.ignore_scale_zp_bits) ==
            (*entry)[0].GetInt64());
      (weight ? row[l].weight : row[l].activation) = (*entry)[1].GetDouble();
    }
    table.scores.push_back(std::move(row));
  }
  return table;
}

void CheckRecipe(const JsonValue& want, const Recipe& got) {
  for (const LayerChoice& choice : got.layers) {
    const JsonValue* scheme = JsonFind(want["layer_config"], choice.layer);
    INFO(choice.layer);
    REQUIRE(scheme != nullptr);
    if (absl::EndsWith(choice.layer, "embed_tokens") && choice.scheme.name == "GGUF:Q5_0") {
      // The reference's file still says the k-quant, but its bits are those of the stand-in.
      CHECK(absl::StrContains(Text(*scheme), "_K"));
    } else if (scheme->IsString()) {
      CHECK(choice.scheme.name == Text(*scheme));
    } else {
      Scheme fields;
      fields.group = choice.scheme.group;  // None in a fallback to 16 bits
      REQUIRE(ReadSchemeFields(*scheme, choice.layer, &fields).ok());
      CHECK(choice.scheme.bits == fields.bits);
      CHECK(choice.scheme.data_type == fields.data_type);
      CHECK(choice.scheme.group == fields.group);
    }
  }
  CHECK(got.layers.size() == want["layer_config"].MemberCount());
  CHECK(got.loss == Approx(want["total_loss"].GetDouble()).epsilon(1e-12));
  CHECK(got.total_bits == want["achieved_bits"].GetInt64());
  CHECK(got.total_params == want["achieved_params"].GetInt64());
  CHECK(got.avg_bits == Approx(want["achieved_avg_bits"].GetDouble()).epsilon(1e-12));
  CHECK(got.gap == 0);
}

struct Tally {
  int checked = 0, ours_only = 0;
  int refused = 0;                     // by our own rules
  std::vector<std::string> otherwise;  // chosen otherwise by our own rules
  std::vector<std::string> skipped;
};

// By our own rules: the same but where the reference exceeds the target, or a smaller target gives less loss.
void CheckOwnRules(const ScoreTable& table, SelectOptions options, const Recipe& reference, Tally* tally) {
  options.reference_rules = false;
  const auto own = SelectRecipes(table, options);
  INFO(own.status());
  if (!own.ok()) {
    CHECK((absl::StrContains(own.status().message(), "reachable range") ||
           absl::StrContains(own.status().message(), "must have one scheme")));
    ++tally->refused;
    return;
  }
  CHECK(own->at(0).avg_bits <= options.avg_bits[0] + 1e-5);
  bool same = true;
  for (size_t l = 0; l < own->at(0).layers.size(); ++l) {
    same = same && own->at(0).layers[l].scheme.name == reference.layers[l].scheme.name;
  }
  if (!same)
    tally->otherwise.push_back(absl::StrCat(options.avg_bits[0], " bits: loss ", own->at(0).loss, " at ",
                                            own->at(0).avg_bits, ", the reference ", reference.loss, " at ",
                                            reference.avg_bits));
}

void CheckRun(const Case& c, const Run& run, Tally* tally) {
  INFO(c.name << ": " << run.title);
  CheckLayers(c, run);
  const bool has_scores = run.scores != nullptr || c.name == "smollm2_135m";
  for (const JsonValue& want : (*run.json)["selection"].GetArray()) {
    const std::string error = want.HasMember("error") ? Text(want["error"]) : "";
    const bool bf16_alone = run.title == "BF16";
    if ((!has_scores && !bf16_alone) ||
        (!error.empty() && !bf16_alone && error != "ValueError: Avg bits is too small")) {
      tally->skipped.push_back(absl::StrCat(c.name, ": ", run.title, " (the reference has no scores: ", error, ")"));
      continue;
    }
    const ScoreTable table = MakeTable(c, run);
    SelectOptions options = run.select;
    options.avg_bits = {bf16_alone ? 16.0 : want["avg_bits"].GetDouble()};
    options.reference_rules = true;
    const auto got = SelectRecipes(table, options);
    INFO("target " << options.avg_bits[0] << " " << got.status());
    REQUIRE(got.ok());
    // The reference may fall one bit short of its minimum, and cannot choose from BF16 alone (docs/algorithm.md 9.1).
    if (!error.empty()) {
      for (const LayerChoice& choice : got->at(0).layers) CHECK(choice.scheme.name == run.title);
      ++tally->ours_only;
      continue;
    }
    CheckRecipe(want, got->at(0));
    ++tally->checked;
    CheckOwnRules(table, options, got->at(0), tally);
  }
}

void CheckCases(const std::string& root, Tally* tally) {
  DIR* dir = opendir(root.c_str());
  if (dir == nullptr) return;
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir)) {
    const std::string folder = absl::StrCat(root, "/", entry->d_name);
    if (entry->d_name[0] != '.' && std::ifstream(folder + "/expected.json").good()) names.push_back(folder);
  }
  closedir(dir);
  std::sort(names.begin(), names.end());
  for (const std::string& folder : names) {
    const Case c = LoadCase(folder);
    for (const auto& member : c.expected["singles"].GetObject()) {
      const std::string option = Text(member.name);
      Run run = MakeRun(c, {option}, member.value);
      // A single run holds its scores without the level of the option.
      Json wrapped(rapidjson::kObjectType);
      if (run.scores != nullptr) {
        wrapped.AddMember(JsonValue(option, wrapped.GetAllocator()), JsonValue(*run.scores, wrapped.GetAllocator()),
                          wrapped.GetAllocator());
        run.scores = &wrapped;
      }
      CheckRun(c, run, tally);
    }
    for (const JsonValue& set : c.expected["sets"].GetArray()) {
      std::vector<std::string> options;
      for (const JsonValue& option : set["options"].GetArray()) options.push_back(Text(option));
      CheckRun(c, MakeRun(c, options, set), tally);
    }
  }
}

TEST_CASE("every selection of the carried fixtures comes out as the reference's") {
  Tally tally;
  CheckCases(absl::StrCat(AUTOSCHEME_GOLDEN_DIR, "/select"), &tally);
  CHECK(tally.checked > 50);
}

TEST_CASE("every selection of the score fixtures comes out as the reference's") {
  const char* named = std::getenv("AUTOSCHEME_FIXTURES");
  const std::string root = named != nullptr ? named : absl::StrCat(AUTOSCHEME_SOURCE_DIR, "/../shared/fixtures");
  Tally tally;
  CheckCases(root + "/scores", &tally);
  std::cout << tally.checked << " selections equal, " << tally.ours_only << " that only we can make\n";
  std::cout << tally.otherwise.size() << " come out otherwise by our own rules, " << tally.refused << " are refused\n";
  for (const std::string& otherwise : tally.otherwise) std::cout << "  " << otherwise << "\n";
  for (const std::string& skipped : tally.skipped) std::cout << "skipped " << skipped << "\n";
}

}  // namespace
}  // namespace autoscheme
