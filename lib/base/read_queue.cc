#include "base/read_queue.h"

#include <system_error>

#include "base/io.h"

namespace autoscheme {

ReadQueue::ReadQueue(Io& io, int threads, int depth) : io_(io) {
  waiting_.reserve(depth);
  done_.reserve(depth);
  try {
    while (static_cast<int>(threads_.size()) < threads) threads_.emplace_back([this] { Serve(); });
  } catch (const std::system_error&) {  // no more threads to be had: fewer do, or none
  }
}

ReadQueue::~ReadQueue() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  submitted_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ReadQueue::Submit(const Read& read) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push_back(read);
  }
  submitted_.notify_one();
}

ReadQueue::Completion ReadQueue::Wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (threads_.empty()) return Execute(TakeFirst());
  completed_.wait(lock, [&] { return !done_.empty(); });
  const Completion completion = done_.back();
  done_.pop_back();
  return completion;
}

// First come, first served, so that the disk sees ascending offsets. The lock is held.
ReadQueue::Read ReadQueue::TakeFirst() {
  const Read read = waiting_.front();
  waiting_.erase(waiting_.begin());
  return read;
}

ReadQueue::Completion ReadQueue::Execute(const Read& read) {
  const ssize_t n =
      RetryInterrupted([&] { return io_.Pread(read.fd, read.to, read.bytes, static_cast<off_t>(read.offset)); });
  return {read.tag, n};
}

void ReadQueue::Serve() {
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

}  // namespace autoscheme
