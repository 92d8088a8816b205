// Quant-dequant of groups, forward and backward, and k-quants; a team of threads to a group, a few teams to a block.
#include "cuda/kernels.h"
#include "cuda/team.cuh"

namespace autoscheme::cuda {
namespace {

using cpu::Format;
using cpu::KFormat;
using cpu::kTeamThreads;
using cpu::Layout;
using cpu::WholeGradient;
using cpu::WholeShare;
using Team = WarpTeam<kTeamThreads>;

// Of a block, where blocks join nothing. Left alone, the compiler aims at so many blocks to a multiprocessor that it
// spills registers; so each kernel says how few will do.
constexpr int kThreads = 128;
constexpr int kTeams = kThreads / kTeamThreads;
constexpr int kWholeTeams = kBlockThreads / kTeamThreads;

// What the scratch memory holds while a gradient flows through the tensor's scale.
struct WholeScratch {
  WholeGradient parts[cpu::kMostBlocks];
  WholeShare share;
};
static_assert(sizeof(WholeScratch) <= kScratchBytes, "");

int64_t Blocks(int64_t items, int64_t in_a_block) { return (items + in_a_block - 1) / in_a_block; }

__device__ __forceinline__ float ValueOf(const float* whole) { return whole == nullptr ? 0.0f : *whole; }

template <typename Kind, Number kX>
__global__ void __launch_bounds__(kThreads, 4)
    ForwardKernel(Format format, Layout layout, const void* x, const float* whole, void* y, Number y_type) {
  const int64_t g = static_cast<int64_t>(blockIdx.x) * kTeams + threadIdx.x / kTeamThreads;
  if (g >= layout.count) return;
  cpu::ForwardGroup<Kind, kX>(Team(), format, cpu::PlaceOf(layout, g), layout.one, x, ValueOf(whole), y, y_type);
}

template <typename Kind, Number kX>
__global__ void __launch_bounds__(kThreads, 4)
    BackwardKernel(Format format, Layout layout, const void* x, const void* grad, const float* whole,
                   const WholeShare* given, void* dx, Number type) {
  const int64_t g = static_cast<int64_t>(blockIdx.x) * kTeams + threadIdx.x / kTeamThreads;
  if (g >= layout.count) return;
  const cpu::Place place = cpu::PlaceOf(layout, g);
  if constexpr (Kind::kFamily == cpu::Family::kIntSym) {
    cpu::SymBackwardGroup<Kind, kX>(Team(), format, place, x, grad, dx, type);
  } else {
    const WholeShare share = given == nullptr ? WholeShare{0, 0, cpu::kNone} : *given;
    cpu::BackwardGroup<Kind, kX>(Team(), format, place, layout.one, x, grad, ValueOf(whole), share, dx, type);
  }
}

// Team t of all takes the groups t, t + teams, ..; a block leaves the sum of its teams'.
template <typename Kind, Number kX>
__global__ void __launch_bounds__(kBlockThreads, 1)
    WholeTermsKernel(Format format, Layout layout, const void* x, const void* grad, Number type, const float* whole,
                     WholeScratch* scratch) {
  __shared__ WholeGradient parts[kWholeTeams];
  const int team = threadIdx.x / kTeamThreads;
  WholeGradient part;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kWholeTeams + team; g < layout.count;
       g += static_cast<int64_t>(gridDim.x) * kWholeTeams) {
    cpu::AddWholeTerms<Kind, kX>(Team(), format, cpu::PlaceOf(layout, g), layout.one, x, grad, type, *whole, &part);
  }
  if (threadIdx.x % kTeamThreads == 0) parts[team] = part;
  __syncthreads();
  if (threadIdx.x != 0) return;
  WholeGradient sum;
  for (int i = 0; i < kWholeTeams; ++i) sum = cpu::Joined(sum, parts[i]);
  scratch->parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kBlockThreads, 1)
    WholeShareKernel(Format format, int blocks, const float* whole, WholeScratch* scratch) {
  __shared__ WholeGradient parts[kBlockThreads];
  WholeGradient part;
  for (int i = threadIdx.x; i < blocks; i += kBlockThreads) part = cpu::Joined(part, scratch->parts[i]);
  parts[threadIdx.x] = part;
  JoinBlock(parts, [](const WholeGradient& a, const WholeGradient& b) { return cpu::Joined(a, b); });
  if (threadIdx.x == 0) scratch->share = cpu::ShareOf(format, parts[0], *whole);
}

template <typename Kind, bool kSearch>
__global__ void __launch_bounds__(kThreads, 3)
    KQuantKernel(KFormat format, int64_t super_groups, const void* x, Number x_type, const float* importance,
                 int64_t importance_groups, void* y, Number y_type, int32_t* overflowed) {
  constexpr int kOfBlock = kThreads / Kind::kGroups;
  const int64_t s = static_cast<int64_t>(blockIdx.x) * kOfBlock + threadIdx.x / Kind::kGroups;
  if (s >= super_groups) return;
  cpu::KQuantSuperGroup<Kind, kSearch>(WarpTeam<Kind::kGroups>(), format, s, x, x_type, importance, importance_groups,
                                       y, y_type, overflowed);
}

// A grid of more blocks than the device has numbers for is refused by the launch.
unsigned Grid(int64_t blocks) { return blocks > INT32_MAX ? 0u : static_cast<unsigned>(blocks); }

}  // namespace

