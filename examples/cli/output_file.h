// Result files: looked at before hours of work, written after it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "flags.h"
#include "library.h"

namespace cli {

// Where the flag's result goes: "-" is stdout; "" if the flag was not given.
std::string OutputPath(const Flags& flags, absl::string_view flag);

// OK if results could be written to all of `outputs` without harm to each other or to one of `inputs`. Empty ones are
// none.
absl::Status CheckOutputs(autoscheme_context* context, const std::vector<std::string>& outputs,
                          const std::vector<std::string>& inputs);

// Whether one of them leads where stdout leads, so that nothing else may be printed there.
bool AnyIsStdout(const std::vector<std::string>& outputs);

// Brings results to their files. One whose place fails goes to a new file in the work folder: it may have taken hours.
class Delivery {
 public:
  // What writes a result to the path that it is given.
  using Save = std::function<absl::Status(const std::string& path)>;

  explicit Delivery(const Flags& flags) : work_dir_(flags.Get("work-dir")) {}

  // `what` names the result in messages and in its file's name there: "scores". `place` empty: straight to the work
  // folder.
  void Deliver(absl::string_view what, const std::string& place, const Save& save);
  // A result could not be made.
  void Fail(const absl::Status& status);
  // OK if nothing has failed, else all failures and where the results are, in one line, with the code of the first.
  absl::Status status() const;

 private:
  const std::string work_dir_;  // "" if it was not given
  absl::Status first_failure_;
  std::vector<std::string> failures_, places_;
};

}  // namespace cli
