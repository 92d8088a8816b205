// A ReadQueue whose results a test can change.
#ifndef AUTOSCHEME_TEST_SUPPORT_DISTURBED_QUEUE_H_
#define AUTOSCHEME_TEST_SUPPORT_DISTURBED_QUEUE_H_

#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "base/read_queue.h"

namespace autoscheme {

class DisturbedQueue : public ReadQueue {
 public:
  // Gets a read that has ended and its result, and returns the result that is told.
  using Disturb = std::function<ssize_t(const Read& read, ssize_t result)>;
  DisturbedQueue(std::unique_ptr<ReadQueue> queue, Disturb disturb)
      : queue_(std::move(queue)), disturb_(std::move(disturb)) {}

  int Submit(const Read& read) override {
    reads_[read.tag] = read;
    return queue_->Submit(read);
  }
  Completion Wait() override {
    Completion completion = queue_->Wait();
    completion.result = disturb_(reads_[completion.tag], completion.result);
    return completion;
  }

 private:
  std::unique_ptr<ReadQueue> queue_;
  const Disturb disturb_;
  std::map<int, Read> reads_;
};

}  // namespace autoscheme

#endif  // AUTOSCHEME_TEST_SUPPORT_DISTURBED_QUEUE_H_