cudaError_t Forward(cudaStream_t stream, const Format& format, const DeviceGroups& groups, const void* x, Number x_type,
                    const float* whole, void* y, Number y_type) {
  Layout layout;
  if (y_type == Number::kF16 || !cpu::LayOut(format, groups, whole, &layout)) return cudaErrorInvalidValue;
  const unsigned grid = Grid(Blocks(layout.count, kTeams));
  return cpu::WithKind(format, [&](auto kind) {
    return WithNumber(x_type, [&](auto number) {
      ForwardKernel<decltype(kind), decltype(number)::kType>
          <<<grid, kThreads, 0, stream>>>(format, layout, x, whole, y, y_type);
      return cudaGetLastError();
    });
  });
}

cudaError_t Backward(cudaStream_t stream, const Format& format, const DeviceGroups& groups, const void* x,
                     Number x_type, const void* grad, const float* whole, bool constant_whole, void* dx, Number type,
                     void* scratch) {
  Layout layout;
  if (!cpu::Differentiable(format, groups, type) || !cpu::LayOut(format, groups, whole, &layout)) {
    return cudaErrorInvalidValue;
  }
  const unsigned grid = Grid(Blocks(layout.count, kTeams));
  auto* parts = static_cast<WholeScratch*>(scratch);
  return cpu::WithKind(format, [&](auto kind) {
    using Kind = decltype(kind);
    return WithNumber(x_type, [&](auto number) {
      [[maybe_unused]] constexpr Number kX = decltype(number)::kType;
      if constexpr (cpu::HasGradient(Kind::kFamily, Kind::kNarrow && Kind::kFamily == cpu::Family::kFp8)) {
        const WholeShare* share = nullptr;
        if constexpr (Kind::kFamily == cpu::Family::kNvfp4 || Kind::kFamily == cpu::Family::kFp8) {
          if (cpu::ThroughWhole<Kind>(layout, constant_whole)) {
            const int blocks = cpu::WholeBlocks(layout.count);
            WholeTermsKernel<Kind, kX>
                <<<blocks, kBlockThreads, 0, stream>>>(format, layout, x, grad, type, whole, parts);
            WholeShareKernel<<<1, kBlockThreads, 0, stream>>>(format, blocks, whole, parts);
            share = &parts->share;
          }
        }
        BackwardKernel<Kind, kX><<<grid, kThreads, 0, stream>>>(format, layout, x, grad, whole, share, dx, type);
        return cudaGetLastError();
      }
      return cudaErrorInvalidValue;
    });
  });
}

cudaError_t KQuant(cudaStream_t stream, const KFormat& format, int64_t groups, const void* x, Number x_type,
                   const float* importance, int64_t importance_groups, void* y, Number y_type, int32_t* overflowed) {
  if (y_type == Number::kF16 || groups <= 0 || groups % format.groups != 0) return cudaErrorInvalidValue;
  return cpu::WithKKind(format, [&](auto kind) {
    using Kind = decltype(kind);
    const int64_t super_groups = groups / Kind::kGroups;
    const unsigned grid = Grid(Blocks(super_groups, kThreads / Kind::kGroups));
    if (importance != nullptr) {
      KQuantKernel<Kind, true><<<grid, kThreads, 0, stream>>>(format, super_groups, x, x_type, importance,
                                                              importance_groups, y, y_type, overflowed);
    } else {
      KQuantKernel<Kind, false>
          <<<grid, kThreads, 0, stream>>>(format, super_groups, x, x_type, nullptr, 1, y, y_type, overflowed);
    }
    return cudaGetLastError();
  });
}

}  // namespace autoscheme::cuda
