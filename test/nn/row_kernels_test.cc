#include "nn/row_kernels.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "nn/fused.h"

namespace autoscheme {
namespace {

std::vector<const cpu::AllRowKernels*> Runnable() {
  const cpu::AllRowKernels* all[3];
  const int count = cpu::RunnableRowKernels(all);
  return {all, all + count};
}

at::Tensor Random(at::IntArrayRef sizes, uint64_t seed, double scale = 1) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(sizes, generator, at::kFloat) * scale;
}

// All NaN are one: which of two operands a product passes on is up to the compiler.
bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  if (!a.isnan().equal(b.isnan())) return false;
  const at::Tensor x = a.nan_to_num(), y = b.nan_to_num();
  return std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

struct Gradients {
  at::Tensor gate, up;
};
template <typename T>
Gradients SwiGluGradient(const cpu::RowKernels<T>& kernels, const at::Tensor& gate, const at::Tensor& up,
                         const at::Tensor& g) {
  Gradients out = {at::empty_like(gate), at::empty_like(up)};
  kernels.swiglu_gradient(Data<T>(gate), Data<T>(up), Data<T>(g), gate.numel(), Data<T>(out.gate), Data<T>(out.up));
  return out;
}

TEST_CASE("the gradient of SwiGLU is that of the formula wherever the gate lies") {
  // Lanes and a rest; gates from where the sigmoid is 0 to where it is 1.
  const at::Tensor gate = at::cat({at::linspace(-200, 200, 4001), at::tensor({-3e38f, 3e38f, 0.0f, -0.0f, 1e-30f})});
  const at::Tensor up = Random(gate.sizes(), 1), g = Random(gate.sizes(), 2);
  const at::Tensor a = gate.to(at::kDouble), s = a.sigmoid();
  const at::Tensor of_gate = g.to(at::kDouble) * up.to(at::kDouble) * (s * (1 + a * (1 - s))),
                   of_up = g.to(at::kDouble) * (a * s);
  for (const cpu::AllRowKernels* kernels : Runnable()) {
    const Gradients found = SwiGluGradient(kernels->of_float, gate, up, g);
    CHECK(found.gate.isfinite().all().item<bool>());
    CHECK((found.gate - of_gate).abs().max().item<double>() < 2e-6);
    CHECK(((found.up - of_up).abs() - 1e-6 * of_up.abs()).max().item<double>() < 1e-30);
  }
}

TEST_CASE("the gradient of a norm is that of the formula, rounded once") {
  const int64_t rows = 5;
  for (const int64_t width : {1, 15, 16, 96, 577}) {
    for (const int count : {1, 2, 4}) {
      for (const bool passes : {false, true}) {
        for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
          const at::Tensor x = Random({rows, width}, 3).to(dtype), weight = Random({width}, 4),
                           passed = Random({rows, width}, 5).to(dtype);
          const at::Tensor wide = x.to(at::kDouble), rstd = (wide.square().mean(-1, true) + 1e-5).rsqrt();
          const at::Tensor narrow_rstd = rstd.to(at::kFloat);
          std::vector<at::Tensor> grads;
          at::Tensor sum = at::zeros({rows, width}, at::kDouble);
          for (int k = 0; k < count; ++k) {
            grads.push_back(Random({rows, width}, 10 + k).to(dtype));
            sum += grads.back();
          }
          const at::Tensor unit = wide * rstd, of_unit = sum * weight;
          at::Tensor expected = (of_unit - unit * (of_unit * unit).mean(-1, true)) * rstd;
          if (passes) expected = expected + passed;
          at::Tensor first;
          for (const cpu::AllRowKernels* kernels : Runnable()) {
            at::Tensor dx = at::full_like(x, NAN);
            const auto run = [&](const auto& own, auto type) {
              using T = decltype(type);
              cpu::NormGradientRows<T> in = {};
              in.rows = rows, in.width = width, in.x = Data<T>(x), in.weight = Data<float>(weight),
              in.rstd = Data<float>(narrow_rstd);
              for (const at::Tensor& grad : grads) in.grads[in.count++] = Data<T>(grad);
              in.passed = passes ? Data<T>(passed) : nullptr;
              in.dx = Data<T>(dx);
              own.norm_gradient(in);
            };
            dtype == at::kFloat ? run(kernels->of_float, float()) : run(kernels->of_bfloat16, uint16_t());
            // One rounding to bfloat16 is off by at most 1/256 of the number; what float32 adds counts by the largest
            // one.
            const at::Tensor allowed = expected.abs() * (dtype == at::kFloat ? 0.0 : 1.0 / 256);
            CHECK(((dx - expected).abs() - allowed).max().item<double>() <=
                  4e-6 * std::max(1.0, expected.abs().max().item<double>()));
            if (!first.defined()) first = dx;
            CHECK(SameBits(dx, first));
          }
        }
      }
    }
  }
}

