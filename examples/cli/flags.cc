#include "flags.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "printable.h"

namespace cli {
namespace {

const Flag* FindFlag(const std::vector<Flag>& known, absl::string_view name) {
  const auto found = std::find_if(known.begin(), known.end(), [&](const Flag& flag) {
    return flag.name == name || (flag.alias != nullptr && flag.alias == name);
  });
  return found == known.end() ? nullptr : &*found;
}

// Whether a value can only be meant as a file: schemes may be names, and all may be JSON as it stands.
bool MeansFile(int32_t option, absl::string_view value) {
  value = absl::StripAsciiWhitespace(value);
  if (absl::StartsWith(value, "{") || absl::StartsWith(value, "[")) return false;
  return option != AUTOSCHEME_OPTION_SCHEMES || absl::StrContains(value, '/') ||
         absl::EndsWithIgnoreCase(value, ".json");
}

bool IsEmptyObject(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  return absl::ConsumePrefix(&text, "{") && absl::StripAsciiWhitespace(text) == "}";
}

// The text of an option, or of --aliases (0), that may be in a file, with whose name messages begin.
struct OptionText {
  std::string text, source;
};
absl::StatusOr<OptionText> ReadOption(int32_t option, const std::string& value) {
  OptionText read;
  struct stat info {};
  const int error = stat(value.c_str(), &info) == 0 ? 0 : errno;
  const std::string name = absl::StrCat("'", Printable(value), "'");
  if (error != 0 || S_ISDIR(info.st_mode)) {
    if (MeansFile(option, value)) {
      if (error == 0) return absl::InvalidArgumentError(absl::StrCat(name, " is a folder, not a file"));
      return absl::InvalidArgumentError(
          error == ENOENT || error == ENOTDIR
              ? absl::StrCat("no such file: ", name)
              : absl::StrCat("cannot open ", name, ": ", std::generic_category().message(error)));
    }
    read.text = value;
  } else {
    std::ifstream file(value, std::ios::binary);
    std::ostringstream text;
    // An empty file gives no character, which is no failure to read.
    if (!file || (file.peek() != std::ifstream::traits_type::eof() && !(text << file.rdbuf())) || file.bad()) {
      return absl::InvalidArgumentError(absl::StrCat("cannot read ", name));
    }
    read.text = text.str();
    read.source = absl::StrCat(name, ": ");
    if (absl::StripAsciiWhitespace(read.text).empty())
      return absl::InvalidArgumentError(absl::StrCat(name, " is empty"));
  }
  if (option == AUTOSCHEME_OPTION_LAYER_CONFIG && IsEmptyObject(read.text)) {
    return absl::InvalidArgumentError(absl::StrCat(
        read.source, "the object holds no layer: write {\"layer or pattern\": \"scheme\"}, or leave the flag away"));
  }
  return read;
}

// The option's own words, folded into lines that begin with `indent` spaces.
std::string Fold(absl::string_view text, size_t indent) {
  constexpr size_t kWidth = 100;
  std::string folded(indent, ' ');
  size_t column = indent;
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (column > indent && column + 1 + word.size() > kWidth) {
      absl::StrAppend(&folded, "\n", std::string(indent, ' '));
      column = indent;
    } else if (column > indent) {
      folded += ' ';
      ++column;
    }
    absl::StrAppend(&folded, word);
    column += word.size();
  }
  return folded;
}

}  // namespace

