// ReadQueue: several reads under way at once. By threads that call pread, or by io_uring.
#ifndef AUTOSCHEME_BASE_READ_QUEUE_H_
#define AUTOSCHEME_BASE_READ_QUEUE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace autoscheme {

class Io;

// One thread uses it. The destructor waits for what is under way, so buffers may go after it. Nothing is allocated per
// read. Numbers follow the kernel's convention: a negative errno is an error.
class ReadQueue {
 public:
  struct Read {
    int fd = -1;
    std::byte* to = nullptr;
    size_t bytes = 0;
    uint64_t offset = 0;
    int tag = 0;  // the caller's name for it
  };
  struct Completion {
    int tag = 0;
    ssize_t result = 0;  // bytes, which may be fewer than asked for, or a negative errno
  };
  virtual ~ReadQueue() = default;

  // Starts a read; at most `depth` may be under way. A negative errno: it has not been started, and
  // this queue can start no more.
  virtual int Submit(const Read& read) = 0;
  // The next one to end, in no particular order. Only while one is under way.
  virtual Completion Wait() = 0;
};

// io.Pread by `threads` threads; with none (or where the system has none to give) by Wait itself. `io` must outlive it.
std::unique_ptr<ReadQueue> MakePreadQueue(Io& io, int threads, int depth);

// By io_uring. -ENOSYS where the kernel or this build has none, -EPERM where a sandbox forbids it.
int MakeUringQueue(int depth, std::unique_ptr<ReadQueue>* out);

}  // namespace autoscheme

#endif  // AUTOSCHEME_BASE_READ_QUEUE_H_
