#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "autoscheme/recipe.h"
#include "base/checked.h"
#include "base/count.h"
#include "base/io.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "formats/bits.h"
#include "formats/data_types.h"
#include "formats/scheme_json.h"
#include "formats/scorer_names.h"
#include "formats/stand_in.h"
#include "writers/run_members.h"

namespace autoscheme {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;
constexpr int64_t kMaxFeatures = int64_t{1} << 31;
constexpr int64_t kMaxBlock = 1 << 20;

// Builds the table member by member; `what_` begins every message.
class Reader {
 public:
  explicit Reader(const std::string& path) : what_(absl::StrCat("scores file ", Quoted(path))) {}
  absl::StatusOr<ScoreTable> Read(absl::string_view text);

 private:
  absl::Status ReadHead(const JsonValue& root);
  absl::Status ReadModel(const JsonValue& model);
  absl::Status ReadLayer(const std::string& name, const JsonValue& value);
  absl::Status ReadCalibration(const JsonValue& calibration);
  absl::Status ReadMenu(const JsonValue& menu);
  absl::Status ReadCrossEntropies(const JsonValue& losses);
  absl::Status ReadScores(const JsonValue& schemes);
  absl::Status ReadRun(const JsonValue& run);
  absl::Status ReadScore(const std::string& where, const JsonValue& value, size_t scheme, size_t layer);

  absl::StatusOr<const JsonValue*> Object(const JsonValue& parent, const char* key, const std::string& where) const;
  absl::StatusOr<double> Number(const JsonValue& value, const std::string& where) const;

  const std::string what_;
  ScoreTable table_;
  absl::flat_hash_map<std::string, size_t> layer_index_, scheme_index_;
};

}  // namespace

absl::StatusOr<ScoreTable> ReadScores(const Context& context, const std::string& path) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string text, ReadFileToString(IoOf(context), path, kMaxFileBytes));
  return Reader(path).Read(text);
}

namespace {

absl::StatusOr<ScoreTable> Reader::Read(absl::string_view text) {
  AUTOSCHEME_ASSIGN_OR_RETURN(const Json root, ParseJson(text, what_));
  AUTOSCHEME_RETURN_IF_ERROR(ReadHead(root));
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* model, Object(root, "model", what_));
  AUTOSCHEME_RETURN_IF_ERROR(ReadModel(*model));
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* calibration, Object(root, "calibration", what_));
  AUTOSCHEME_RETURN_IF_ERROR(ReadCalibration(*calibration));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.dtype, JsonString(root, "dtype", what_));
  // Earlier versions had one scorer and did not name it.
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.scorer, JsonStringOr(root, "scorer", std::string(kTwoTermScorer), what_));
  if (std::find(std::begin(kScorerNames), std::end(kScorerNames), table_.scorer) == std::end(kScorerNames)) {
    return absl::InvalidArgumentError(absl::StrCat(what_, ": scorer is ", Quoted(table_.scorer), "; this build knows ",
                                                   absl::StrJoin(kScorerNames, ", ")));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* menu, Object(root, "menu", what_));
  AUTOSCHEME_RETURN_IF_ERROR(ReadMenu(*menu));
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* losses, Object(root, "ce_loss", what_));
  AUTOSCHEME_RETURN_IF_ERROR(ReadCrossEntropies(*losses));
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* schemes, Object(root, "schemes", what_));
  AUTOSCHEME_RETURN_IF_ERROR(ReadScores(*schemes));
  if (JsonFind(root, "run") != nullptr) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* run, Object(root, "run", what_));
    AUTOSCHEME_RETURN_IF_ERROR(ReadRun(*run));
  }
  return std::move(table_);
}

