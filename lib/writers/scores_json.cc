#include <numeric>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "autoscheme/recipe.h"
#include "base/io.h"
#include "base/output_file.h"
#include "formats/bits.h"
#include "formats/scheme_json.h"
#include "formats/stand_in.h"
#include "select/losses.h"
#include "writers/json_text.h"
#include "writers/run_members.h"

namespace autoscheme {
namespace {

absl::Status CheckNames(const ScoreTable& table);
void WriteModel(const ScoreTable& table, PageWriter* page);
void WriteLayer(const LayerInfo& layer, LineWriter* line);
void WriteCalibration(const ScoreTable& table, PageWriter* page);
void WriteMenu(const ScoreTable& table, PageWriter* page);
void WriteCrossEntropies(const ScoreTable& table, PageWriter* page);
void WriteLosses(const ScoreTable& table, PageWriter* page);

}  // namespace

absl::Status WriteScores(const Context& context, const ScoreTable& table, const std::string& path) {
  if (absl::Status status = CheckNames(table); !status.ok()) return status;
  return WriteOutput(IoOf(context), path, ScoresToJson(table));
}

std::string ScoresToJson(const ScoreTable& table) {
  return JsonFile("autoscheme-scores", [&](PageWriter* page) {
    WriteModel(table, page);
    WriteCalibration(table, page);
    page->Key("dtype");
    PutString(page, table.dtype);
    page->Key("scorer");
    PutString(page, table.scorer);
    WriteMenu(table, page);
    WriteCrossEntropies(table, page);
    WriteLosses(table, page);
    if (table.run.has_value()) WriteRun(*table.run, page);
  });
}

namespace {

// Names are keys of the file: each may stand there once.
absl::Status CheckNames(const ScoreTable& table) {
  absl::flat_hash_set<std::string> schemes, layers;
  for (const Scheme& scheme : table.schemes) {
    if (schemes.insert(ToUtf8(scheme.name)).second) continue;
    return absl::InvalidArgumentError(absl::StrCat("the scores hold the scheme ", Quoted(scheme.name), " twice"));
  }
  for (const LayerInfo& layer : table.layers) {
    if (layers.insert(ToUtf8(layer.name)).second) continue;
    return absl::InvalidArgumentError(absl::StrCat("the scores hold the layer ", Quoted(layer.name), " twice"));
  }
  bool complete = table.scores.size() == table.schemes.size();
  for (const std::vector<LayerScore>& row : table.scores) complete = complete && row.size() == table.layers.size();
  if (!complete) return absl::InvalidArgumentError("the scores do not cover every scheme and layer");
  return absl::OkStatus();
}

void WriteModel(const ScoreTable& table, PageWriter* page) {
  page->Key("model");
  page->StartObject();
  page->Key("name");
  PutString(page, table.model);
  page->Key("model_type");
  PutString(page, table.model_type);
  page->Key("fingerprint");
  PutString(page, table.fingerprint);
  page->Key("tied_head");
  page->Bool(table.tied_head);
  if (table.other_bytes >= 0) {
    page->Key("other_bytes");
    page->Int64(table.other_bytes);
  }
  page->Key("layers");
  page->StartObject();
  for (const LayerInfo& layer : table.layers) {
    PutKey(page, layer.name);
    PutLine(page, rapidjson::kObjectType, [&](LineWriter* line) { WriteLayer(layer, line); });
  }
  page->EndObject();
  page->EndObject();
}

void WriteLayer(const LayerInfo& layer, LineWriter* line) {
  line->StartObject();
  line->Key("shape");
  line->StartArray();
  line->Int64(layer.out_features);
  line->Int64(layer.in_features);
  line->EndArray();
  if (layer.block >= 0) {
    line->Key("block");
    line->Int(layer.block);
  }
  if (layer.is_head) {
    line->Key("head");
    line->Bool(true);
  }
  if (layer.is_embedding) {
    line->Key("embedding");
    line->Bool(true);
  }
  if (layer.fixed.has_value()) {
    line->Key("fixed");
    line->StartObject();
    line->Key("name");
    PutString(line, layer.fixed->name);
    WriteSchemeFields(*layer.fixed, line);
    line->EndObject();
  }
  line->EndObject();
}

void WriteCalibration(const ScoreTable& table, PageWriter* page) {
  page->Key("calibration");
  page->StartObject();
  page->Key("nsamples");
  page->Int64(table.nsamples);
  page->Key("seqlen");
  page->Int64(table.seqlen);
  page->Key("batch_size");
  page->Int64(table.batch_size);
  page->Key("sha256");
  PutString(page, table.calibration_sha256);
  page->EndObject();
}

void WriteMenu(const ScoreTable& table, PageWriter* page) {
  page->Key("menu");
  page->StartObject();
  for (const Scheme& scheme : table.schemes) {
    PutKey(page, scheme.name);
    PutLine(page, rapidjson::kObjectType, [&](LineWriter* line) {
      line->StartObject();
      WriteSchemeFields(scheme, line);
      line->EndObject();
    });
  }
  page->EndObject();
}

void WriteCrossEntropies(const ScoreTable& table, PageWriter* page) {
  page->Key("ce_loss");
  page->StartObject();
  for (size_t s = 0; s < table.schemes.size() && s < table.ce_loss.size(); ++s) {
    PutKey(page, table.schemes[s].name);
    PutLine(page, rapidjson::kArrayType, [&](LineWriter* line) {
      line->StartArray();
      for (double loss : table.ce_loss[s]) PutDouble(line, loss);
      line->EndArray();
    });
  }
  page->EndObject();
}

void WriteLosses(const ScoreTable& table, PageWriter* page) {
  std::vector<int> menu(table.schemes.size());
  std::iota(menu.begin(), menu.end(), 0);
  const std::vector<std::vector<double>> losses = MenuLosses(table, menu);
  page->Key("schemes");
  page->StartObject();
  for (size_t s = 0; s < table.schemes.size(); ++s) {
    PutKey(page, table.schemes[s].name);
    page->StartObject();
    for (size_t l = 0; l < table.layers.size(); ++l) {
      const LayerInfo& layer = table.layers[l];
      if (layer.fixed.has_value()) continue;
      const LayerScore& score = table.scores[s][l];
      const Scheme measured = score.stand_in ? StoredScheme(table.schemes[s], layer) : table.schemes[s];
      PutKey(page, layer.name);
      PutLine(page, rapidjson::kObjectType, [&](LineWriter* line) {
        line->StartObject();
        if (score.stand_in) {
          line->Key("stand_in");
          PutString(line, measured.name);
        }
        line->Key("bits");
        line->Int64(LayerBits(measured, layer.out_features, layer.in_features, false));
        line->Key("loss");
        PutDouble(line, losses[s][l]);
        line->Key("weight");
        PutDouble(line, score.weight);
        line->Key("activation");
        PutDouble(line, score.activation);
        if (score.standard_error > 0) {
          line->Key("standard_error");
          PutDouble(line, score.standard_error);
        }
        line->EndObject();
      });
    }
    page->EndObject();
  }
  page->EndObject();
}

}  // namespace

void WriteRun(const RunStats& run, PageWriter* page) {
  page->Key("run");
  page->StartObject();
  page->Key("io_engine");
  PutString(page, IoEngineName(run.io_engine));
  for (const BytesMember& member : kRunBytes) {
    page->Key(member.name);
    page->Uint64(run.*member.field);
  }
  for (const NumberMember& member : kRunNumbers) {
    page->Key(member.name);
    PutDouble(page, run.*member.field);
  }
  const double total_s = run.total_s > 0 ? run.total_s : 1;
  page->Key("product_share");
  PutDouble(page, run.product_s / total_s);
  page->Key("stall_share");
  PutDouble(page, run.stall_s / total_s);
  page->EndObject();
}

}  // namespace autoscheme
