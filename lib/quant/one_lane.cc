#define AUTOSCHEME_ONE_LANE
#include "quant/one_lane.h"

#include "quant/group_team.h"
#include "quant/k_quant_team.h"
#include "quant/thread_sums.h"

namespace autoscheme {
namespace cpu {
namespace {

// The threads of a team, one after the other between any two points where they meet.
template <int threads>
struct HostTeam {
  static constexpr int kThreads = threads;
  template <typename T>
  struct PerThread {
    T v[threads] = {};
    T& operator[](int thread) { return v[thread]; }
  };

  template <typename Body>
  void Each(const Body& body) const {
    for (int thread = 0; thread < threads; ++thread) body(thread);
  }
  template <typename T>
  T From(PerThread<T>& v, int thread) const {
    return v[thread];
  }
  template <typename T>
  T Max(PerThread<T> v) const {
    return ByHalves(v, [](T a, T b) { return a < b ? b : a; });
  }
  template <typename T>
  T Min(PerThread<T> v) const {
    return ByHalves(v, [](T a, T b) { return b < a ? b : a; });
  }
  template <typename T>
  T Sum(PerThread<T> v) const {
    return ByHalves(v, [](T a, T b) { return a + b; });
  }

 private:
  template <typename T, typename Join>
  static T ByHalves(PerThread<T>& v, const Join& join) {
    for (int half = threads / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) v[i] = join(v[i], v[i + half]);
    }
    return v[0];
  }
};
using Team = HostTeam<kTeamThreads>;

// body(Numeric) for the type.
template <Number number>
struct Numeric {
  static constexpr Number kType = number;
};
template <typename Body>
void WithNumber(Number type, const Body& body) {
  if (type == Number::kF32) return body(Numeric<Number::kF32>());
  return type == Number::kBF16 ? body(Numeric<Number::kBF16>()) : body(Numeric<Number::kF16>());
}

// Sums that blocks of threads leave are joined as a block joins those of its threads.
template <typename T, typename Join>
T JoinBlock(T* v, const Join& join) {
  for (int half = kBlockThreads / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) v[i] = join(v[i], v[i + half]);
  }
  return v[0];
}
template <typename T, typename Join>
T JoinBlocks(const T* parts, int blocks, const Join& join) {
  T v[kBlockThreads] = {};
  for (int i = 0; i < blocks; ++i) v[i % kBlockThreads] = join(v[i % kBlockThreads], parts[i]);
  return JoinBlock(v, join);
}

DeviceResult Forward(void*, const Format* format, const DeviceGroups* groups, const void* x, Number x_type,
                     const float* whole, void* y, Number y_type) {
  Layout layout;
  if (y_type == Number::kF16 || !LayOut(*format, *groups, whole, &layout)) return DeviceResult::kFailed;
  const float largest = whole == nullptr ? 0 : *whole;
  WithKind(*format, [&](auto kind) {
    WithNumber(x_type, [&](auto number) {
      for (int64_t g = 0; g < layout.count; ++g) {
        ForwardGroup<decltype(kind), decltype(number)::kType>(Team(), *format, PlaceOf(layout, g), layout.one, x,
                                                              largest, y, y_type);
      }
    });
  });
  return DeviceResult::kOk;
}

// What flows through the scale of the tensor: team t of all takes the groups t, t + teams, ..
template <typename Kind, Number kX>
WholeShare FindShare(const Format& format, const Layout& layout, const void* x, const void* grad, Number type,
                     float whole) {
  constexpr int kTeams = kBlockThreads / kTeamThreads;
  const int blocks = WholeBlocks(layout.count);
  WholeGradient parts[kMostBlocks];
  for (int block = 0; block < blocks; ++block) {
    for (int team = 0; team < kTeams; ++team) {
      WholeGradient part;
      for (int64_t g = block * kTeams + team; g < layout.count; g += blocks * kTeams) {
        AddWholeTerms<Kind, kX>(Team(), format, PlaceOf(layout, g), layout.one, x, grad, type, whole, &part);
      }
      parts[block] = Joined(parts[block], part);
    }
  }
  return ShareOf(format, JoinBlocks(parts, blocks, Joined), whole);
}

DeviceResult Backward(void*, const Format* format, const DeviceGroups* groups, const void* x, Number x_type,
                      const void* grad, const float* whole, int32_t constant_whole, void* dx, Number type) {
  Layout layout;
  if (!Differentiable(*format, *groups, type) || !LayOut(*format, *groups, whole, &layout))
    return DeviceResult::kFailed;
  const float largest = whole == nullptr ? 0 : *whole;
  WithKind(*format, [&](auto kind) {
    using Kind = decltype(kind);
    WithNumber(x_type, [&](auto number) {
      constexpr Number kX = decltype(number)::kType;
      if constexpr (Kind::kFamily == Family::kIntSym) {
        for (int64_t g = 0; g < layout.count; ++g) {
          SymBackwardGroup<Kind, kX>(Team(), *format, PlaceOf(layout, g), x, grad, dx, type);
        }
      } else if constexpr (HasGradient(Kind::kFamily, Kind::kNarrow)) {
        WholeShare share = {0, 0, kNone};
        if (ThroughWhole<Kind>(layout, constant_whole))
          share = FindShare<Kind, kX>(*format, layout, x, grad, type, largest);
        for (int64_t g = 0; g < layout.count; ++g) {
          BackwardGroup<Kind, kX>(Team(), *format, PlaceOf(layout, g), layout.one, x, grad, largest, share, dx, type);
        }
      }
    });
  });
  return DeviceResult::kOk;
}

DeviceResult KQuant(void*, const KFormat* format, int64_t groups, const void* x, Number x_type, const float* importance,
                    int64_t importance_groups, void* y, Number y_type, int32_t* overflowed) {
  if (y_type == Number::kF16 || groups % format->groups != 0) return DeviceResult::kFailed;
  WithKKind(*format, [&](auto kind) {
    using Kind = decltype(kind);
    const HostTeam<Kind::kGroups> team;
    for (int64_t s = 0; s < groups / Kind::kGroups; ++s) {
      if (importance != nullptr) {
        KQuantSuperGroup<Kind, true>(team, *format, s, x, x_type, importance, importance_groups, y, y_type, overflowed);
      } else {
        KQuantSuperGroup<Kind, false>(team, *format, s, x, x_type, nullptr, 1, y, y_type, overflowed);
      }
    }
  });
  return DeviceResult::kOk;
}

DeviceResult Amax(void*, const void* x, Number x_type, int64_t count, float* most) {
  *most = FloatOf(AmaxBits({x, x_type}, 0, 1, count));
  return DeviceResult::kOk;
}

}  // namespace
}  // namespace cpu

