#include "progress.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "interrupt.h"
#include "report.h"

namespace cli {

absl::StatusOr<Reporter::Style> Reporter::StyleOf(const Flags& flags) {
  const std::string& style = flags.Get("progress");
  if (flags.Has("quiet")) return Style::kNone;
  if (style.empty()) return isatty(STDERR_FILENO) != 0 ? Style::kBar : Style::kNone;
  if (style == "bar") return Style::kBar;
  if (style == "json") return Style::kJson;
  if (style == "none") return Style::kNone;
  return absl::InvalidArgumentError(absl::StrCat("flag --progress is '", style, "', must be bar, json or none"));
}

absl::Status Reporter::Attach(autoscheme_context* context) {
  CLI_RETURN_IF_ERROR(Call([&](autoscheme_error** error) {
    return autoscheme_context_set_progress(context, OnProgress, this, nullptr, error);
  }));
  return Call(
      [&](autoscheme_error** error) { return autoscheme_context_set_log(context, OnLog, this, nullptr, error); });
}

void Reporter::Finish() {
  std::lock_guard<std::mutex> lock(mutex_);
  ClearBar();
}

// Also the net under Ctrl-C: a request made just before a call began would be forgotten by the library.
int32_t Reporter::OnProgress(void* self, const autoscheme_progress* progress) {
  auto* reporter = static_cast<Reporter*>(self);
  std::lock_guard<std::mutex> lock(reporter->mutex_);
  if (reporter->style_ == Style::kBar) reporter->DrawBar(*progress);
  if (reporter->style_ == Style::kJson) {
    absl::FPrintF(stderr, "{\"stage\":\"%s\",\"done\":%d,\"total\":%d,\"bytes_read\":%d,\"elapsed_s\":%.3f}\n",
                  progress->stage, progress->done, progress->total, progress->bytes_read, progress->elapsed_s);
  }
  return Interrupted() ? 1 : 0;
}

int32_t Reporter::OnLog(void* self, const autoscheme_log_message* message) {
  auto* reporter = static_cast<Reporter*>(self);
  if (reporter->quiet_) return 0;
  std::lock_guard<std::mutex> lock(reporter->mutex_);
  reporter->ClearBar();
  absl::FPrintF(stderr, "%s%s\n", message->level == AUTOSCHEME_LOG_WARNING ? "warning: " : "", message->text);
  return 0;
}

void Reporter::Warn(const std::string& text) {
  autoscheme_log_message message{};
  message.level = AUTOSCHEME_LOG_WARNING, message.text = text.c_str();
  OnLog(this, &message);
}

void Reporter::DrawBar(const autoscheme_progress& progress) {
  const auto now = std::chrono::steady_clock::now();
  const bool complete = progress.done >= progress.total;
  if (!complete && now - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = now;
  constexpr int kCells = 30;
  const double share =
      progress.total > 0 ? static_cast<double>(progress.done) / static_cast<double>(progress.total) : 1;
  const int filled = static_cast<int>(kCells * (share < 1 ? share : 1));
  const std::string line =
      absl::StrFormat("%-14s [%s%s] %d/%d  %s read  %s", progress.stage, std::string(filled, '#'),
                      std::string(kCells - filled, ' '), progress.done, progress.total,
                      HumanBytes(static_cast<uint64_t>(progress.bytes_read)), HumanSeconds(progress.elapsed_s));
  const size_t rest = bar_width_ > line.size() ? bar_width_ - line.size() : 0;
  absl::FPrintF(stderr, "\r%s%s", line, std::string(rest, ' '));
  std::fflush(stderr);
  bar_width_ = line.size();
}

void Reporter::ClearBar() {
  if (bar_width_ == 0) return;
  absl::FPrintF(stderr, "\r%s\r", std::string(bar_width_, ' '));
  std::fflush(stderr);
  bar_width_ = 0;
}

absl::StatusOr<std::unique_ptr<Reporting>> Reporting::Start(const Flags& flags, autoscheme_context* context) {
  const auto style = Reporter::StyleOf(flags);
  if (!style.ok()) return style.status();
  auto reporting = std::make_unique<Reporting>(context, *style, flags.Has("quiet"));
  CLI_RETURN_IF_ERROR(reporting->reporter_.Attach(context));
  return reporting;
}

Reporting::~Reporting() {
  Finish();
  (void)!autoscheme_context_set_progress(context_, nullptr, nullptr, nullptr, nullptr);
  (void)!autoscheme_context_set_log(context_, nullptr, nullptr, nullptr, nullptr);
}

}  // namespace cli
