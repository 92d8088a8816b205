// The parts of blocks by LibTorch's operators alone, as a device without loops of its own computes them, against the
// processor's loops.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <optional>
#include <vector>

#include "nn/attention.h"
#include "nn/ops.h"
#include "nn/plain.h"
#include "support/generic_device.h"
#include "support/tensor_memory.h"

namespace autoscheme {
namespace {

// The value and the gradients, in float64.
Tensors Computed(const Function& f, const Tensors& inputs, at::ScalarType dtype, bool generic) {
  std::optional<GenericDevice> device;
  if (generic) device.emplace();
  Tensors in;
  for (const at::Tensor& t : inputs) in.push_back(t.to(dtype).detach().requires_grad_(true));
  const at::Tensor y = f(in);
  Tensors all = torch::autograd::grad({y}, in, {Random(y.sizes(), 99).to(dtype)});
  all.push_back(y.detach());
  for (at::Tensor& t : all) {
    CHECK(t.scalar_type() == dtype);
    t = t.to(at::kDouble);
  }
  return all;
}

void CheckGeneric(const Function& f, const Tensors& inputs, at::ScalarType dtype, double tolerance) {
  const Tensors generic = Computed(f, inputs, dtype, true), host = Computed(f, inputs, dtype, false);
  for (size_t i = 0; i < host.size(); ++i) {
    INFO((i + 1 < host.size() ? "gradient " : "value ") << i);
    CHECK(Apart(generic[i], host[i]) < tolerance);
  }
}

TEST_CASE("generic attention is the processor's") {
  for (const AttentionCase& c : AttentionCases()) {
    INFO(c.name);
    const at::Tensor tables = c.Tables();
    const Function f = [&](const Tensors& in) { return CausalAttention(in[0], in[1], in[2], tables, c.shape); };
    CheckGeneric(f, c.Inputs(), at::kFloat, 2e-6);
    CheckGeneric(f, c.Inputs(), at::kBFloat16, 1e-2);
  }
}

TEST_CASE("generic attention works in stretches where the scores of all queries are too many") {
  // The last stretch is ragged; windows are narrower and wider than one.
  const AttentionShape all{64, 32, 8, 0}, narrow{64, 32, 8, 37, 0, 1.5}, wide{64, 32, 8, 200};
  for (const AttentionShape& shape : {all, narrow, wide}) {
    REQUIRE(BatchedQueries(shape, 4, 230) < 230);
    const AttentionCase c{"stretches", shape, 4, 230};
    const at::Tensor tables = c.Tables();
    const Function f = [&](const Tensors& in) { return CausalAttention(in[0], in[1], in[2], tables, shape); };
    CheckGeneric(f, c.Inputs(), at::kFloat, 2e-6);
  }
}

TEST_CASE("generic attention rounds queries and keys of a narrow type as the processor does") {
  // One number of a head, and a key of zeros beside the query's own, make the result a function of one rounded product.
  const AttentionShape shape{1, 1, 2, 0, 1};
  const at::Tensor q = Random({1, 64, 2}, 1).mul_(3).to(at::kBFloat16), v = Random({1, 64, 2}, 3).to(at::kBFloat16);
  const at::Tensor tables = RopeTables(RopeConfig(), 2, 64);
  const at::Tensor host = CausalAttention(q, q, v, tables, shape);
  const GenericDevice device;
  const at::Tensor generic = CausalAttention(q, q, v, tables, shape);
  CHECK(generic.scalar_type() == at::kBFloat16);
  // Scores up to 9 times 18: rounded otherwise, most results would move.
  CHECK(generic.ne(host).sum().item<int64_t>() <= 16);
}

TEST_CASE("generic attention gives the same bits in every run") {
  const AttentionCase c{"", {4, 2, 16, 0}, 3, 90};
  const at::Tensor tables = c.Tables();
  const Function f = [&](const Tensors& in) { return CausalAttention(in[0], in[1], in[2], tables, c.shape); };
  const Tensors first = Computed(f, c.Inputs(), at::kFloat, true), second = Computed(f, c.Inputs(), at::kFloat, true);
  for (size_t i = 0; i < first.size(); ++i) CHECK(at::equal(first[i], second[i]));
}

TEST_CASE("generic attention holds what is planned") {
  at::NoGradGuard no_grad;
  const AttentionShape shapes[] = {{8, 2, 64, 0}, {8, 8, 64, 100}, {8, 2, 64, 0, 0, 1.5}};
  for (const AttentionShape& shape : shapes) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      INFO(shape.kv_heads << " key heads, window " << shape.window << ", cap " << shape.softcap);
      const AttentionCase c{"", shape, 4, 512};
      Tensors in = c.Inputs();
      for (at::Tensor& t : in) t = t.to(dtype).requires_grad_(true);
      const at::Tensor tables = c.Tables();
      const BatchedScratch planned = BatchedAttentionScratch(shape, c.rows, c.seq, dtype == at::kFloat ? 4 : 2);
      const GenericDevice device;
      at::AutoGradMode grads(true);
      const auto of_q = static_cast<int64_t>(in[0].nbytes()), of_k = static_cast<int64_t>(in[1].nbytes());
      TensorMemory forward;
      const at::Tensor y = CausalAttention(in[0], in[1], in[2], tables, shape);
      const int64_t held = forward.peak_bytes() - of_q, room = planned.forward + planned.forward_outside;
      CHECK(held <= room);
      CHECK(held >= room * 8 / 10);
      const at::Tensor grad = at::ones_like(y);
      TensorMemory backward;
      torch::autograd::grad({y}, in, {grad});
      // The processor's gradient of a softmax needs no product beside it.
      const int64_t held_back = backward.peak_bytes() - of_q - 2 * of_k;
      CHECK(held_back <= planned.backward + planned.forward_outside);
      CHECK(held_back >= planned.backward * 8 / 10);
    }
  }
}