TEST_CASE("a norm's last step and the rotation of whole heads have the bits of LibTorch's operators") {
  const int64_t positions = 7;
  for (const int64_t half : {1, 16, 24, 64}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      // Two heads beside each other, as a projection gives them; of the result only the second is written.
      const at::Tensor x = Random({positions, 2, 2 * half}, 21).to(dtype), weight = Random({2 * half}, 22).to(dtype);
      const at::Tensor angle = Random({positions, half}, 23), cos = angle.cos().to(dtype), sin = angle.sin().to(dtype);
      const at::Tensor rstd = Random({2 * positions, 1}, 24);
      const at::Tensor a = x.select(1, 1).narrow(1, 0, half), b = x.select(1, 1).narrow(1, half, half);
      at::Tensor turned = at::zeros_like(x);
      turned.select(1, 1).copy_(at::cat({(a * cos).sub_(b * sin), (b * cos).add_(a * sin)}, 1));
      const at::Tensor normalized = (x.view({-1, 2 * half}).to(at::kFloat) * rstd).to(dtype).mul_(weight);
      for (const cpu::AllRowKernels* kernels : Runnable()) {
        const auto run = [&](const auto& own, auto type) {
          using T = decltype(type);
          at::Tensor y = at::zeros_like(x), n = at::empty_like(normalized);
          own.rotate({positions, half, Data<T>(x) + 2 * half, 4 * half, Data<T>(cos), Data<T>(sin),
                      Data<T>(y) + 2 * half, 4 * half, 1, 1});
          CHECK(SameBits(y, turned));
          own.normalize(Data<T>(x), Data<float>(rstd), Data<T>(weight), 2 * positions, 2 * half, Data<T>(n));
          CHECK(SameBits(n, normalized));
        };
        dtype == at::kFloat ? run(kernels->of_float, float()) : run(kernels->of_bfloat16, uint16_t());
      }
    }
  }
}

TEST_CASE("a rotation into float32 and one back undo each other, and scale") {
  const int64_t positions = 5, half = 20;
  const at::Tensor x = Random({positions, 2 * half}, 31).to(at::kBFloat16), angle = Random({positions, half}, 32);
  const at::Tensor cos = angle.cos(), sin = angle.sin(), a = x.narrow(1, 0, half).to(at::kDouble),
                   b = x.narrow(1, half, half).to(at::kDouble);
  const at::Tensor expected = 0.25 * at::cat({a * cos - b * sin, b * cos + a * sin}, 1);
  for (const cpu::AllRowKernels* kernels : Runnable()) {
    at::Tensor wide = at::zeros({positions, 2 * half}), back = at::zeros_like(x), f = at::zeros_like(wide);
    const cpu::RowKernels<uint16_t>& own = kernels->of_bfloat16;
    own.rotate_from({positions, half, Data<uint16_t>(x), 2 * half, Data<float>(cos), Data<float>(sin),
                     Data<float>(wide), 2 * half, 1, 0.25f});
    CHECK((wide - expected).abs().max().item<double>() < 1e-6);
    own.rotate_to({positions, half, Data<float>(wide), 2 * half, Data<float>(cos), Data<float>(sin),
                   Data<uint16_t>(back), 2 * half, -1, 4.0f});
    CHECK((back.to(at::kFloat) - x.to(at::kFloat)).abs().sub_(x.to(at::kFloat).abs() / 256).max().item<double>() <
          1e-6);
    kernels->of_float.rotate_to({positions, half, Data<float>(wide), 2 * half, Data<float>(cos), Data<float>(sin),
                                 Data<float>(f), 2 * half, -1, 4.0f});
    CHECK((f - x).abs().max().item<double>() < 4e-6);
  }
}

TEST_CASE("all builds of the row kernels give the same bits, and products those of LibTorch") {
  const int64_t n = 1003;
  const at::Tensor a = Random({n}, 6, 20), b = Random({n}, 7), c = Random({n}, 8);
  a[7] = std::numeric_limits<float>::infinity(), a[8] = NAN, b[9] = -std::numeric_limits<float>::infinity();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor gate = a.to(dtype), up = b.to(dtype), g = c.to(dtype);
    Gradients first;
    for (const cpu::AllRowKernels* kernels : Runnable()) {
      const auto run = [&](const auto& own, auto type) {
        using T = decltype(type);
        at::Tensor product = at::empty_like(gate);
        own.multiply(Data<T>(gate), Data<T>(up), n, Data<T>(product));
        CHECK(SameBits(product, gate * up));
        return SwiGluGradient(own, gate, up, g);
      };
      const Gradients found =
          dtype == at::kFloat ? run(kernels->of_float, float()) : run(kernels->of_bfloat16, uint16_t());
      CHECK(found.gate[8].isnan().item<bool>());
      if (!first.gate.defined()) first = found;
      CHECK(SameBits(found.gate, first.gate));
      CHECK(SameBits(found.up, first.up));
    }
  }
}

