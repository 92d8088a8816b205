#include "options.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "autoscheme/quoted.h"
#include "autoscheme/scheme_text.h"
#include "handles.h"
#include "option_table.h"

namespace autoscheme::capi {
namespace {

absl::StatusOr<OptionValue> Parse(const OptionSpec& spec, absl::string_view text);
absl::StatusOr<OptionValue> FromI64(const OptionSpec& spec, int64_t value);
absl::StatusOr<OptionValue> FromList(const OptionSpec& spec, std::vector<double> values);

absl::StatusOr<const OptionSpec*> Known(int32_t id) {
  const OptionSpec* spec = FindOption(id);
  if (spec == nullptr) return absl::InvalidArgumentError(absl::StrCat("there is no option with id ", id));
  return spec;
}

absl::Status WrongType(const OptionSpec& spec, const char* setter) {
  return absl::InvalidArgumentError(absl::StrCat("option ", spec.name, " is not of a type that ", setter, " is for"));
}

bool IsInteger(const OptionSpec& spec) {
  return spec.type == AUTOSCHEME_TYPE_I64 || spec.type == AUTOSCHEME_TYPE_BOOL || spec.type == AUTOSCHEME_TYPE_BYTES;
}

}  // namespace
}  // namespace autoscheme::capi

using autoscheme::capi::Clear;
using autoscheme::capi::FromI64;
using autoscheme::capi::FromList;
using autoscheme::capi::GetOption;
using autoscheme::capi::Guard;
using autoscheme::capi::IsInteger;
using autoscheme::capi::Known;
using autoscheme::capi::OptionValue;
using autoscheme::capi::WrongType;

extern "C" {

autoscheme_status autoscheme_options_create(autoscheme_options** out, autoscheme_error** error) {
  Clear(out);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(out);
    *out = new autoscheme_options();
    return absl::OkStatus();
  });
}

void autoscheme_options_free(autoscheme_options* options) { delete options; }

