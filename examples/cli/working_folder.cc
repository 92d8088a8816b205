// A program whose working folder has been deleted is told so in its own words.
//
// oneMKL, which LibTorch holds, looks for that folder while it is loaded, and ends the process with "Cannot load
// libtorch_cpu.so" if there is none. So this looks first: the functions of .preinit_array run before the initializers
// of all libraries. No library can be relied on there, hence bare system calls, and no sanitizer.
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace {

constexpr char kGone[] =
    "autoscheme: the working folder has been deleted: go to one that exists, and start the program there\n";

__attribute__((no_sanitize("address", "thread", "undefined"))) void CheckWorkingFolder() {
  static char path[4096];
  if (syscall(SYS_getcwd, path, sizeof(path)) >= 0 || errno != ENOENT) return;
  (void)!syscall(SYS_write, STDERR_FILENO, kGone, sizeof(kGone) - 1);
  syscall(SYS_exit_group, 1);
}

__attribute__((section(".preinit_array"), used)) void (*const kCheckWorkingFolder)() = CheckWorkingFolder;

}  // namespace