absl::Status Reader::ReadHead(const JsonValue& root) {
  if (!root.IsObject()) return absl::InvalidArgumentError(absl::StrCat(what_, " is not a JSON object"));
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string format, JsonString(root, "format", what_));
  if (format != "autoscheme-scores") {
    return absl::InvalidArgumentError(
        absl::StrCat(what_, " has the format ", Quoted(format), "; wanted is \"autoscheme-scores\""));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t version, JsonInt(root, "version", what_));
  if (version != 1) {
    return absl::UnimplementedError(absl::StrCat(what_, " has version ", version,
                                                 "; this build reads version 1: score again or update autoscheme"));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadModel(const JsonValue& model) {
  const std::string where = absl::StrCat(what_, ", model");
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.model, JsonString(model, "name", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.model_type, JsonString(model, "model_type", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.fingerprint, JsonString(model, "fingerprint", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.tied_head, JsonBool(model, "tied_head", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.other_bytes, JsonIntOr(model, "other_bytes", -1, where));
  // 2^53, as for weights: sums stay far inside an int64.
  if (table_.other_bytes < -1 || table_.other_bytes > int64_t{1} << 53) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": other_bytes is ", table_.other_bytes, ", must be from 0 to 2^53"));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const JsonValue* layers, Object(model, "layers", where));
  for (const auto& member : layers->GetObject())
    AUTOSCHEME_RETURN_IF_ERROR(ReadLayer(std::string(JsonText(member.name)), member.value));
  if (table_.layers.empty()) return absl::InvalidArgumentError(absl::StrCat(where, ": layers is empty"));
  return absl::OkStatus();
}

absl::Status Reader::ReadLayer(const std::string& name, const JsonValue& value) {
  const std::string where = absl::StrCat(what_, ", layer ", Quoted(name));
  if (!value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
  LayerInfo layer;
  layer.name = name;
  const JsonValue* shape = JsonFind(value, "shape");
  if (shape == nullptr || !shape->IsArray() || shape->Size() != 2 || !(*shape)[0].IsInt64() || !(*shape)[1].IsInt64()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": shape must be [rows, columns]"));
  }
  layer.out_features = (*shape)[0].GetInt64();
  layer.in_features = (*shape)[1].GetInt64();
  for (int64_t size : {layer.out_features, layer.in_features}) {
    if (size >= 1 && size <= kMaxFeatures) continue;
    return absl::InvalidArgumentError(absl::StrCat(where, ": shape holds ", size, "; it may hold 1 to ", kMaxFeatures));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t block, JsonIntOr(value, "block", -1, where));
  if (block < -1 || block > kMaxBlock) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": block is ", block, "; it may be 0 to ", kMaxBlock));
  }
  layer.block = static_cast<int>(block);
  AUTOSCHEME_ASSIGN_OR_RETURN(layer.is_head, JsonBoolOr(value, "head", false, where));
  AUTOSCHEME_ASSIGN_OR_RETURN(layer.is_embedding, JsonBoolOr(value, "embedding", false, where));
  if (const JsonValue* fixed = JsonFind(value, "fixed"); fixed != nullptr) {
    if (!fixed->IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, ": fixed is not an object"));
    Scheme scheme;
    AUTOSCHEME_ASSIGN_OR_RETURN(scheme.name, JsonString(*fixed, "name", where));
    AUTOSCHEME_RETURN_IF_ERROR(ReadSchemeFields(*fixed, where, &scheme));
    AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
    layer.fixed = std::move(scheme);
  }
  layer_index_[name] = table_.layers.size();
  table_.layers.push_back(std::move(layer));
  return absl::OkStatus();
}