TEST_CASE("generic norms are the processor's") {
  const Tensors inputs = {Random({3, 150, 96}, 5) + 0.5};
  for (const Norm::Kind kind : {Norm::kLayer, Norm::kRms}) {
    for (const double offset : {0.0, 1.0}) {
      for (const int64_t heads : {1, 4}) {
        for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
          INFO("kind " << kind << ", offset " << offset << ", heads " << heads);
          LoadedNorm norm;
          norm.norm.kind = kind, norm.norm.eps = 0.25, norm.norm.offset = offset;
          norm.weight = (heads > 1 ? Random({heads, 96 / heads}, 7) : Random({96}, 7)).to(dtype);
          const double tolerance = dtype == at::kFloat ? 1e-6 : 1e-2;
          CheckGeneric([&](const Tensors& in) { return Normed(norm, in[0]); }, inputs, dtype, tolerance);
          const Function branches = [&](const Tensors& in) {
            const NormedBranches made = NormBranches(norm, in[0], 3);
            return made.x + made.normed[0] + made.normed[1] * 2 + made.normed[2] * 3;
          };
          CheckGeneric(branches, inputs, dtype, tolerance);
        }
      }
    }
  }
}

TEST_CASE("generic activations are the processor's") {
  const Tensors inputs = {Random({3, 50, 700}, 11), Random({3, 50, 700}, 12)};
  for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kGeluNew,
                                      Activation::kQuickGelu, Activation::kRelu, Activation::kSquaredRelu}) {
    INFO("activation " << static_cast<int>(activation));
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const double tolerance = dtype == at::kFloat ? 1e-6 : 1e-2;
      CheckGeneric([&](const Tensors& in) { return Activated(activation, in[0], in[1]); }, inputs, dtype, tolerance);
      CheckGeneric([&](const Tensors& in) { return Activated(activation, {}, in[0]); }, {inputs[0]}, dtype, tolerance);
    }
  }
}

}  // namespace
}  // namespace autoscheme
