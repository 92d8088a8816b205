// Sublayers described by hand against plain formulas in float64, values and gradients.
#include "nn/decoder.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <functional>
#include <utility>
#include <variant>
#include <vector>

#include "nn/attention.h"
#include "nn/plain.h"
#include "nn/rope_tables.h"

namespace autoscheme {
namespace {

constexpr int64_t kHidden = 12, kSeq = 7, kHeads = 4, kKvHeads = 2, kHeadDim = 6, kWidth = 10;
constexpr int64_t kQ = kHeads * kHeadDim, kKv = kKvHeads * kHeadDim;

// The tensors of one sublayer. Each that is made gets the next index.
class Parts : public BlockOps {
 public:
  int MakeLinear(int64_t out, int64_t in) {
    linears_.push_back((Random({out, in}, Seed()) * 0.4).to(at::kFloat));
    return static_cast<int>(linears_.size()) - 1;
  }
  Norm MakeNorm(Norm::Kind kind = Norm::kRms, int64_t width = kHidden) {
    Norm norm;
    norm.kind = kind, norm.eps = 0.1;
    norm.weight = MakeParam(width);
    if (kind == Norm::kLayer) norm.bias = MakeParam(width);
    return norm;
  }
  Attention MakeAttention() {
    Attention a;
    a.heads = kHeads, a.kv_heads = kKvHeads, a.head_dim = kHeadDim;
    a.q = MakeLinear(kQ, kHidden), a.k = MakeLinear(kKv, kHidden), a.v = MakeLinear(kKv, kHidden);
    a.out = MakeLinear(kHidden, kQ);
    a.rotary.table = 0, a.rotary.dims = kHeadDim;
    return a;
  }
  Mlp MakeMlp() {
    Mlp m;
    m.width = kWidth, m.activation = Activation::kGelu;
    m.gate = MakeLinear(kWidth, kHidden), m.up = MakeLinear(kWidth, kHidden), m.down = MakeLinear(kHidden, kWidth);
    return m;
  }

  at::Tensor Linear(int index, const at::Tensor& x) override {
    return at::matmul(x, linears_[index].to(x.scalar_type()).t());
  }
  const at::Tensor& Param(int index) override { return params_[index]; }
  const at::Tensor& position_tables(int table) const override { return tables_.at(table); }

  // The formulas, for x in float64.
  at::Tensor Plain(const Norm& norm, const at::Tensor& x) {
    const auto param = [&](int index) { return index < 0 ? at::Tensor() : params_[index]; };
    return PlainNorm({norm, param(norm.weight), param(norm.bias)}, x);
  }
  at::Tensor Plain(const Attention& a, const at::Tensor& x) {
    return PlainOf(a, {Linear(a.q, x), Linear(a.k, x), Linear(a.v, x)});
  }
  // From q, k and v on.
  at::Tensor PlainOf(const Attention& a, const Tensors& qkv) {
    return Linear(a.out, PlainAttention(qkv, tables_[0], ShapeOf(a)));
  }
  at::Tensor Plain(const Mlp& m, const at::Tensor& x) {
    return Linear(m.down, PlainActivation(m.activation, Linear(m.gate, x)) * Linear(m.up, x));
  }
  // What some rows of a weight give.
  at::Tensor Rows(int index, const at::Tensor& x, int64_t first, int64_t count) {
    return Linear(index, x).narrow(-1, first, count);
  }

 private:
  int Seed() { return static_cast<int>(100 + linears_.size() + 50 * params_.size()); }
  int MakeParam(int64_t width) {
    params_.push_back(Random({width}, Seed()).to(at::kFloat));
    return static_cast<int>(params_.size()) - 1;
  }

