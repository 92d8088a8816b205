#include "tensor/tensor_pool.h"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "base/count.h"
#include "base/status_macros.h"
#include "base/system_limits.h"

namespace autoscheme {
namespace {

constexpr size_t kBlockMultiple = 4096;
constexpr size_t kLargePage = size_t{2} << 20;
constexpr size_t kLeastRegion = size_t{64} << 20;  // address space, which costs nothing
constexpr size_t kSmallPool = size_t{64} << 20;

size_t RoundUp(size_t bytes, size_t multiple = kBlockMultiple) { return (bytes + multiple - 1) / multiple * multiple; }

// Memory becomes accessible by large pages, so that it can consist of them: one that begins accessible only in part is
// made of small pages for good. Not in a small pool, of which the rest of a large page would be much.
size_t AccessibleFor(size_t bytes) { return bytes < kSmallPool ? bytes : RoundUp(bytes, kLargePage); }

using Gaps = std::map<size_t, size_t>;  // offset -> bytes

// Reserves address space; pages cost memory once they are touched.
struct Region {
  std::byte* data = nullptr;
  size_t size = 0, accessible = 0;  // from the start
  Gaps gaps;
};

// Room for all that the system could give, so that one region will do; an eighth of that where address space is
// limited, which others need too, and a run has two pools.
size_t MostAddresses() {
  rlimit limit{};
  const auto free = ReadFreeMemory(Io::Posix());
  const size_t memory = RoundUp(std::max<size_t>(free.has_value() ? free->bytes : 0, kLeastRegion), kLargePage);
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return memory;
  return std::min<size_t>(memory, RoundUp(limit.rlim_cur / 8, kLargePage));
}

}  // namespace

struct TensorPool::State {
  ~State() {
    if (device.device != nullptr) return;
    for (const Region& region : regions) munmap(region.data, region.size);
  }
  RunDevice device;
  DeviceMemory reserved;  // the one region of a device's pool
  std::mutex mutex;
  std::vector<Region> regions;
  uint64_t used = 0, peak = 0;

