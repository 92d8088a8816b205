// The plan of a run, and its JSON text.
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include "results.h"

namespace autoscheme::capi {
namespace {

using Writer = rapidjson::Writer<rapidjson::StringBuffer>;

void WriteItems(Writer& writer, const char* key, const std::vector<autoscheme::PlanItem>& items) {
  writer.Key(key);
  writer.StartArray();
  for (const autoscheme::PlanItem& item : items) {
    writer.StartObject();
    writer.Key("name");
    writer.String(item.name);
    writer.Key("bytes");
    writer.Uint64(item.bytes);
    writer.EndObject();
  }
  writer.EndArray();
}

void WriteVram(Writer& writer, const Plan& plan) {
  writer.Key("vram_peak_bytes");
  writer.Uint64(plan.vram_peak_bytes);
  writer.Key("vram_least_bytes");
  writer.Uint64(plan.vram_least_bytes);
  writer.Key("vram_budget_bytes");
  writer.Uint64(plan.vram_budget_bytes);
  writer.Key("vram_budget_reason");
  writer.String(plan.vram_budget_reason);
  writer.Key("inputs_in_vram");
  writer.Bool(plan.inputs_in_vram);
  WriteItems(writer, "vram_resident", plan.vram_resident);
}

std::string ToJson(const Plan& plan) {
  rapidjson::StringBuffer text;
  Writer writer(text);
  writer.StartObject();
  writer.Key("peak_bytes");
  writer.Uint64(plan.peak_bytes);
  writer.Key("least_bytes");
  writer.Uint64(plan.least_bytes);
  writer.Key("budget_bytes");
  writer.Uint64(plan.budget_bytes);
  writer.Key("budget_reason");
  writer.String(plan.budget_reason);
  writer.Key("read_bytes");
  writer.Uint64(plan.read_bytes);
  writer.Key("spill_bytes");
  writer.Uint64(plan.spill_bytes);
  writer.Key("inputs_in_ram");
  writer.Bool(plan.inputs_in_ram);
  writer.Key("input_interval");
  writer.Int64(plan.input_interval);
  writer.Key("flops");
  writer.Double(plan.flops);
  writer.Key("estimated_s");
  writer.Double(plan.estimated_s);
  writer.Key("units");
  writer.Int64(plan.units);
  writer.Key("slots");
  writer.Int64(plan.slots);
  writer.Key("micro_batch_rows");
  writer.Int64(plan.micro_batch_rows);
  writer.Key("tile_bytes");
  writer.Uint64(plan.tile_bytes);
  writer.Key("saved_units");
  writer.Int64(plan.saved_units);
  writer.Key("cached_units");
  writer.Int64(plan.cached_units);
  WriteItems(writer, "resident", plan.resident);
  writer.Key("device");
  writer.String(plan.device);
  if (plan.device != "cpu") WriteVram(writer, plan);
  writer.EndObject();
  return text.GetString();
}

absl::Status FillItem(const std::vector<autoscheme::PlanItem>& items, int64_t index, autoscheme_plan_item* item) {
  CAPI_RETURN_IF_ERROR(CheckIndex(index, static_cast<int64_t>(items.size()), "item"));
  autoscheme_plan_item filled{};
  filled.name = items[index].name.c_str();
  filled.bytes = items[index].bytes;
  return FillStruct(filled, item);
}

}  // namespace
}  // namespace autoscheme::capi

using autoscheme::capi::Clear;
using autoscheme::capi::FillStruct;
using autoscheme::capi::Guard;

extern "C" {

void autoscheme_plan_free(autoscheme_plan* plan) { delete plan; }

autoscheme_status autoscheme_plan_get_info(const autoscheme_plan* plan, autoscheme_plan_info* info,
                                           autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(plan);
    CAPI_REQUIRE(info);
    autoscheme_plan_info filled{};
    filled.peak_bytes = plan->plan.peak_bytes;
    filled.least_bytes = plan->plan.least_bytes;
    filled.read_bytes = plan->plan.read_bytes;
    filled.spill_bytes = plan->plan.spill_bytes;
    filled.item_count = static_cast<int64_t>(plan->plan.resident.size());
    filled.inputs_in_ram = plan->plan.inputs_in_ram;
    filled.flops = plan->plan.flops, filled.estimated_s = plan->plan.estimated_s;
    filled.units = plan->plan.units, filled.slots = plan->plan.slots,
    filled.micro_batch_rows = plan->plan.micro_batch_rows;
    filled.tile_bytes = plan->plan.tile_bytes;
    filled.input_interval = plan->plan.input_interval;
    filled.saved_units = plan->plan.saved_units, filled.cached_units = plan->plan.cached_units;
    filled.device = plan->plan.device.c_str(), filled.vram_budget_reason = plan->plan.vram_budget_reason.c_str();
    filled.vram_peak_bytes = plan->plan.vram_peak_bytes, filled.vram_least_bytes = plan->plan.vram_least_bytes;
    filled.vram_item_count = static_cast<int64_t>(plan->plan.vram_resident.size());
    filled.vram_budget_bytes = plan->plan.vram_budget_bytes, filled.inputs_in_vram = plan->plan.inputs_in_vram;
    filled.budget_bytes = plan->plan.budget_bytes, filled.budget_reason = plan->plan.budget_reason.c_str();
    return FillStruct(filled, info);
  });
}

autoscheme_status autoscheme_plan_get_item(const autoscheme_plan* plan, int64_t index, autoscheme_plan_item* item,
                                           autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(plan);
    CAPI_REQUIRE(item);
    return autoscheme::capi::FillItem(plan->plan.resident, index, item);
  });
}

autoscheme_status autoscheme_plan_get_vram_item(const autoscheme_plan* plan, int64_t index, autoscheme_plan_item* item,
                                                autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(plan);
    CAPI_REQUIRE(item);
    return autoscheme::capi::FillItem(plan->plan.vram_resident, index, item);
  });
}

autoscheme_status autoscheme_plan_json(const autoscheme_plan* plan, const char** json, size_t* length,
                                       autoscheme_error** error) {
  Clear(json, length);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(plan);
    CAPI_REQUIRE(json);
    const std::string& text = plan->json.Get([&] { return autoscheme::capi::ToJson(plan->plan); });
    *json = text.c_str();
    if (length != nullptr) *length = text.size();
    return absl::OkStatus();
  });
}

}  // extern "C"

namespace autoscheme::capi {

autoscheme_plan* MakePlanHandle(Plan plan) {
  auto made = std::make_unique<autoscheme_plan>();
  made->plan = std::move(plan);
  return made.release();
}

}  // namespace autoscheme::capi