// What a distribution and another one compared with it come to after their tiles.
struct LogitFigures {
  at::Tensor maximum, sum, best, other_maximum, other_sum, other_best, difference;

  std::vector<at::Tensor> all() const {
    return {maximum, sum, best.to(at::kDouble), other_maximum, other_sum, other_best.to(at::kDouble), difference};
  }
};

LogitFigures AddTiles(const cpu::AllRowKernels& kernels, const at::Tensor& reference, const at::Tensor& other,
                      int64_t tile) {
  const int64_t rows = reference.size(0), vocabulary = reference.size(1);
  const auto wide = [&](double v) { return at::full({rows}, v, at::kDouble); };
  const auto ids = [&] { return at::full({rows}, -1, at::kLong); };
  LogitFigures f = {wide(-INFINITY), wide(0), ids(), wide(-INFINITY), wide(0), ids(), wide(0)};
  const at::Tensor rescale = wide(0);
  for (int64_t first = 0; first < vocabulary; first += tile) {
    const int64_t width = std::min(tile, vocabulary - first);
    const at::Tensor a = reference.narrow(1, first, width).contiguous(), b = other.narrow(1, first, width).contiguous();
    const at::Tensor weights = at::empty({rows, width}, at::kDouble);
    cpu::LogitRows chunk = {};
    chunk.rows = rows, chunk.width = width, chunk.first_id = first, chunk.logits = Data<float>(a);
    chunk.maximum = Data<double>(f.maximum), chunk.best = Data<int64_t>(f.best), chunk.sum = Data<double>(f.sum);
    chunk.weights = Data<double>(weights), chunk.rescale = Data<double>(rescale);
    kernels.add_logits(chunk);
    chunk.logits = Data<float>(b), chunk.reference = Data<float>(a), chunk.difference = Data<double>(f.difference);
    chunk.maximum = Data<double>(f.other_maximum), chunk.best = Data<int64_t>(f.other_best);
    chunk.sum = Data<double>(f.other_sum);
    kernels.add_logits(chunk);
  }
  return f;
}

TEST_CASE("sums over logits are those of whole rows, whatever the tiles and the instructions") {
  const at::Tensor reference = Random({7, 131}, 20, 4), other = reference + Random({7, 131}, 21);
  reference.select(0, 1).sub_(500), other.select(0, 2).mul_(100);
  const at::Tensor a = reference.to(at::kDouble), b = other.to(at::kDouble);
  const at::Tensor most = a.amax(1), other_most = b.amax(1);
  const at::Tensor weights = (a - most.unsqueeze(1)).exp();
  const at::Tensor sum = weights.sum(1), other_sum = (b - other_most.unsqueeze(1)).exp().sum(1);
  const at::Tensor difference = (weights * (a - b)).sum(1);
  for (const int64_t tile : {131, 64, 16, 15, 1}) {
    INFO("tiles of " << tile);
    std::vector<at::Tensor> first;
    for (const cpu::AllRowKernels* kernels : Runnable()) {
      const LogitFigures f = AddTiles(*kernels, reference, other, tile);
      CHECK((at::equal(f.maximum, most) && at::equal(f.other_maximum, other_most)));
      CHECK((at::equal(f.best, a.argmax(1)) && at::equal(f.other_best, b.argmax(1))));
      CHECK((f.sum / sum - 1).abs().max().item<double>() < 1e-13);
      CHECK((f.other_sum / other_sum - 1).abs().max().item<double>() < 1e-13);
      CHECK(((f.difference - difference).abs() / (difference.abs() + 1)).max().item<double>() < 1e-12);
      if (first.empty()) first = f.all();
      for (size_t i = 0; i < first.size(); ++i) CHECK(at::equal(f.all()[i], first[i]));
    }
  }
}

TEST_CASE("of equal logits the first id is the most likely one, and what is not finite stays so") {
  at::Tensor logits = at::zeros({4, 40});
  logits[0][17] = 1, logits[0][33] = 1;
  logits[1][20] = NAN, logits[2][39] = INFINITY, logits[3].fill_(-INFINITY);
  for (const cpu::AllRowKernels* kernels : Runnable()) {
    for (const int64_t tile : {40, 8}) {
      const LogitFigures f = AddTiles(*kernels, logits, logits, tile);
      CHECK(f.best[0].item<int64_t>() == 17);
      CHECK(f.difference[0].item<double>() == 0);
      CHECK(f.sum[0].item<double>() == Approx(2 + 38 * std::exp(-1.0)));
      for (const int row : {1, 2, 3}) {
        CHECK_FALSE(std::isfinite((f.difference[row] / f.sum[row] + f.sum[row].log() + f.maximum[row]).item<double>()));
      }
    }
  }
}

}  // namespace
}  // namespace autoscheme