  std::vector<at::Tensor> linears_, params_;
  const std::vector<at::Tensor> tables_ = {RopeTables(RopeConfig(), kHeadDim, kSeq)};
};

// A sublayer of one branch.
Sublayer Alone(std::variant<Attention, Mlp> body, const Norm& before, const Norm& after = {}) {
  Sublayer sublayer;
  sublayer.branches = {{before, std::move(body), after}};
  return sublayer;
}

void CheckForward(const Sublayer& sublayer, Parts& parts, const std::function<at::Tensor(const at::Tensor&)>& plain) {
  Compare([&](const Tensors& in) { return Forward(sublayer, in[0], parts); },
          [&](const Tensors& in) { return plain(in[0]); }, {Random({2, kSeq, kHidden}, 1)}, at::kFloat, 1e-5);
}

TEST_CASE("a norm behind a body is of the change alone") {
  Parts parts;
  const Norm before = parts.MakeNorm(), behind = parts.MakeNorm();
  const Attention a = parts.MakeAttention();
  const Mlp m = parts.MakeMlp();
  CheckForward(Alone(a, before), parts,
               [&](const at::Tensor& x) { return x + parts.Plain(a, parts.Plain(before, x)); });
  CheckForward(Alone(a, before, behind), parts,
               [&](const at::Tensor& x) { return x + parts.Plain(behind, parts.Plain(a, parts.Plain(before, x))); });
  CheckForward(Alone(m, {}, behind), parts,
               [&](const at::Tensor& x) { return x + parts.Plain(behind, parts.Plain(m, x)); });
}

TEST_CASE("a norm after the sum is of x and the change") {
  Parts parts;
  const Norm after_sum = parts.MakeNorm(Norm::kLayer);
  const Attention a = parts.MakeAttention();
  const Mlp m = parts.MakeMlp();
  Sublayer of_attention = Alone(a, {}), of_mlp = Alone(m, {});
  of_attention.after_sum = of_mlp.after_sum = after_sum;
  CheckForward(of_attention, parts, [&](const at::Tensor& x) { return parts.Plain(after_sum, x + parts.Plain(a, x)); });
  CheckForward(of_mlp, parts, [&](const at::Tensor& x) { return parts.Plain(after_sum, x + parts.Plain(m, x)); });
}

TEST_CASE("parallel branches read x, by one norm or by their own, and a scale is of all changes") {
  Parts parts;
  const Norm first = parts.MakeNorm(Norm::kLayer), second = parts.MakeNorm(Norm::kLayer), behind = parts.MakeNorm();
  const Attention a = parts.MakeAttention();
  const Mlp m = parts.MakeMlp();
  for (const bool last : {false, true}) {
    for (const double scale : {1.0, 0.3}) {
      for (const Norm& of_mlp : {first, second, Norm()}) {
        for (const Norm& after : {Norm(), behind}) {
          INFO("scale " << scale << ", weight " << of_mlp.weight << ", behind " << after.weight);
          Sublayer sublayer;
          sublayer.branches = {{first, a, {}}, {of_mlp, m, after}};
          sublayer.scale = scale, sublayer.residual_last = last;
          CheckForward(sublayer, parts, [&](const at::Tensor& x) {
            at::Tensor change = parts.Plain(m, of_mlp.kind == Norm::kNone ? x : parts.Plain(of_mlp, x));
            if (after.kind != Norm::kNone) change = parts.Plain(after, change);
            return x + scale * (parts.Plain(a, parts.Plain(first, x)) + change);
          });
        }
      }
    }
  }
}

TEST_CASE("one linear may give q, k and v, one after the other or by key head") {
  Parts parts;
  const Norm before = parts.MakeNorm();
  Attention a = parts.MakeAttention();
  a.k = a.v = -1, a.q = parts.MakeLinear(kQ + 2 * kKv, kHidden);
  a.inputs = Attention::kConcatenated;
  CheckForward(Alone(a, before), parts, [&](const at::Tensor& x) {
    const at::Tensor n = parts.Plain(before, x);
    return x + parts.PlainOf(
                   a, {parts.Rows(a.q, n, 0, kQ), parts.Rows(a.q, n, kQ, kKv), parts.Rows(a.q, n, kQ + kKv, kKv)});
  });
  a.inputs = Attention::kGrouped;
  CheckForward(Alone(a, before), parts, [&](const at::Tensor& x) {
    const at::Tensor n = parts.Plain(before, x);
    Tensors q, k, v;
    constexpr int64_t kQueries = kQ / kKvHeads;  // rows of the queries that read one key head
    for (int64_t head = 0; head < kKvHeads; ++head) {
      const int64_t at = head * (kQueries + 2 * kHeadDim);
      q.push_back(parts.Rows(a.q, n, at, kQueries));
      k.push_back(parts.Rows(a.q, n, at + kQueries, kHeadDim));
      v.push_back(parts.Rows(a.q, n, at + kQueries + kHeadDim, kHeadDim));
    }
    return x + parts.PlainOf(a, {at::cat(q, -1), at::cat(k, -1), at::cat(v, -1)});
  });
}

TEST_CASE("q and k are normed by head where the weight is as wide as one, else over all heads") {
  Parts parts;
  Attention a = parts.MakeAttention();
  const Norm of_head = parts.MakeNorm(Norm::kRms, kHeadDim), of_q = parts.MakeNorm(Norm::kRms, kQ),
             of_k = parts.MakeNorm(Norm::kRms, kKv);
  a.q_norm = a.k_norm = of_head;
  const auto by_head = [&](const at::Tensor& t) {
    return parts.Plain(of_head, t.reshape({2, kSeq, -1, kHeadDim})).reshape(t.sizes());
  };
  CheckForward(Alone(a, {}), parts, [&](const at::Tensor& x) {
    return x + parts.PlainOf(a, {by_head(parts.Linear(a.q, x)), by_head(parts.Linear(a.k, x)), parts.Linear(a.v, x)});
  });
  a.q_norm = of_q, a.k_norm = of_k;
  CheckForward(Alone(a, {}), parts, [&](const at::Tensor& x) {
    return x + parts.PlainOf(a, {parts.Plain(of_q, parts.Linear(a.q, x)), parts.Plain(of_k, parts.Linear(a.k, x)),
                                 parts.Linear(a.v, x)});
  });
}

TEST_CASE("q, k and v are clamped before all else") {
  Parts parts;
  Attention a = parts.MakeAttention();
  a.clip = 0.8;
  CheckForward(Alone(a, {}), parts, [&](const at::Tensor& x) {
    const auto clipped = [&](int linear) { return parts.Linear(linear, x).clamp(-0.8, 0.8); };
    return x + parts.PlainOf(a, {clipped(a.q), clipped(a.k), clipped(a.v)});
  });
}

TEST_CASE("one linear may give gate and up, and an MLP may have no gate") {
  Parts parts;
  const Norm before = parts.MakeNorm();
  Mlp m = parts.MakeMlp();
  m.gate = -1;
  CheckForward(Alone(m, before), parts, [&](const at::Tensor& x) {
    const at::Tensor up = parts.Linear(m.up, parts.Plain(before, x));
    return x + parts.Linear(m.down, PlainActivation(m.activation, up));
  });
  m.fused = true, m.up = parts.MakeLinear(2 * kWidth, kHidden);
  CheckForward(Alone(m, before), parts, [&](const at::Tensor& x) {
    const at::Tensor n = parts.Plain(before, x);
    return x + parts.Linear(m.down, PlainActivation(m.activation, parts.Rows(m.up, n, 0, kWidth)) *
                                        parts.Rows(m.up, n, kWidth, kWidth));
  });
}

}  // namespace
}  // namespace autoscheme
