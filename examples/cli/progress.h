// Progress and warnings on stderr: a bar for people, JSON lines for programs, or nothing.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "flags.h"
#include "library.h"

namespace cli {

class Reporter {
 public:
  enum class Style { kNone, kBar, kJson };

  // From --progress and --quiet. INVALID_ARGUMENT for an unknown style.
  static absl::StatusOr<Style> StyleOf(const Flags& flags);

  Reporter(Style style, bool quiet) : style_(style), quiet_(quiet) {}
  // Sets the context's callbacks to this, which must outlive every call on the context.
  absl::Status Attach(autoscheme_context* context);
  // Removes the bar from the terminal.
  void Finish();
  // One of the program's own, in the place of those that the library logs.
  void Warn(const std::string& text);

 private:
  static int32_t OnProgress(void* self, const autoscheme_progress* progress);
  static int32_t OnLog(void* self, const autoscheme_log_message* message);
  void DrawBar(const autoscheme_progress& progress);
  void ClearBar();

  const Style style_;
  const bool quiet_;
  std::mutex mutex_;  // messages may come from worker threads
  size_t bar_width_ = 0;
  std::chrono::steady_clock::time_point drawn_;
};

// Progress and warnings of a context go to stderr for as long as this lives.
class Reporting {
 public:
  static absl::StatusOr<std::unique_ptr<Reporting>> Start(const Flags& flags, autoscheme_context* context);
  Reporting(autoscheme_context* context, Reporter::Style style, bool quiet)
      : context_(context), reporter_(style, quiet) {}
  ~Reporting();
  // Before the result is printed.
  void Finish() { reporter_.Finish(); }
  void Warn(const std::string& text) { reporter_.Warn(text); }

 private:
  autoscheme_context* context_;
  Reporter reporter_;
};

}  // namespace cli
