#include <string>

#include "autoscheme/pareto.h"
#include "base/io.h"
#include "base/output_file.h"
#include "writers/json_text.h"

namespace autoscheme {

absl::Status WritePareto(const Context& context, const ParetoFront& front, const std::string& path) {
  return WriteOutput(IoOf(context), path, ParetoToJson(front));
}

std::string ParetoToJson(const ParetoFront& front) {
  return JsonFile("autoscheme-pareto", [&](PageWriter* page) {
    page->Key("complete");
    page->Bool(front.complete);
    page->Key("total_params");
    page->Int64(front.total_params);
    page->Key("points");
    page->StartArray();
    for (const ParetoPoint& point : front.points) {
      PutLine(page, rapidjson::kObjectType, [&](LineWriter* line) {
        line->StartObject();
        line->Key("avg_bits");
        PutDouble(line, point.avg_bits);
        line->Key("total_bits");
        line->Int64(point.total_bits);
        line->Key("loss");
        PutDouble(line, point.loss);
        line->Key("marginal_value");
        PutDouble(line, point.marginal_value);
        line->EndObject();
      });
    }
    page->EndArray();
  });
}

}  // namespace autoscheme
