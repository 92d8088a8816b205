// Pages: one large, page-aligned block of anonymous memory that goes back to the system when it is dropped.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace autoscheme {

inline constexpr uint64_t kPageBytes = 4096;

inline constexpr uint64_t PageFloor(uint64_t n) { return n / kPageBytes * kPageBytes; }
inline constexpr uint64_t RoundUp(uint64_t n, uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Straight from mmap, so that freeing it lowers RSS whatever the host's allocator does. Zero-filled; a page costs
// memory once it is touched. Movable.
class Pages {
 public:
  Pages() = default;
  Pages(Pages&& o) noexcept { *this = std::move(o); }
  Pages& operator=(Pages&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~Pages() {
    if (data_ != nullptr) munmap(data_, size_);
  }

  // At least `bytes`, rounded up to whole pages; one page for 0. RESOURCE_EXHAUSTED naming `what` and the bytes.
  static absl::StatusOr<Pages> Allocate(uint64_t bytes, absl::string_view what) {
    Pages pages;
    if (bytes < SIZE_MAX - kPageBytes) {
      const size_t size = RoundUp(bytes == 0 ? 1 : bytes, kPageBytes);
      void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (data != MAP_FAILED) {
        pages.data_ = static_cast<std::byte*>(data);
        pages.size_ = size;
        return pages;
      }
    }
    return absl::ResourceExhaustedError(absl::StrCat("the system has no ", bytes, " bytes of memory for ", what));
  }

  // A process that is forked off does not see the memory. Needed where the kernel may be reading into it at that moment
  // past the page cache: the pages would be copied under its hands.
  void KeepFromChildren() { madvise(data_, size_, MADV_DONTFORK); }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace autoscheme
