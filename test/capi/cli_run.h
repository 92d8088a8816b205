// Starts the autoscheme program and looks at what it did.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "capi/capi_test.h"

namespace autoscheme {

struct Run {
  int code = -1;  // exit code; -1 if it died of a signal
  std::string out, err;
  int lines() const { return static_cast<int>(std::count(err.begin(), err.end(), '\n')); }
};

// What happens beside the program.
struct Beside {
  std::function<void()> in_child = [] {};  // before it starts; stdout and stderr are set already
  std::string awaited;                     // `then` is called as soon as stderr has this text, once
  std::function<void(pid_t)> then;
};

// Starts the program; its outputs go to files in `dir`.
inline Run Start(const TempDir& dir, const std::vector<std::string>& arguments, const Beside& beside = {}) {
  const std::string out = dir / "stdout", err = dir / "stderr";
  std::vector<char*> argv = {const_cast<char*>(AUTOSCHEME_CLI)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  for (const std::string& file : {out, err}) unlink(file.c_str());
  const pid_t child = fork();
  if (child == 0) {
    const int to_out = open(out.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    const int to_err = open(err.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (dup2(to_out, 1) < 0 || dup2(to_err, 2) < 0) _exit(99);
    beside.in_child();
    execv(argv[0], argv.data());
    _exit(98);
  }
  int status = 0;
  bool ended = false;
  if (beside.then) {
    for (int i = 0; i < 12000 && Slurp(err).find(beside.awaited) == std::string::npos && !ended; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      ended = waitpid(child, &status, WNOHANG) == child;
    }
    if (!ended) beside.then(child);
  }
  if (!ended) waitpid(child, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, Slurp(out), Slurp(err)};
}

// The program beside a tiny model.
struct Shell : TinyCase {
  using TinyCase::TinyCase;
  Run operator()(const std::vector<std::string>& arguments, const Beside& beside = {}) const {
    return Start(dir, arguments, beside);
  }
  std::vector<std::string> Scoring(const std::string& command, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {command,     "--model",     model_dir,   "--tokens", tokens,
                                    "--schemes", "W4A16,W8A16", "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // A run that lasts long enough to do something meanwhile, the longer the more rows it scores.
  void MakeDeep(int64_t rows = 64) {
    model.blocks = 40;
    WriteTinyModel(model, model_dir);
    tokens = dir.Write("tokens.json", TinyTokens(rows, 64, model.vocab));
  }
};

}  // namespace autoscheme
