#include "quant/fused.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "device/torch_devices.h"
#include "quant/device_quant_api.h"

namespace autoscheme {
namespace {

using cpu::BestKernels;
using cpu::Format;
using cpu::Groups;
using cpu::WholeGradient;

constexpr int64_t kChunkElements = 2048;   // float32: with its result half of a first-level cache
constexpr int64_t kGrainElements = 32768;  // what a thread is worth waking for

// A tensor's elements as float32: in place, or by way of the caller's buffer.
class Source {
 public:
  explicit Source(const at::Tensor& t) : type_(t.scalar_type()), data_(t.const_data_ptr()) {}
  bool in_place() const { return type_ == at::kFloat; }
  const float* Read(int64_t at, int64_t n, float* buffer) const {
    if (in_place()) return static_cast<const float*>(data_) + at;
    const auto* halves = static_cast<const uint16_t*>(data_) + at;
    type_ == at::kHalf ? BestKernels().widen_half(halves, n, buffer) : BestKernels().widen_bfloat16(halves, n, buffer);
    return buffer;
  }

 private:
  at::ScalarType type_;
  const void* data_;
};

class Sink {
 public:
  explicit Sink(const at::Tensor& t) : type_(t.scalar_type()), data_(t.mutable_data_ptr()) {}
  bool in_place() const { return type_ == at::kFloat; }
  // Where to write; Done brings it to its place.
  float* Begin(int64_t at, float* buffer) const { return in_place() ? static_cast<float*>(data_) + at : buffer; }
  void Done(int64_t at, int64_t n, const float* buffer) const {
    if (!in_place()) BestKernels().narrow_bfloat16(buffer, n, static_cast<uint16_t*>(data_) + at);
  }

 private:
  at::ScalarType type_;
  void* data_;
};

// Elements that lie one behind the other, and the size of the groups that they are cut into, of which the last may be
// shorter. Groups of size 0: all of x is one.
struct Runs {
  int64_t length, size;
};

Runs RunsOf(const GroupSize& group, const at::Tensor& x) {
  const int64_t width = x.size(-1);
  if (group.size == 0) return {x.numel(), x.numel()};
  const int64_t size = group.size < 0 || width < group.size ? width : group.size;
  return {width % size != 0 ? width : x.numel(), size};
}

// The groups of a matrix in chunks of whole groups, each of which lies in one run of memory. A row that its groups
// do not fill ends in a shorter one; zeros that would fill it up change no range, and are not there.
class Chunks {
 public:
  Chunks(const GroupSize& group, const at::Tensor& x) {
    const Runs runs = RunsOf(group, x);
    run_ = runs.length, size_ = group.size == 0 ? std::min(kChunkElements, run_) : runs.size;
    elements_ = std::clamp<int64_t>(kChunkElements / size_, 1, cpu::kMostGroups) * size_;
    per_run_ = CeilDiv(run_, elements_);
    count_ = x.numel() / run_ * per_run_;
  }
  int64_t count() const { return count_; }
  int64_t grain() const { return std::max<int64_t>(1, kGrainElements / std::min(elements_, run_)); }
  int64_t most_elements() const { return std::min(elements_, run_); }
  int64_t first(int64_t chunk) const { return chunk / per_run_ * run_ + chunk % per_run_ * elements_; }
  Groups groups(int64_t chunk) const {
    const int64_t n = std::min(elements_, run_ - chunk % per_run_ * elements_), count = CeilDiv(n, size_);
    return {count, size_, n - (count - 1) * size_};
  }

 private:
  int64_t run_, size_, elements_, per_run_, count_;
};

// Buffers of one thread, for as many tensors as are not worked in place.
class Buffers {
 public:
  Buffers(int64_t elements, std::initializer_list<bool> in_place) {
    for (const bool spared : in_place) data_.emplace_back(spared ? 0 : elements);
  }
  float* operator[](int i) { return data_[i].data(); }

