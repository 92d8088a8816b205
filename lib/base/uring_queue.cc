#include <cerrno>

#include "base/read_queue.h"

#ifdef AUTOSCHEME_HAVE_LIBURING

#include <liburing.h>

namespace autoscheme {
namespace {

class UringQueue : public ReadQueue {
 public:
  ~UringQueue() override {
    if (!open_) return;
    // Closing a ring does not wait: a read that is under way would still write into its buffer.
    while (under_way_ > 0) Wait();
    io_uring_queue_exit(&ring_);
  }

  int Open(int depth) {
    const int result = io_uring_queue_init(depth, &ring_, 0);
    open_ = result == 0;
    return result;
  }

  int Submit(const Read& read) override {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) return -EBUSY;
    io_uring_prep_read(entry, read.fd, read.to, static_cast<unsigned>(read.bytes), read.offset);
    entry->user_data = static_cast<uint64_t>(read.tag);
    int result;
    while ((result = io_uring_submit(&ring_)) == -EINTR) {
    }
    if (result < 0) return result;
    if (result == 0) return -EAGAIN;
    ++under_way_;
    return 0;
  }

  Completion Wait() override {
    io_uring_cqe* entry = nullptr;
    while (io_uring_wait_cqe(&ring_, &entry) < 0) {  // a signal: nothing else ends a wait for what was accepted
    }
    const Completion completion = {static_cast<int>(entry->user_data), entry->res};
    io_uring_cqe_seen(&ring_, entry);
    --under_way_;
    return completion;
  }

 private:
  io_uring ring_ = {};
  bool open_ = false;
  int under_way_ = 0;
};

}  // namespace

int MakeUringQueue(int depth, std::unique_ptr<ReadQueue>* out) {
  auto queue = std::make_unique<UringQueue>();
  if (const int result = queue->Open(depth); result < 0) return result;
  *out = std::move(queue);
  return 0;
}

}  // namespace autoscheme

#else

namespace autoscheme {

int MakeUringQueue(int, std::unique_ptr<ReadQueue>*) { return -ENOSYS; }

}  // namespace autoscheme

#endif