absl::Status Reader::ReadCalibration(const JsonValue& calibration) {
  const std::string where = absl::StrCat(what_, ", calibration");
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.nsamples, JsonInt(calibration, "nsamples", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.seqlen, JsonInt(calibration, "seqlen", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.batch_size, JsonInt(calibration, "batch_size", where));
  AUTOSCHEME_ASSIGN_OR_RETURN(table_.calibration_sha256, JsonString(calibration, "sha256", where));
  return absl::OkStatus();
}

absl::Status Reader::ReadMenu(const JsonValue& menu) {
  for (const auto& member : menu.GetObject()) {
    Scheme scheme;
    scheme.name = std::string(JsonText(member.name));
    const std::string where = absl::StrCat(what_, ", menu, ", Quoted(scheme.name));
    if (!member.value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
    AUTOSCHEME_RETURN_IF_ERROR(ReadSchemeFields(member.value, where, &scheme));
    AUTOSCHEME_RETURN_IF_ERROR(ValidateScheme(scheme));
    scheme_index_[scheme.name] = table_.schemes.size();
    table_.schemes.push_back(std::move(scheme));
  }
  if (table_.schemes.empty()) return absl::InvalidArgumentError(absl::StrCat(what_, ": menu is empty"));
  table_.ce_loss.resize(table_.schemes.size());
  table_.scores.resize(table_.schemes.size());
  return absl::OkStatus();
}

absl::Status Reader::ReadCrossEntropies(const JsonValue& losses) {
  for (const auto& member : losses.GetObject()) {
    const std::string where = absl::StrCat(what_, ", ce_loss, ", Quoted(JsonText(member.name)));
    const auto found = scheme_index_.find(JsonText(member.name));
    if (found == scheme_index_.end()) return absl::InvalidArgumentError(absl::StrCat(where, " is not in the menu"));
    if (!member.value.IsArray()) return absl::InvalidArgumentError(absl::StrCat(where, " is not a list"));
    for (const JsonValue& value : member.value.GetArray()) {
      AUTOSCHEME_ASSIGN_OR_RETURN(const double loss, Number(value, where));
      table_.ce_loss[found->second].push_back(loss);
    }
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadScores(const JsonValue& schemes) {
  size_t free_layers = 0;
  for (const LayerInfo& layer : table_.layers) free_layers += !layer.fixed.has_value();
  for (const auto& member : schemes.GetObject()) {
    const std::string where = absl::StrCat(what_, ", scheme ", Quoted(JsonText(member.name)));
    const auto scheme = scheme_index_.find(JsonText(member.name));
    if (scheme == scheme_index_.end()) return absl::InvalidArgumentError(absl::StrCat(where, " is not in the menu"));
    if (!member.value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
    if (member.value.MemberCount() != free_layers) {
      return absl::InvalidArgumentError(absl::StrCat(where, " has scores for ",
                                                     Count(member.value.MemberCount(), "layer"), "; the model has ",
                                                     free_layers, " that are not fixed"));
    }
    table_.scores[scheme->second].resize(table_.layers.size());
    for (const auto& layer : member.value.GetObject()) {
      const std::string layer_where = absl::StrCat(where, ", layer ", Quoted(JsonText(layer.name)));
      const auto index = layer_index_.find(JsonText(layer.name));
      if (index == layer_index_.end() || table_.layers[index->second].fixed.has_value()) {
        return absl::InvalidArgumentError(absl::StrCat(layer_where, " is not a layer of the model that is not fixed"));
      }
      AUTOSCHEME_RETURN_IF_ERROR(ReadScore(layer_where, layer.value, scheme->second, index->second));
    }
  }
  for (size_t s = 0; s < table_.schemes.size(); ++s) {
    if (!table_.scores[s].empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(what_, " has no scores for ", Quoted(table_.schemes[s].name)));
  }
  return absl::OkStatus();
}

// `loss` follows from the other two and is not read back.
absl::Status Reader::ReadScore(const std::string& where, const JsonValue& value, size_t scheme, size_t layer) {
  if (!value.IsObject()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
  const LayerInfo& info = table_.layers[layer];
  Scheme measured = table_.schemes[scheme];
  LayerScore& score = table_.scores[scheme][layer];
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string stand_in, JsonStringOr(value, "stand_in", "", where));
  if (!stand_in.empty()) {
    measured = StoredScheme(measured, info);
    if (stand_in != measured.name || !StandIn(table_.schemes[scheme], info).has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": stand_in is ", Quoted(stand_in), "; for this scheme and shape it is ",
                       StandIn(table_.schemes[scheme], info).has_value() ? Quoted(measured.name) : "none"));
    }
    score.stand_in = true;
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t bits, JsonInt(value, "bits", where));
  const int64_t wanted = LayerBits(measured, info.out_features, info.in_features, false);
  if (bits != wanted) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": bits is ", bits, "; shape and scheme make ", wanted));
  }
  for (const auto& [key, target] :
       {std::make_pair("weight", &score.weight), std::make_pair("activation", &score.activation)}) {
    const JsonValue* number = JsonFind(value, key);
    if (number == nullptr) return absl::InvalidArgumentError(absl::StrCat(where, ": ", key, " is missing"));
    AUTOSCHEME_ASSIGN_OR_RETURN(*target, Number(*number, absl::StrCat(where, ", ", key)));
    if (*target < 0) return absl::InvalidArgumentError(absl::StrCat(where, ": ", key, " is negative: ", *target));
  }
  AUTOSCHEME_ASSIGN_OR_RETURN(score.standard_error, JsonDoubleOr(value, "standard_error", 0, where));
  if (!(score.standard_error >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": standard_error is negative: ", score.standard_error));
  }
  return absl::OkStatus();
}