autoscheme_status autoscheme_options_set_i64(autoscheme_options* options, int32_t id, int64_t value,
                                             autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(options);
    const auto spec = Known(id);
    if (!spec.ok()) return spec.status();
    if (!IsInteger(**spec)) return WrongType(**spec, "autoscheme_options_set_i64");
    auto parsed = FromI64(**spec, value);
    if (!parsed.ok()) return parsed.status();
    options->values[id] = *std::move(parsed);
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_options_set_f64(autoscheme_options* options, int32_t id, double value,
                                             autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(options);
    const auto spec = Known(id);
    if (!spec.ok()) return spec.status();
    if ((*spec)->type != AUTOSCHEME_TYPE_F64 && (*spec)->type != AUTOSCHEME_TYPE_F64_LIST) {
      return WrongType(**spec, "autoscheme_options_set_f64");
    }
    auto parsed = FromList(**spec, {value});
    if (!parsed.ok()) return parsed.status();
    options->values[id] = *std::move(parsed);
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_options_set_str(autoscheme_options* options, int32_t id, const char* value,
                                             autoscheme_error** error) {
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(options);
    CAPI_REQUIRE(value);
    const auto spec = Known(id);
    if (!spec.ok()) return spec.status();
    auto parsed = autoscheme::capi::Parse(**spec, value);
    if (!parsed.ok()) return parsed.status();
    options->values[id] = *std::move(parsed);
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_options_get_i64(const autoscheme_options* options, int32_t id, int64_t* value,
                                             autoscheme_error** error) {
  Clear(value);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(options);
    CAPI_REQUIRE(value);
    const auto spec = Known(id);
    if (!spec.ok()) return spec.status();
    if (!IsInteger(**spec)) return WrongType(**spec, "autoscheme_options_get_i64");
    *value = GetOption(options, id).i64;
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_options_get_f64(const autoscheme_options* options, int32_t id, double* value,
                                             autoscheme_error** error) {
  Clear(value);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(options);
    CAPI_REQUIRE(value);
    const auto spec = Known(id);
    if (!spec.ok()) return spec.status();
    if ((*spec)->type != AUTOSCHEME_TYPE_F64) return WrongType(**spec, "autoscheme_options_get_f64");
    *value = GetOption(options, id).f64;
    return absl::OkStatus();
  });
}

autoscheme_status autoscheme_options_get_str(const autoscheme_options* options, int32_t id, const char** value,
                                             autoscheme_error** error) {
  Clear(value);
  return Guard(error, [&]() -> absl::Status {
    CAPI_REQUIRE(options);
    CAPI_REQUIRE(value);
    const auto spec = Known(id);
    if (!spec.ok()) return spec.status();
    const auto set = options->values.find(id);
    *value = set == options->values.end() ? (*spec)->default_value : set->second.text.c_str();
    return absl::OkStatus();
  });
}

}  // extern "C"

namespace autoscheme::capi {
namespace {

// The shortest text that reads back as the same number.
std::string ToText(double value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

absl::StatusOr<OptionValue> FromI64(const OptionSpec& spec, int64_t value) {
  if (value < spec.min_i64 || value > spec.max_i64) {
    return absl::InvalidArgumentError(
        absl::StrCat("option ", spec.name, " is ", value, ", must be from ", spec.min_i64, " to ", spec.max_i64));
  }
  OptionValue parsed;
  parsed.text = spec.type == AUTOSCHEME_TYPE_BYTES && value < 0 ? "free" : absl::StrCat(value);
  parsed.i64 = value;
  return parsed;
}

absl::StatusOr<OptionValue> FromList(const OptionSpec& spec, std::vector<double> values) {
  OptionValue parsed;
  for (const double value : values) {
    if (!std::isfinite(value) || value < spec.min_f64 || value > spec.max_f64) {
      return absl::InvalidArgumentError(absl::StrCat("option ", spec.name, " is ", ToText(value), ", must be from ",
                                                     ToText(spec.min_f64), " to ", ToText(spec.max_f64)));
    }
    absl::StrAppend(&parsed.text, parsed.text.empty() ? "" : ",", ToText(value));
  }
  if (!values.empty()) parsed.f64 = values.front();
  parsed.list = std::move(values);
  return parsed;
}

absl::Status BadText(const OptionSpec& spec, absl::string_view text, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("option ", spec.name, " is ", Quoted(text), ", must be ", wanted));
}

// The items of a list, stripped; none of a text that is blank. INVALID_ARGUMENT for one that is empty.
absl::StatusOr<std::vector<absl::string_view>> Items(const OptionSpec& spec, absl::string_view text, char separator) {
  std::vector<absl::string_view> items;
  if (absl::StripAsciiWhitespace(text).empty()) return items;
  for (const absl::string_view item : absl::StrSplit(text, separator)) {
    items.push_back(absl::StripAsciiWhitespace(item));
    if (!items.back().empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat("option ", spec.name, " is ", Quoted(text), ": item ", items.size(),
                                                   " between '", std::string(1, separator), "' is empty"));
  }
  return items;
}

// "400MiB", "1.5GB", "2G", "4096": a number, and a unit of 1000 or 1024 bytes to some power.
absl::StatusOr<int64_t> ParseBytes(const OptionSpec& spec, absl::string_view text) {
  absl::string_view number = absl::StripAsciiWhitespace(text);
  size_t digits = 0;
  while (digits < number.size() && (absl::ascii_isdigit(number[digits]) || number[digits] == '.')) ++digits;
  absl::string_view unit = absl::StripAsciiWhitespace(number.substr(digits));
  number = number.substr(0, digits);

  double scale = 1;
  if (!unit.empty() && !absl::EqualsIgnoreCase(unit, "B")) {
    const size_t power = absl::string_view("KMGT").find(absl::ascii_toupper(unit[0]));
    const bool binary = unit.size() == 1 || absl::EqualsIgnoreCase(unit.substr(1), "iB");
    if (power == absl::string_view::npos || !(binary || absl::EqualsIgnoreCase(unit.substr(1), "B"))) {
      return BadText(spec, text,
                     "a number of bytes, with one of the units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB, or K, M, G, T "
                     "for the latter");
    }
    scale = std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  }
  int64_t whole = 0;
  if (scale == 1 && absl::SimpleAtoi(number, &whole)) return whole;
  double value = 0;
  if (number.empty() || !absl::SimpleAtod(number, &value) || !(value * scale < 9.2e18)) {
    return BadText(spec, text, "a number of bytes below 2^63, as 2147483648, 400MiB or 1.5GB");
  }
  return static_cast<int64_t>(value * scale);
}

using Groups = std::vector<std::vector<std::string>>;
absl::StatusOr<Groups> ParseGroups(const OptionSpec& spec, absl::string_view text) {
  Groups groups;
  const auto parts = Items(spec, text, ';');
  if (!parts.ok()) return parts.status();
  for (const absl::string_view part : *parts) {
    const auto patterns = Items(spec, part, ',');
    if (!patterns.ok()) return patterns.status();
    groups.emplace_back(patterns->begin(), patterns->end());
  }
  return groups;
}

absl::StatusOr<OptionValue> ParseText(const OptionSpec& spec, absl::string_view text) {
  if (spec.choices != nullptr) {
    const std::vector<absl::string_view> choices = absl::StrSplit(spec.choices, ',');
    if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
      return BadText(spec, text, absl::StrCat("one of ", absl::StrJoin(choices, ", ")));
    }
  }
  if (spec.id == AUTOSCHEME_OPTION_SCHEMES && !text.empty()) CAPI_RETURN_IF_ERROR(ParseMenu(text).status());
  if (spec.id == AUTOSCHEME_OPTION_LAYER_CONFIG && !text.empty()) {
    CAPI_RETURN_IF_ERROR(ParseLayerConfig(text).status());
  }
  OptionValue parsed;
  parsed.text = std::string(text);
  if (spec.id == AUTOSCHEME_OPTION_IGNORE_LAYERS) CAPI_RETURN_IF_ERROR(Items(spec, text, ',').status());
  if (spec.id == AUTOSCHEME_OPTION_SHARED_LAYERS) CAPI_RETURN_IF_ERROR(ParseGroups(spec, text).status());
  if (spec.id == AUTOSCHEME_OPTION_TARGET_SIZE) {
    const auto items = Items(spec, text, ',');
    if (!items.ok()) return items.status();
    for (const absl::string_view item : *items) {
      const auto bytes = ParseBytes(spec, item);
      if (!bytes.ok()) return bytes.status();
      if (*bytes < 1 || *bytes > int64_t{1} << 53) return BadText(spec, item, "a size from 1 byte to 2^53 bytes");
      parsed.list.push_back(static_cast<double>(*bytes));
    }
  }
  return parsed;
}

absl::StatusOr<OptionValue> Parse(const OptionSpec& spec, absl::string_view text) {
  switch (spec.type) {
    case AUTOSCHEME_TYPE_I64: {
      int64_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return BadText(spec, text, "a whole number");
      return FromI64(spec, value);
    }
    case AUTOSCHEME_TYPE_BOOL: {
      if (text == "1" || absl::EqualsIgnoreCase(text, "true")) return FromI64(spec, 1);
      if (text == "0" || absl::EqualsIgnoreCase(text, "false")) return FromI64(spec, 0);
      return BadText(spec, text, "0, 1, true or false");
    }
    case AUTOSCHEME_TYPE_BYTES: {
      if (spec.min_i64 < 0 && absl::EqualsIgnoreCase(absl::StripAsciiWhitespace(text), "free"))
        return FromI64(spec, -1);
      const auto value = ParseBytes(spec, text);
      if (!value.ok()) return value.status();
      return FromI64(spec, *value);
    }
    case AUTOSCHEME_TYPE_F64:
    case AUTOSCHEME_TYPE_F64_LIST: {
      std::vector<double> values;
      const auto items = Items(spec, text, ',');
      if (!items.ok()) return items.status();
      for (const absl::string_view item : *items) {
        double value = 0;
        if (!absl::SimpleAtod(item, &value)) return BadText(spec, text, "numbers, comma separated");
        values.push_back(value);
      }
      if (spec.type == AUTOSCHEME_TYPE_F64 && values.size() != 1) return BadText(spec, text, "one number");
      return FromList(spec, std::move(values));
    }
    default: return ParseText(spec, text);
  }
}

std::string Str(const autoscheme_options* options, int32_t id) { return GetOption(options, id).text; }
int64_t Int(const autoscheme_options* options, int32_t id) { return GetOption(options, id).i64; }
// They were checked when they were set.
Groups SharedLayers(const autoscheme_options* options) {
  const int32_t id = AUTOSCHEME_OPTION_SHARED_LAYERS;
  return ParseGroups(*FindOption(id), Str(options, id)).value_or(Groups());
}

}  // namespace

OptionValue GetOption(const autoscheme_options* options, int32_t id) {
  if (options != nullptr) {
    const auto set = options->values.find(id);
    if (set != options->values.end()) return set->second;
  }
  const OptionSpec* spec = FindOption(id);
  auto parsed = Parse(*spec, spec->default_value);
  return parsed.ok() ? *std::move(parsed) : OptionValue();
}

absl::StatusOr<Options> ToOptions(const autoscheme_options& from) {
  if (Str(&from, AUTOSCHEME_OPTION_SCHEMES).empty()) {
    return absl::InvalidArgumentError("option schemes is not set: give the schemes to choose from, as \"W4A16,W8A16\"");
  }
  return ToOptionsOfAny(from);
}

EvaluateOptions ToEvaluateOptions(const autoscheme_options& from) {
  return {Int(&from, AUTOSCHEME_OPTION_WORST_TOKENS), Int(&from, AUTOSCHEME_OPTION_BY_POSITION) != 0};
}

absl::StatusOr<Options> ToOptionsOfAny(const autoscheme_options& from) {
  Options to;
  if (const std::string schemes = Str(&from, AUTOSCHEME_OPTION_SCHEMES); !schemes.empty()) {
    auto menu = ParseMenu(schemes);
    if (!menu.ok()) return menu.status();
    to.schemes = *std::move(menu);
  }
  const std::string layer_config = Str(&from, AUTOSCHEME_OPTION_LAYER_CONFIG);
  if (!layer_config.empty()) {
    auto fixed = ParseLayerConfig(layer_config);
    if (!fixed.ok()) return fixed.status();
    to.layer_config = *std::move(fixed);
  }
  to.batch_size = Int(&from, AUTOSCHEME_OPTION_BATCH_SIZE);
  to.scorer = Str(&from, AUTOSCHEME_OPTION_SCORER);
  to.dtype = Str(&from, AUTOSCHEME_OPTION_DTYPE);
  to.device = Str(&from, AUTOSCHEME_OPTION_DEVICE);
  to.max_vram_bytes = Int(&from, AUTOSCHEME_OPTION_MAX_VRAM_BYTES);
  to.plan_only = Int(&from, AUTOSCHEME_OPTION_PLAN_ONLY) != 0;
  to.threads = static_cast<int>(Int(&from, AUTOSCHEME_OPTION_THREADS));
  to.max_ram_bytes = Int(&from, AUTOSCHEME_OPTION_MAX_RAM_BYTES);
  to.process_budget = Int(&from, AUTOSCHEME_OPTION_PROCESS_BUDGET) != 0;
  to.work_dir = Str(&from, AUTOSCHEME_OPTION_WORK_DIR);
  to.no_spill = Int(&from, AUTOSCHEME_OPTION_NO_SPILL) != 0;
  auto io_engine = IoEngineFromName(Str(&from, AUTOSCHEME_OPTION_IO_ENGINE));
  if (!io_engine.ok()) return io_engine.status();
  to.io_engine = *io_engine;
  to.imatrix_file = Str(&from, AUTOSCHEME_OPTION_IMATRIX_FILE);
  to.ignore_layers = Str(&from, AUTOSCHEME_OPTION_IGNORE_LAYERS);
  to.quant_lm_head = Int(&from, AUTOSCHEME_OPTION_QUANT_LM_HEAD) != 0;
  to.ignore_scale_zp_bits = Int(&from, AUTOSCHEME_OPTION_IGNORE_SCALE_ZP_BITS) != 0;
  to.shared_layers = SharedLayers(&from);
  to.reference_rules = Int(&from, AUTOSCHEME_OPTION_REFERENCE_RULES) != 0;
  return to;
}

absl::StatusOr<SelectOptions> ToSelectOptions(const autoscheme_options* from) {
  SelectOptions to;
  const std::string schemes = Str(from, AUTOSCHEME_OPTION_SCHEMES);
  if (!schemes.empty()) {
    const auto menu = ParseMenu(schemes);
    if (!menu.ok()) return menu.status();
    for (const Scheme& scheme : *menu) to.schemes.push_back(scheme.name);
  }
  to.ignore_scale_zp_bits = Int(from, AUTOSCHEME_OPTION_IGNORE_SCALE_ZP_BITS) != 0;
  to.shared_layers = SharedLayers(from);
  to.reference_rules = Int(from, AUTOSCHEME_OPTION_REFERENCE_RULES) != 0;
  return to;
}

absl::StatusOr<Targets> GetTargets(const autoscheme_options* options, const double* values, int64_t count) {
  if (count < 0 || (values == nullptr) != (count == 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("avg_bits is ", values == nullptr ? "NULL" : "not NULL", " with count ", count));
  }
  Targets targets;
  targets.avg_bits.assign(values, values + count);
  if (count == 0) {
    targets.avg_bits = GetOption(options, AUTOSCHEME_OPTION_AVG_BITS).list;
    for (const double bytes : GetOption(options, AUTOSCHEME_OPTION_TARGET_SIZE).list) {
      targets.bytes.push_back(static_cast<int64_t>(bytes));
    }
  }
  if (targets.avg_bits.empty() && targets.bytes.empty()) {
    return absl::InvalidArgumentError(
        "neither option avg_bits nor target_size is set: give the target in bits per weight, as 4.5, or as a size");
  }
  for (const double target : targets.avg_bits) {
    if (!std::isfinite(target) || target <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("a target of ", ToText(target), " bits per weight is not a positive number"));
    }
  }
  return targets;
}

}  // namespace autoscheme::capi
