// autoscheme: the library at a shell. Everything goes through the C interface.
//
// Exit codes: 0 done; 1 failed, with one line on stderr; 2 the command line is wrong; 130 stopped by Ctrl-C.

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "commands.h"
#include "heap.h"
#include "interrupt.h"
#include "printable.h"
#include "progress.h"

namespace {

constexpr int kDone = 0, kFailed = 1, kUsage = 2, kInterrupted = 130;

std::string Usage() {
  std::string text =
      "autoscheme decides for every layer of a language model which quantization scheme it gets.\n\n"
      "usage: autoscheme COMMAND [FLAGS]\n\n";
  for (const cli::Command& command : cli::Commands()) {
    absl::StrAppend(&text, absl::StrFormat("  %-8s  %s\n", command.name, command.summary));
  }
  absl::StrAppend(&text,
                  "\nautoscheme COMMAND --help explains a command's flags; autoscheme --version prints the version.\n"
                  "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.\n");
  return text;
}

std::string Help(const cli::Command& command) {
  return absl::StrCat("autoscheme ", command.name, ": ", command.summary, "\n\n", cli::FlagHelp(command.flags));
}

int UsageError(absl::string_view message, absl::string_view help) {
  absl::FPrintF(stderr, "autoscheme: %s (see %s)\n", cli::Printable(message), help);
  return kUsage;
}

const cli::Command* FindCommand(absl::string_view name) {
  for (const cli::Command& command : cli::Commands()) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

int RunCommand(const cli::Command& command, const std::vector<std::string>& arguments) {
  const std::string help = absl::StrCat("autoscheme ", command.name, " --help");
  cli::Session session;
  auto flags = cli::Flags::Parse(command.flags, arguments);
  if (!flags.ok()) return UsageError(flags.status().message(), help);
  session.flags = *std::move(flags);

  absl::Status status = cli::Make(session.context, autoscheme_context_create);
  if (status.ok()) status = cli::Make(session.options, autoscheme_options_create);
  if (status.ok()) {
    absl::Status applied = session.flags.Apply(command.flags, session.options.get());
    if (applied.ok()) applied = session.flags.ApplyAliases(session.context.get());
    if (!applied.ok()) return UsageError(applied.message(), help);
    for (const char* count : {"nsamples", "seqlen", "max-tokens"}) {
      if (auto parsed = session.flags.GetCount(count); !parsed.ok()) return UsageError(parsed.status().message(), help);
    }
    if (auto style = cli::Reporter::StyleOf(session.flags); !style.ok()) {
      return UsageError(style.status().message(), help);
    }
    if (command.check != nullptr) {
      if (const absl::Status fit = command.check(session.flags); !fit.ok()) return UsageError(fit.message(), help);
    }
    cli::CancelOnInterrupt(session.context.get());
    status = command.run(session);
    cli::StopHandlingInterrupts();
  }
  if (status.ok()) return kDone;
  absl::FPrintF(stderr, "autoscheme: %s\n", cli::Printable(status.message()));
  return absl::IsCancelled(status) ? kInterrupted : kFailed;
}

// Descriptors 0 to 2 that the caller has closed would be given to the next files that are opened, and what is printed
// would end in those. Each gets an end that refuses what it is for.
void OccupyStandardDescriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) < 0) (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

// Every shard of a model stays open while it is read: the limit that a shell sets is less than some models have.
void AllowOpenFiles() {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(std::vector<std::string> arguments) {
  if (arguments.empty()) return UsageError("no command", "autoscheme --help");
  const std::string name = arguments.front();
  arguments.erase(arguments.begin());
  if (name == "--help" || name == "-h" || (name == "help" && arguments.empty())) {
    absl::PrintF("%s", Usage());
    return kDone;
  }
  if (name == "--version") {
    absl::PrintF("autoscheme %s\n%s\n", autoscheme_version(), autoscheme_build_info());
    return kDone;
  }
  const bool wants_help = name == "help";
  const cli::Command* command = FindCommand(wants_help ? arguments.front() : name);
  if (command == nullptr) {
    return UsageError(absl::StrCat("unknown command '", wants_help ? arguments.front() : name, "'"),
                      "autoscheme --help");
  }
  for (const std::string& argument : arguments) {
    if (wants_help || argument == "--help" || argument == "-h") {
      absl::PrintF("%s", Help(*command));
      return kDone;
    }
  }
  return RunCommand(*command, arguments);
}

}  // namespace

int main(int argc, char** argv) {
  cli::KeepHeapSmall();
  OccupyStandardDescriptors();
  AllowOpenFiles();
  signal(SIGPIPE, SIG_IGN);  // a reader that is gone is an error like others, and no reason to lose a run
  const int code = Main(std::vector<std::string>(argv + 1, argv + argc));
  const bool printed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (printed || code != kDone) return code;
  absl::FPrintF(stderr, "autoscheme: cannot write to stdout: it is closed, its reader is gone, or its disk is full\n");
  return kFailed;
}
