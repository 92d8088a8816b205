// Flags of one subcommand: declared in a table, parsed strictly, explained by --help.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "library.h"

namespace cli {

struct Flag {
  const char* name;   // "max-ram", written --max-ram
  const char* value;  // what stands for the value in the help: "SIZE"; null for a flag without value
  int32_t option;     // AUTOSCHEME_OPTION_* that it sets, whose help text it shows; 0 for a flag of the program itself
  const char* help;   // null: the option's
  bool required = false;
  const char* alias = nullptr;  // another name that it answers to
};

class Flags {
 public:
  // `arguments` are those after the subcommand: --name value or --name=value. INVALID_ARGUMENT for anything unknown,
  // for a flag without its value or given twice, and for a required one that is missing.
  static absl::StatusOr<Flags> Parse(const std::vector<Flag>& known, const std::vector<std::string>& arguments);

  bool Has(absl::string_view name) const { return values_.count(std::string(name)) > 0; }
  // "" if it was not given.
  const std::string& Get(absl::string_view name) const;
  // 0 if it was not given. INVALID_ARGUMENT unless it is a whole number of at least 1.
  absl::StatusOr<int64_t> GetCount(absl::string_view name) const;

  // Sets the library's options from those flags that stand for one. Schemes and layer configs may be in a file.
  absl::Status Apply(const std::vector<Flag>& known, autoscheme_options* options) const;
  // Sets the aliases of --aliases, if it was given; they may be in a file too.
  absl::Status ApplyAliases(autoscheme_context* context) const;

 private:
  std::map<std::string, std::string> values_;
};

// One paragraph for each flag.
std::string FlagHelp(const std::vector<Flag>& known);

}  // namespace cli