absl::StatusOr<Flags> Flags::Parse(const std::vector<Flag>& known, const std::vector<std::string>& arguments) {
  Flags flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view argument = arguments[i];
    if (!absl::ConsumePrefix(&argument, "--") || argument.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("'", arguments[i], "' is not a flag"));
    }
    const size_t equals = argument.find('=');
    const Flag* flag = FindFlag(known, argument.substr(0, equals));
    if (flag == nullptr) return absl::InvalidArgumentError(absl::StrCat("unknown flag --", argument.substr(0, equals)));
    const std::string name = flag->name;
    if (flags.Has(name)) return absl::InvalidArgumentError(absl::StrCat("flag --", name, " is given twice"));
    if (flag->value == nullptr) {
      if (equals != absl::string_view::npos) {
        return absl::InvalidArgumentError(absl::StrCat("flag --", name, " takes no value"));
      }
      flags.values_[name] = "1";
    } else if (equals != absl::string_view::npos) {
      flags.values_[name] = std::string(argument.substr(equals + 1));
    } else {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat("flag --", name, " needs a value: --", name, " ", flag->value));
      }
      flags.values_[name] = arguments[++i];
    }
  }
  for (const Flag& flag : known) {
    if (flag.required && flags.Get(flag.name).empty()) {
      return absl::InvalidArgumentError(absl::StrCat("flag --", flag.name, " ", flag.value, " is missing"));
    }
  }
  return flags;
}

const std::string& Flags::Get(absl::string_view name) const {
  static const auto* const kNone = new std::string();
  const auto found = values_.find(std::string(name));
  return found == values_.end() ? *kNone : found->second;
}

absl::StatusOr<int64_t> Flags::GetCount(absl::string_view name) const {
  if (!Has(name)) return 0;
  int64_t count = 0;
  if (absl::SimpleAtoi(Get(name), &count) && count >= 1) return count;
  return absl::InvalidArgumentError(
      absl::StrCat("flag --", name, " is '", Get(name), "', must be a whole number of at least 1"));
}

absl::Status Flags::Apply(const std::vector<Flag>& known, autoscheme_options* options) const {
  for (const Flag& flag : known) {
    if (flag.option == 0 || !Has(flag.name)) continue;
    OptionText value{Get(flag.name), ""};
    if (flag.option == AUTOSCHEME_OPTION_SCHEMES || flag.option == AUTOSCHEME_OPTION_LAYER_CONFIG) {
      absl::StatusOr<OptionText> read = ReadOption(flag.option, value.text);
      if (!read.ok())
        return absl::InvalidArgumentError(absl::StrCat("flag --", flag.name, ": ", read.status().message()));
      value = *std::move(read);
    }
    const absl::Status set = Call([&](autoscheme_error** error) {
      return autoscheme_options_set_str(options, flag.option, value.text.c_str(), error);
    });
    if (!set.ok())
      return absl::InvalidArgumentError(absl::StrCat("flag --", flag.name, ": ", value.source, set.message()));
  }
  return absl::OkStatus();
}

absl::Status Flags::ApplyAliases(autoscheme_context* context) const {
  if (!Has("aliases")) return absl::OkStatus();
  const auto refused = [](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("flag --aliases: ", why));
  };
  const absl::StatusOr<OptionText> read = ReadOption(0, Get("aliases"));
  if (!read.ok()) return refused(read.status().message());
  const absl::Status set = Call(
      [&](autoscheme_error** error) { return autoscheme_context_set_aliases(context, read->text.c_str(), error); });
  return set.ok() ? set : refused(absl::StrCat(read->source, set.message()));
}

std::string FlagHelp(const std::vector<Flag>& known) {
  std::string help;
  for (const Flag& flag : known) {
    absl::StrAppend(&help, "  --", flag.name, flag.value == nullptr ? "" : " ", flag.value == nullptr ? "" : flag.value,
                    flag.alias == nullptr ? "" : absl::StrCat("   (or --", flag.alias, ")"),
                    flag.required ? "   (needed)" : "", "\n");
    std::string text = flag.help == nullptr ? "" : flag.help;
    auto info = Struct<autoscheme_option_info>();
    if (flag.option != 0 &&
        Call([&](autoscheme_error** error) { return autoscheme_option_describe(flag.option, &info, error); }).ok()) {
      if (flag.help == nullptr) text = info.help;
      if (info.choices != nullptr) absl::StrAppend(&text, " One of ", info.choices, ".");
      const bool has_default =
          *info.default_value != '\0' && info.type != AUTOSCHEME_TYPE_BOOL && !absl::StrContains(text, "Default:");
      if (has_default) absl::StrAppend(&text, " Default: ", info.default_value, ".");
    }
    absl::StrAppend(&help, Fold(text, 6), "\n");
  }
  return help;
}

}  // namespace cli
