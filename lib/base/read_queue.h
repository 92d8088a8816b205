// ReadQueue: several reads under way at once, by threads that call pread.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

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
  // io.Pread by `threads` threads; with none (or where the system has none to give) by Wait itself. `io` must outlive
  // the queue.
  ReadQueue(Io& io, int threads, int depth);
  ~ReadQueue();

  // Starts a read; at most `depth` may be under way.
  void Submit(const Read& read);
  // The next one to end, in no particular order. Only while one is under way.
  Completion Wait();

 private:
  Read TakeFirst();
  Completion Execute(const Read& read);
  void Serve();

  Io& io_;
  std::mutex mutex_;
  std::condition_variable submitted_, completed_;
  std::vector<Read> waiting_;
  std::vector<Completion> done_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace autoscheme
