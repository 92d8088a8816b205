#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/io.h"
#include "base/read_queue.h"

namespace autoscheme {
namespace {

class PreadQueue : public ReadQueue {
 public:
  PreadQueue(Io& io, int threads, int depth) : io_(io) {
    waiting_.reserve(depth);
    done_.reserve(depth);
    try {
      while (static_cast<int>(threads_.size()) < threads) threads_.emplace_back([this] { Serve(); });
    } catch (const std::system_error&) {  // no more threads to be had: fewer do, or none
    }
  }
  ~PreadQueue() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    submitted_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  int Submit(const Read& read) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      waiting_.push_back(read);
    }
    submitted_.notify_one();
    return 0;
  }

  Completion Wait() override {
    std::unique_lock<std::mutex> lock(mutex_);
    if (threads_.empty()) return Execute(TakeFirst());
    completed_.wait(lock, [&] { return !done_.empty(); });
    const Completion completion = done_.back();
    done_.pop_back();
    return completion;
  }

 private:
  // First come, first served, so that the disk sees ascending offsets. The lock is held.
  Read TakeFirst() {
    const Read read = waiting_.front();
    waiting_.erase(waiting_.begin());
    return read;
  }

  Completion Execute(const Read& read) {
    const ssize_t n =
        RetryInterrupted([&] { return io_.Pread(read.fd, read.to, read.bytes, static_cast<off_t>(read.offset)); });
    return {read.tag, n};
  }

  void Serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      submitted_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
      if (stop_) return;
      const Read read = TakeFirst();
      lock.unlock();
      const Completion completion = Execute(read);
      lock.lock();
      done_.push_back(completion);
      completed_.notify_one();
    }
  }

  Io& io_;
  std::mutex mutex_;
  std::condition_variable submitted_, completed_;
  std::vector<Read> waiting_;
  std::vector<Completion> done_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<ReadQueue> MakePreadQueue(Io& io, int threads, int depth) {
  return std::make_unique<PreadQueue>(io, threads, depth);
}

}  // namespace autoscheme
