// What must happen before the libraries are initialized. The functions of .preinit_array run before the initializers of
// all libraries. No library can be relied on there, hence bare system calls and loops, and no sanitizer.
//
// - A program whose working folder has been deleted, or has no path that the system gives, is told so in its own words:
//   oneMKL, which LibTorch holds, looks for that folder while it is loaded, and ends the process with "Cannot load
//   libtorch_cpu.so" if there is none.
// - Threads wait for each other at the end of every parallel loop, and OpenMP (libgomp) lets them spin for milliseconds
// before they
//   sleep. Beside other busy programs a spinning thread takes the core from the very thread that it waits for, and a
//   run takes five times as long. libgomp reads how long to spin, GOMP_SPINCOUNT, from the environment when it is
//   loaded and at no other time. So the program starts itself once more with a short count, unless the user has set
//   one. Where that cannot be done the run goes on, as it does where /proc/self/exe is not this program (it was started
//   by naming the dynamic loader) or a tool would lose it (valgrind).
#include <elf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <initializer_list>

#define AUTOSCHEME_BARE __attribute__((no_sanitize("address", "thread", "undefined")))

namespace {

constexpr char kGone[] =
    "autoscheme: the working folder has been deleted: go to one that exists, and start the program there\n";

constexpr char kNoPath[] =
    "autoscheme: the system does not tell the path of the working folder, which may be too long: start the program in "
    "another folder\n";

AUTOSCHEME_BARE void CheckWorkingFolder() {
  static char path[4096];
  if (syscall(SYS_getcwd, path, sizeof(path)) >= 0) return;
  const bool gone = errno == ENOENT;
  (void)!syscall(SYS_write, STDERR_FILENO, gone ? kGone : kNoPath, (gone ? sizeof(kGone) : sizeof(kNoPath)) - 1);
  syscall(SYS_exit_group, 1);
}

AUTOSCHEME_BARE bool BeginsWith(const char* text, const char* prefix) {
  while (*prefix != '\0' && *text == *prefix) ++text, ++prefix;
  return *prefix == '\0';
}

// Whether the kernel itself has loaded this program and its dynamic loader: AT_BASE is 0 where the loader was what it
// started.
AUTOSCHEME_BARE bool StartedByKernel(char** environment) {
  while (*environment != nullptr) ++environment;
  for (auto* entry = reinterpret_cast<const Elf64_auxv_t*>(environment + 1); entry->a_type != AT_NULL; ++entry) {
    if (entry->a_type == AT_BASE) return entry->a_un.a_val != 0;
  }
  return false;
}

AUTOSCHEME_BARE bool Contains(const char* text, const char* part) {
  for (; *text != '\0'; ++text) {
    if (BeginsWith(text, part)) return true;
  }
  return false;
}

// A wait of 1,000 turns lasts some microseconds, about as long as it takes to wake a thread that sleeps.
AUTOSCHEME_BARE void SpinBriefly(int argc, char** argv, char** environment) {
  constexpr size_t kMost = 4096;
  static const char* settings[kMost + 2];
  static char program[4096];
  bool computes = false;
  for (const char* command : {"score", "run", "plan"})
    computes = computes || (argc > 1 && BeginsWith(argv[1], command));
  size_t count = 0;
  for (; computes && environment[count] != nullptr; ++count) {
    const char* setting = environment[count];
    if (count == kMost || BeginsWith(setting, "GOMP_SPINCOUNT=") || BeginsWith(setting, "OMP_WAIT_POLICY=")) return;
    if (BeginsWith(setting, "LD_PRELOAD=") && Contains(setting, "vgpreload")) return;
    settings[count] = environment[count];
  }
  if (!computes || !StartedByKernel(environment)) return;
  settings[count] = "GOMP_SPINCOUNT=5000";
  // The name is kept, so that the system's lists of processes show it.
  const long length = syscall(SYS_readlink, "/proc/self/exe", program, sizeof(program) - 1);
  if (length <= 0) return;
  program[length] = '\0';
  syscall(SYS_execve, program, argv, settings);
}

AUTOSCHEME_BARE void BeforeLibraries(int argc, char** argv, char** environment) {
  CheckWorkingFolder();
  SpinBriefly(argc, argv, environment);
}

__attribute__((section(".preinit_array"), used)) void (*const kBeforeLibraries)(int, char**, char**) = BeforeLibraries;

}  // namespace