// The shares follow from the rest and are not read back. A member that is absent is 0, an engine "buffered".
absl::Status Reader::ReadRun(const JsonValue& run) {
  const std::string where = absl::StrCat(what_, ", run");
  RunStats stats;
  AUTOSCHEME_ASSIGN_OR_RETURN(const std::string engine,
                              JsonStringOr(run, "io_engine", std::string(IoEngineName(stats.io_engine)), where));
  // Earlier versions had another engine that read past the page cache.
  const auto known = IoEngineFromName(engine == "uring" ? "direct" : engine);
  if (!known.ok() || *known == IoEngine::kAuto) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": io_engine is ", Quoted(engine), "; known: direct, buffered"));
  }
  stats.io_engine = *known;
  for (const BytesMember& member : kRunBytes) {
    AUTOSCHEME_ASSIGN_OR_RETURN(const int64_t bytes, JsonIntOr(run, member.name, 0, where));
    if (bytes < 0) return absl::InvalidArgumentError(absl::StrCat(where, ": ", member.name, " is negative: ", bytes));
    stats.*member.field = static_cast<uint64_t>(bytes);
  }
  for (const NumberMember& member : kRunNumbers) {
    AUTOSCHEME_ASSIGN_OR_RETURN(stats.*member.field, JsonDoubleOr(run, member.name, 0, where));
    if (!(stats.*member.field >= 0)) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": ", member.name, " is negative: ", stats.*member.field));
    }
  }
  table_.run = stats;
  return absl::OkStatus();
}

absl::StatusOr<const JsonValue*> Reader::Object(const JsonValue& parent, const char* key,
                                                const std::string& where) const {
  const JsonValue* value = JsonFind(parent, key);
  if (value == nullptr || !value->IsObject()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", key, value == nullptr ? " is missing" : " is not an object"));
  }
  return value;
}

// A finite number, or one of the three strings that stand for what JSON cannot say.
absl::StatusOr<double> Reader::Number(const JsonValue& value, const std::string& where) const {
  if (value.IsNumber() && std::isfinite(value.GetDouble())) return value.GetDouble();
  if (value.IsString()) {
    const std::string text(JsonText(value));
    if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
    if (text == "Infinity") return std::numeric_limits<double>::infinity();
    if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  }
  return absl::InvalidArgumentError(absl::StrCat(where, " must be a number, \"NaN\", \"Infinity\" or \"-Infinity\""));
}

}  // namespace
}  // namespace autoscheme
