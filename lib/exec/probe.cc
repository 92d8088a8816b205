#include "exec/probe.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "autoscheme/block_streamer.h"
#include "base/status_macros.h"
#include "checkpoint/checkpoint.h"
#include "tensor/products.h"

namespace autoscheme {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double ProductRate(const LinearLayer& layer, at::ScalarType dtype) {
  at::NoGradGuard no_grad;
  const int64_t rows = 512, out = std::min<int64_t>(layer.out_features, 2048),
                in = std::min<int64_t>(layer.in_features, 2048);
  const at::Tensor x = at::ones({rows, in}, dtype), w = at::ones({out, in}, dtype);
  at::Tensor y = at::empty({rows, out}, dtype);
  Multiply(y, x, w.t());  // wakes the threads
  const double flops = 2.0 * static_cast<double>(rows * out * in);
  double done = 0;
  const Clock::time_point start = Clock::now();
  while (SecondsSince(start) < 0.25) {
    Multiply(y, x, w.t());
    done += flops;
  }
  return done / SecondsSince(start);
}

absl::StatusOr<double> ReadRate(const Context& context, const MetaSkeleton& skeleton, IoEngine engine) {
  constexpr uint64_t kMost = uint64_t{64} << 20, kTile = uint64_t{4} << 20;
  std::vector<BlockStreamer::RangeStep> order;
  uint64_t bytes = 0;
  for (const TensorInfo* info : skeleton.blocks()[0].tensors) {
    if (info->bytes == 0 || info->shape.empty()) continue;
    const uint64_t row_bytes = std::max<uint64_t>(info->bytes / info->shape[0], 1);
    const int64_t rows = std::max<int64_t>(static_cast<int64_t>(kTile / row_bytes), 1);
    for (int64_t first = 0; first < info->shape[0] && bytes < kMost; first += rows) {
      const int64_t count = std::min(rows, info->shape[0] - first);
      order.push_back({{info, first, count}});
      bytes += count * row_bytes;
    }
  }
  const size_t steps = order.size();
  BlockStreamer::Options options;
  options.io_engine = engine;
  AUTOSCHEME_ASSIGN_OR_RETURN(
      std::unique_ptr<BlockStreamer> streamer,
      BlockStreamer::CreateFromRanges(context, skeleton.checkpoint(), std::move(order), options));
  for (size_t i = 0; i < steps; ++i) AUTOSCHEME_RETURN_IF_ERROR(streamer->Next().status());
  return static_cast<double>(streamer->stats().bytes_read) / std::max(streamer->stats().read_s, 1e-9);
}

}  // namespace

absl::StatusOr<MachineRates> MeasureRates(const Context& context, const MetaSkeleton& skeleton, at::ScalarType dtype,
                                          IoEngine engine) {
  MachineRates rates;
  const Block& block = skeleton.blocks()[0];
  const LinearLayer& largest =
      *std::max_element(block.linears.begin(), block.linears.end(), [](const LinearLayer& a, const LinearLayer& b) {
        return a.out_features * a.in_features < b.out_features * b.in_features;
      });
  rates.flops = ProductRate(largest, dtype);
  if (!skeleton.has_weights()) return rates;
  AUTOSCHEME_ASSIGN_OR_RETURN(rates.read_bytes, ReadRate(context, skeleton, engine));
  return rates;
}

}  // namespace autoscheme