  // Its gap becomes smaller or goes; nothing changes when this throws.
  std::unique_ptr<Block> Find(const std::shared_ptr<State>& self, size_t bytes);
  void AddRegion(size_t bytes);
  void Free(Block& block) noexcept;
};

// In use. Brings the gap along that it will be again, so that freeing allocates nothing and cannot fail.
struct TensorPool::Block {
  std::shared_ptr<State> state;
  size_t region, offset, bytes;
  Gaps::node_type gap;
};

void TensorPool::State::AddRegion(size_t bytes) {
  TORCH_CHECK_WITH(OutOfMemoryError, device.device == nullptr, "cannot allocate ", Count(bytes, "byte"), " of ",
                   device.name, ": of the ", reserved.bytes(), " that the plan reserved there ", used,
                   " are in use; give a larger max_vram_bytes");
  regions.reserve(regions.size() + 1);
  // Without access until it is used, so that none of it counts as promised.
  bytes = RoundUp(bytes, kLargePage);
  for (size_t size = std::max(MostAddresses(), bytes);; size = std::max(RoundUp(size / 4, kLargePage), bytes)) {
    // One large page more, for the first whole one to begin at.
    void* mapped = mmap(nullptr, size + kLargePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped != MAP_FAILED) {
      std::byte* start = static_cast<std::byte*>(mapped);
      const size_t before =
          RoundUp(reinterpret_cast<uintptr_t>(start), kLargePage) - reinterpret_cast<uintptr_t>(start);
      if (before > 0) munmap(start, before);
      if (before < kLargePage) munmap(start + before + size, kLargePage - before);
      Region region;
      region.data = start + before, region.size = size;
      // Fewer and cheaper faults where the system has large pages.
      madvise(region.data, size, MADV_HUGEPAGE);
      region.gaps[0] = size;
      regions.push_back(std::move(region));
      return;
    }
    if (size == bytes) throw std::bad_alloc();
  }
}

// The smallest gap that fits, the lowest of equals: tensors of a few sizes that come and go in turns then find the
// places that they had before.
std::unique_ptr<TensorPool::Block> TensorPool::State::Find(const std::shared_ptr<State>& self, size_t bytes) {
  for (size_t s = 0;; ++s) {
    if (s == regions.size()) AddRegion(bytes);
    Region& region = regions[s];
    auto best = region.gaps.end();
    for (auto gap = region.gaps.begin(); gap != region.gaps.end(); ++gap) {
      if (gap->second >= bytes && (best == region.gaps.end() || gap->second < best->second)) best = gap;
    }
    if (best == region.gaps.end()) continue;
    const size_t offset = best->first;
    if (offset + bytes > region.accessible) {
      const size_t grown = std::min(AccessibleFor(offset + bytes), region.size);
      if (mprotect(region.data + region.accessible, grown - region.accessible, PROT_READ | PROT_WRITE) != 0)
        throw std::bad_alloc();
      region.accessible = grown;
    }
    Gaps own = {{offset, bytes}};
    std::unique_ptr<Block> block(new Block{self, s, offset, bytes, own.extract(offset)});
    Gaps::node_type rest = region.gaps.extract(best);
    if (rest.mapped() > bytes) {
      rest.key() += bytes, rest.mapped() -= bytes;
      region.gaps.insert(std::move(rest));
    }
    return block;
  }
}

void TensorPool::State::Free(Block& block) noexcept {
  std::lock_guard<std::mutex> lock(mutex);
  used -= block.bytes;
  Gaps& gaps = regions[block.region].gaps;
  auto gap = gaps.insert(std::move(block.gap)).position;
  if (auto after = std::next(gap); after != gaps.end() && gap->first + gap->second == after->first) {
    gap->second += after->second;
    gaps.erase(after);
  }
  if (gap == gaps.begin()) return;
  if (auto before = std::prev(gap); before->first + before->second == gap->first) {
    before->second += gap->second;
    gaps.erase(gap);
  }
}

// To whoever counts the thread's tensors, as LibTorch's own allocator does.
static void Report(void* data, int64_t bytes, at::Device device) {
  if (c10::memoryProfilingEnabled()) c10::reportMemoryUsageToProfiler(data, bytes, 0, 0, device);
}

TensorPool::TensorPool() : state_(std::make_shared<State>()) {}
TensorPool::~TensorPool() = default;

absl::Status TensorPool::Reserve(const RunDevice& device, uint64_t bytes) {
  AUTOSCHEME_ASSIGN_OR_RETURN(state_->reserved,
                              DeviceMemory::Allocate(*device.device, DeviceMemory::Kind::kDevice, bytes, "tensors"));
  state_->device = device;
  Region region;
  region.data = state_->reserved.data(), region.size = region.accessible = bytes / kBlockMultiple * kBlockMultiple;
  region.gaps[0] = region.size;
  state_->regions.push_back(std::move(region));
  return absl::OkStatus();
}

at::Device TensorPool::device() const { return state_->device.torch; }

c10::DataPtr TensorPool::allocate(size_t bytes) {
  if (bytes < kSmall && state_->device.device == nullptr) return c10::GetDefaultCPUAllocator()->allocate(bytes);
  std::lock_guard<std::mutex> lock(state_->mutex);
  std::unique_ptr<Block> block = state_->Find(state_, RoundUp(std::max<size_t>(bytes, 1)));
  state_->used += block->bytes;
  state_->peak = std::max(state_->peak, state_->used);
  std::byte* data = state_->regions[block->region].data + block->offset;
  const at::Device device = state_->device.torch;
  Report(data, static_cast<int64_t>(block->bytes), device);
  const auto release = [](void* context) {
    std::unique_ptr<Block> mine(static_cast<Block*>(context));
    Report(nullptr, -static_cast<int64_t>(mine->bytes), mine->state->device.torch);
    mine->state->Free(*mine);
  };
  return {data, block.release(), release, device};
}

void TensorPool::Trim() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  if (state_->device.device != nullptr) return;
  for (const Region& region : state_->regions) {
    for (const auto& [offset, bytes] : region.gaps) {
      if (offset < region.accessible)
        madvise(region.data + offset, std::min(bytes, region.accessible - offset), MADV_DONTNEED);
    }
  }
}

uint64_t TensorPool::peak_bytes() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->peak;
}

static at::Tensor NewIn(c10::Allocator* allocator, at::Device device, at::IntArrayRef sizes, at::ScalarType dtype) {
  if (allocator == nullptr) return at::empty(sizes, at::TensorOptions().device(device).dtype(dtype));
  const c10::DispatchKey key = device.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  return at::detail::empty_generic(sizes, allocator, c10::DispatchKeySet(key), dtype, std::nullopt);
}

at::Tensor NewLike(const at::Tensor& like, at::IntArrayRef sizes, at::ScalarType dtype) {
  return NewIn(like.has_storage() ? like.storage().allocator() : nullptr, like.device(), sizes, dtype);
}

at::Tensor NewLike(const at::Tensor& like) { return NewLike(like, like.sizes(), like.scalar_type()); }

at::Tensor NewTensor(TensorPool* pool, at::IntArrayRef sizes, at::ScalarType dtype) {
  return NewIn(pool, pool == nullptr ? at::Device(at::kCPU) : pool->device(), sizes, dtype);
}

at::Tensor Converted(const at::Tensor& t, at::ScalarType dtype) {
  return t.scalar_type() == dtype ? t : NewLike(t, t.sizes(), dtype).copy_(t);
}

}  // namespace autoscheme