 private:
  std::vector<std::vector<float>> data_;
};

// 2-D tiles: the rows of a strip twice, for the tiles' amaxes and for the elements.
void ForwardTiles(const Format& format, const GroupSize& group, const at::Tensor& x, at::Tensor& y) {
  const int64_t width = x.size(-1), height = x.numel() / width, tile = group.size;
  const int64_t across = std::clamp<int64_t>(kChunkElements / tile, 1, cpu::kMostGroups) * tile,
                chunks = CeilDiv(width, across);
  const Source source(x);
  const Sink sink(y);
  at::parallel_for(0, CeilDiv(height, group.rows) * chunks, 1, [&](int64_t begin, int64_t end) {
    Buffers buffers(across, {source.in_place() && sink.in_place()});
    for (int64_t i = begin; i < end; ++i) {
      const int64_t top = i / chunks * group.rows, bottom = std::min(height, top + group.rows),
                    left = i % chunks * across;
      const int64_t n = std::min(across, width - left), count = CeilDiv(n, tile);
      const Groups groups{count, tile, n - (count - 1) * tile};
      float amaxes[cpu::kMostGroups] = {}, row_amaxes[cpu::kMostGroups];
      for (int64_t row = top; row < bottom; ++row) {
        BestKernels().amaxes(source.Read(row * width + left, n, buffers[0]), groups, row_amaxes);
        for (int64_t g = 0; g < count; ++g) {
          if (row_amaxes[g] > amaxes[g] || std::isnan(row_amaxes[g])) amaxes[g] = row_amaxes[g];  // NaN stays
        }
      }
      for (int64_t row = top; row < bottom; ++row) {
        const int64_t at = row * width + left;
        float* out = sink.Begin(at, buffers[0]);
        BestKernels().forward(format, source.Read(at, n, buffers[0]), groups, amaxes, 0, out);
        sink.Done(at, n, out);
      }
    }
  });
}

// The device whose loops work on x; null: the processor's do.
const Device* QuantDevice(const at::Tensor& x) {
  const Device* device = KernelsOf(x);
  return device != nullptr && device->api().quant != nullptr ? device : nullptr;
}

DeviceGroups GroupsOn(const GroupSize& group, const at::Tensor& x) {
  return GroupsOf(group.size, group.rows, x.numel(), x.size(-1));
}

const float* Pointer(const at::Tensor& whole) { return whole.defined() ? whole.const_data_ptr<float>() : nullptr; }

void BackwardOn(const Device& device, const Format& format, const GroupSize& group, const at::Tensor& x,
                const at::Tensor& grad, const at::Tensor& whole, bool constant_whole, const at::Tensor& dx) {
  const DeviceGroups groups = GroupsOn(group, x);
  const DeviceResult result = device.api().quant->backward(
      device.handle(), &format, &groups, x.const_data_ptr(), NumberOf(x), grad.const_data_ptr(), Pointer(whole),
      static_cast<int32_t>(constant_whole), dx.mutable_data_ptr(), NumberOf(dx));
  RequireOk(device, result, "differentiating what is quantized");
}

bool KQuantOn(const Device& device, const cpu::KFormat& format, const at::Tensor& x, const at::Tensor& importance,
              const at::Tensor& y) {
  const at::Tensor overflowed = at::zeros({1}, x.options().dtype(at::kInt));
  const int64_t repeat = importance.defined() ? importance.numel() / format.group : 1;
  const DeviceResult result = device.api().quant->k_quant(
      device.handle(), &format, x.numel() / format.group, x.const_data_ptr(), NumberOf(x), Pointer(importance), repeat,
      y.mutable_data_ptr(), NumberOf(y), overflowed.mutable_data_ptr<int32_t>());
  RequireOk(device, result, "quantizing by super-groups");
  return overflowed.item<int32_t>() == 0;
}

}  // namespace

bool Fusable(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  return x.is_contiguous() && (type == at::kFloat || type == at::kBFloat16 || type == at::kHalf) &&
         (OnHost(x) || QuantDevice(x) != nullptr);
}

bool FusableInto(const at::Tensor& x, const at::Tensor& y) {
  return Fusable(x) && Fusable(y) && y.scalar_type() != at::kHalf;
}

at::Tensor Amax(const at::Tensor& x) {
  if (const Device* device = QuantDevice(x); device != nullptr) {
    at::Tensor most = at::empty({}, x.options().dtype(at::kFloat));
    RequireOk(*device,
              device->api().quant->amax(device->handle(), x.const_data_ptr(), NumberOf(x), x.numel(),
                                        most.mutable_data_ptr<float>()),
              "looking for the largest magnitude");
    return most;
  }
  const Source source(x);
  const auto larger = [](float a, float b) { return b <= a || a != a ? a : b; };
  const float most = at::parallel_reduce(
      0, CeilDiv(x.numel(), kChunkElements), kGrainElements / kChunkElements, 0.0f,
      [&](int64_t begin, int64_t end, float amax) {
        Buffers buffers(kChunkElements, {source.in_place()});
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = i * kChunkElements, n = std::min(kChunkElements, x.numel() - at);
          float own;
          BestKernels().amaxes(source.Read(at, n, buffers[0]), {1, n, n}, &own);
          amax = larger(amax, own);
        }
        return amax;
      },
      larger);
  return at::scalar_tensor(most, at::kFloat);
}

void FusedForward(const Format& format, const GroupSize& group, const at::Tensor& x, const at::Tensor& of_whole,
                  at::Tensor& y) {
  if (const Device* device = QuantDevice(x); device != nullptr) {
    const DeviceGroups groups = GroupsOn(group, x);
    return RequireOk(*device,
                     device->api().quant->forward(device->handle(), &format, &groups, x.const_data_ptr(), NumberOf(x),
                                                  Pointer(of_whole), y.mutable_data_ptr(), NumberOf(y)),
                     "quantizing");
  }
  const float whole = of_whole.defined() ? of_whole.item<float>() : 0;
  if (group.rows > 0) return ForwardTiles(format, group, x, y);
  const Chunks chunks(group, x);
  const Source source(x);
  const Sink sink(y);
  const float* amaxes = group.size == 0 ? &whole : nullptr;  // a chunk is then one group
  at::parallel_for(0, chunks.count(), chunks.grain(), [&](int64_t begin, int64_t end) {
    Buffers buffers(chunks.most_elements(), {source.in_place() && sink.in_place()});  // a result may take x's place
    for (int64_t i = begin; i < end; ++i) {
      const Groups groups = chunks.groups(i);
      const int64_t at = chunks.first(i), n = groups.elements();
      float* out = sink.Begin(at, buffers[0]);
      BestKernels().forward(format, source.Read(at, n, buffers[0]), groups, amaxes, whole, out);
      sink.Done(at, n, out);
    }
  });
}

