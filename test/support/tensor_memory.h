// TensorMemory: how many bytes of CPU tensors are alive, now and at most, while it lives.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace autoscheme {

// Sees the allocations of this thread's tensor code only (and of autograd, which runs on it).
class TensorMemory {
 public:
  TensorMemory() : info_(std::make_shared<Info>()), guard_(c10::DebugInfoKind::PROFILER_STATE, info_) {}
  int64_t live_bytes() const { return info_->live; }
  int64_t peak_bytes() const { return info_->peak; }

 private:
  struct Info : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(void*, int64_t alloc_size, size_t, size_t, c10::Device) override {
      live += alloc_size;
      peak = std::max(peak, live);
    }
    bool memoryProfilingEnabled() const override { return true; }
    int64_t live = 0, peak = 0;
  };
  std::shared_ptr<Info> info_;
  c10::DebugInfoGuard guard_;
};

}  // namespace autoscheme