const DeviceQuantApi kOneLaneQuant = {cpu::Forward, cpu::Backward, cpu::KQuant, cpu::Amax};

DeviceResult OneLaneAddAbsProducts(void*, const void* grad, Number grad_type, const void* w, Number w_type,
                                   const void* wq, Number wq_type, int64_t count, double* sum) {
  const auto add = [](double a, double b) { return a + b; };
  const int blocks = cpu::BlocksFor(count);
  double parts[cpu::kMostBlocks] = {};
  for (int block = 0; block < blocks; ++block) {
    double threads[cpu::kBlockThreads];
    for (int t = 0; t < cpu::kBlockThreads; ++t) {
      threads[t] = cpu::AbsProducts({grad, grad_type}, {w, w_type}, {wq, wq_type}, block * cpu::kBlockThreads + t,
                                    blocks * cpu::kBlockThreads, count);
    }
    parts[block] = cpu::JoinBlock(threads, add);
  }
  *sum += cpu::JoinBlocks(parts, blocks, add);
  return DeviceResult::kOk;
}

DeviceResult OneLaneFindNonFinite(void*, DeviceStream, const void* data, int64_t count, Number type, NonFinite* found) {
  *found = {0, -1};
  for (int64_t i = 0; i < count; ++i) {
    if (!cpu::IsNonFinite({data, type}, i)) continue;
    if (found->count++ == 0) found->first = i;
  }
  return DeviceResult::kOk;
}

}  // namespace autoscheme
