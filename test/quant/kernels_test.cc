// The same bits from every instruction set: each set of kernels that this processor runs against the baseline's.
#include "quant/kernels.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace autoscheme::cpu {
namespace {

using Values = std::vector<float>;

// Values of all magnitudes, with zeros of both signs, subnormals, the ends of the range, and, where asked for, what is
// not finite.
Values Nasty(int64_t n, bool finite, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const float top = std::numeric_limits<float>::max();
  const float odd[] = {0.0f,     -0.0f,    1e-45f, -1e-40f, 1.1754944e-38f, top, -top,
                       65504.0f, 65520.0f, -2e6f,  0.5f,    1.5f,           2.5f};
  const float wild[] = {INFINITY, -INFINITY, NAN, -NAN};
  Values x(static_cast<size_t>(n));
  for (float& v : x) {
    const unsigned kind = random() % 64;
    if (kind < 2) {
      v = odd[random() % 13];
    } else if (kind == 2) {
      v = std::ldexp(normal(random), static_cast<int>(random() % 280) - 150);
    } else if (kind == 3 && !finite) {
      v = wild[random() % 4];
    } else {
      v = normal(random);
    }
  }
  return x;
}

// NaNs may differ in their bits.
bool SameBits(const Values& a, const Values& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], 4) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  }
  return true;
}

std::vector<Format> Formats() {
  std::vector<Format> all;
  for (const ScaleType type : {ScaleType::kFloat, ScaleType::kHalf, ScaleType::kBFloat16}) {
    for (const bool narrow : {false, true}) {
      Format f;
      f.family = Family::kIntSym, f.levels = 8, f.scale_type = type, f.least_scale = 1e-5f, f.narrow = narrow;
      all.push_back(f);
      f.family = Family::kIntAsym, f.levels = 15, f.float_zero_point = narrow;
      all.push_back(f);
    }
  }
  for (const bool ceil : {false, true}) {
    Format f;
    f.family = Family::kMx, f.log2_steps = 1, f.top = 6, f.max_exponent = 2, f.ceil_scale = ceil;
    all.push_back(f);
    f.log2_steps = 3, f.top = 448, f.max_exponent = 8, f.least_exponent = -6;
    all.push_back(f);
    f.binades = false, f.log2_steps = 2, f.top = 1.75f, f.max_exponent = 0;
    all.push_back(f);
  }
  Format f;
  f.family = Family::kNvfp4, f.log2_steps = 1, f.top = 6;
  all.push_back(f);
  f.family = Family::kE5m3;
  all.push_back(f);
  for (const bool narrow : {false, true}) {
    f.family = Family::kFp8, f.log2_steps = 3, f.least_exponent = -6, f.top = 448, f.least_scale = 4e-6f,
    f.narrow = narrow;
    all.push_back(f);
  }
  return all;
}

// Calls with every set of kernels but the baseline.
template <typename Body>
void ForOthers(const Body& body) {
  const Kernels* all[3];
  const int count = RunnableKernels(all);
  for (int i = 0; i + 1 < count; ++i) {
    INFO("set " << i << " of " << count);
    body(*all[i]);
  }
}

TEST_CASE("dtypes are converted to the same bits by every instruction set") {
  std::vector<uint16_t> halves(65536 + 5);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  const auto n = static_cast<int64_t>(halves.size());
  Values a(halves.size()), b(halves.size());
  const Values x = Nasty(n, false, 1);
  std::vector<uint16_t> narrow_a(halves.size()), narrow_b(halves.size());
  ForOthers([&](const Kernels& k) {
    k.widen_bfloat16(halves.data(), n, a.data());
    kBaselineKernels.widen_bfloat16(halves.data(), n, b.data());
    CHECK(SameBits(a, b));
    k.widen_half(halves.data(), n, a.data());
    kBaselineKernels.widen_half(halves.data(), n, b.data());
    CHECK(SameBits(a, b));
    k.narrow_bfloat16(x.data(), n, narrow_a.data());
    kBaselineKernels.narrow_bfloat16(x.data(), n, narrow_b.data());
    CHECK(narrow_a == narrow_b);
  });
}

TEST_CASE("groups are quantized and differentiated to the same bits by every instruction set") {
  for (const int64_t size : {1, 3, 16, 17, 32, 37, 128}) {
    const Groups groups{20, size, size > 2 ? size - 2 : size};
    for (const bool finite : {true, false}) {
      const auto n = static_cast<size_t>(groups.elements());
      const Values x = Nasty(groups.elements(), finite, 2), g = Nasty(groups.elements(), true, 3);
      for (const Format& f : Formats()) {
        INFO("family " << static_cast<int>(f.family) << ", size " << size << (finite ? "" : ", not finite"));
        ForOthers([&](const Kernels& k) {
          Values a(n), b(n);
          k.forward(f, x.data(), groups, nullptr, 3.5f, a.data());
          kBaselineKernels.forward(f, x.data(), groups, nullptr, 3.5f, b.data());
          CHECK(SameBits(a, b));
          if (f.family == Family::kIntAsym || (f.narrow && f.family != Family::kIntSym)) return;
          WholeGradient part_a, part_b;
          k.backward(f, x.data(), g.data(), groups, nullptr, 3.5f, a.data(), &part_a);
          kBaselineKernels.backward(f, x.data(), g.data(), groups, nullptr, 3.5f, b.data(), &part_b);
          CHECK(SameBits(a, b));
          CHECK((part_a.sum == part_b.sum || (std::isnan(part_a.sum) && std::isnan(part_b.sum))));
          CHECK(part_a.holders == part_b.holders);
        });
      }
    }
  }
}

TEST_CASE("k-quants are quantized to the same bits by every instruction set") {
  const KFormat formats[] = {{2, 16, 16, 4, false, false},
                             {3, 16, 16, 6, true, false},
                             {4, 32, 8, 6, false, false},
                             {5, 32, 8, 6, false, true},
                             {6, 16, 16, 8, true, false}};
  for (const KFormat& f : formats) {
    for (const int64_t count : {int64_t{f.groups}, kMostGroups / 2 + f.groups}) {
      const Values x = Nasty(count * f.group, true, 4);
      Values h = Nasty(6 * f.group, true, 5);
      for (float& v : h) v = std::min(std::fabs(v), 1e3f) + 1e-3f;
      INFO(f.bits << " bits, " << count << " groups");
      ForOthers([&](const Kernels& k) {
        for (const float* importance : {static_cast<const float*>(nullptr), static_cast<const float*>(h.data())}) {
          Values a(x.size()), b(x.size());
          const bool finite = k.k_quant(f, x.data(), count, importance, 6, 4, a.data());
          CHECK(finite == kBaselineKernels.k_quant(f, x.data(), count, importance, 6, 4, b.data()));
          CHECK(SameBits(a, b));
        }
      });
    }
  }
}

}  // namespace
}  // namespace autoscheme::cpu