void FusedBackward(const Format& format, const GroupSize& group, const at::Tensor& x, const at::Tensor& grad,
                   const at::Tensor& of_whole, bool constant_whole, at::Tensor& dx) {
  if (const Device* device = QuantDevice(x); device != nullptr) {
    return BackwardOn(*device, format, group, x, grad, of_whole, constant_whole, dx);
  }
  const float whole = of_whole.defined() ? of_whole.item<float>() : 0;
  const Chunks chunks(group, x);
  const Source source(x), gradient(grad);
  const Sink sink(dx);
  const bool per_tensor = group.size == 0;
  const bool through_whole = per_tensor || (format.family == cpu::Family::kNvfp4 && !constant_whole);
  const float* amaxes = per_tensor ? &whole : nullptr;
  std::vector<WholeGradient> parts(through_whole ? chunks.count() : 0);
  // Chunk i into its place, after `add` has seen it.
  const auto differentiate = [&](int64_t i, Buffers& buffers, WholeGradient* part, const auto& add) {
    const Groups groups = chunks.groups(i);
    const int64_t at = chunks.first(i), n = groups.elements();
    const float* values = source.Read(at, n, buffers[0]);
    float* out = sink.Begin(at, buffers[1]);  // it may take the place of the gradient
    BestKernels().backward(format, values, gradient.Read(at, n, buffers[1]), groups, amaxes, whole, out, part);
    add(values, n, out);
    sink.Done(at, n, out);
  };
  const auto in_place = {source.in_place(), gradient.in_place() && sink.in_place()};
  at::parallel_for(0, chunks.count(), chunks.grain(), [&](int64_t begin, int64_t end) {
    Buffers buffers(chunks.most_elements(), in_place);
    for (int64_t i = begin; i < end; ++i) {
      differentiate(i, buffers, through_whole ? &parts[i] : nullptr, [](const float*, int64_t, float*) {});
    }
  });
  if (!through_whole) return;

  // What flows through the tensor's scale reaches the elements of the largest magnitude: the first of them (FP8), or
  // all of them evenly (NVFP4; in float64, as its factors span the square of the tensor's range).
  WholeGradient total;
  int64_t first = -1;
  for (int64_t i = 0; i < chunks.count(); ++i) {
    total.sum += parts[i].sum, total.holders += parts[i].holders;
    if (first < 0 && parts[i].first_holder >= 0) first = i;
  }
  Buffers buffers(chunks.most_elements(), in_place);
  WholeGradient unused;
  if (per_tensor) {
    if (first < 0 || !(whole / format.top >= format.least_scale)) return;
    const float share = static_cast<float>(total.sum) / format.top;
    const int64_t index = parts[first].first_holder;
    differentiate(first, buffers, &unused, [&](const float* values, int64_t, float* out) {
      out[index] += values[index] > 0 ? share : values[index] < 0 ? -share : 0;
    });
    return;
  }
  const double largest = whole;
  const double share = total.sum * -2688 / (largest * largest) / static_cast<double>(total.holders);
  if (!std::isfinite(share)) return;
  for (int64_t i = 0; i < chunks.count(); ++i) {
    if (parts[i].holders == 0) continue;
    differentiate(i, buffers, &unused, [&](const float* values, int64_t n, float* out) {
      BestKernels().add_share(values, n, whole, static_cast<float>(share), out);
    });
  }
}

bool FusedKQuant(const cpu::KFormat& format, const at::Tensor& x, const at::Tensor& importance, at::Tensor& y) {
  if (const Device* device = QuantDevice(x); device != nullptr) return KQuantOn(*device, format, x, importance, y);
  const int64_t count = x.numel() / format.group, step = cpu::kMostGroups / format.groups * format.groups;
  const Source source(x);
  const Sink sink(y);
  const float* weights = importance.defined() ? importance.const_data_ptr<float>() : nullptr;
  const int64_t repeat = importance.defined() ? importance.numel() / format.group : 1;
  std::atomic<bool> finite{true};
  at::parallel_for(0, CeilDiv(count, step), 1, [&](int64_t begin, int64_t end) {
    Buffers buffers(step * format.group, {source.in_place() && sink.in_place()});
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * step, groups = std::min(step, count - first), at = first * format.group;
      float* out = sink.Begin(at, buffers[0]);
      const float* values = source.Read(at, groups * format.group, buffers[0]);
      if (!BestKernels().k_quant(format, values, groups, weights, repeat, first, out)) finite = false;
      sink.Done(at, groups * format.group, out);
    }
  });
  return finite;
}

}  // namespace autoscheme
