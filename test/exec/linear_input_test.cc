#include "exec/linear_input.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>

#include <catch2/catch.hpp>

#include "support/doubled_node.h"
#include "support/recording_scorer.h"

namespace autoscheme {
namespace {

TEST_CASE("an input is quantized once, and without a quantizer it is itself") {
  const at::Tensor x = at::arange(12, at::kFloat).view({2, 3, 2});
  const Halving halving;
  LinearInput quantized(x, &halving), plain(x, nullptr);
  CHECK(at::equal(quantized.quantized(), x / 2));
  CHECK(at::equal(quantized.quantized(), x / 2));
  CHECK(halving.calls == 1);
  CHECK(at::equal(quantized.x(), x));
  CHECK(plain.quantized().const_data_ptr() == x.const_data_ptr());
  CHECK(plain.sizes() == at::IntArrayRef({2, 3, 2}));
}

TEST_CASE("an input knows the memory that it was made of") {
  const at::Tensor x = at::ones({2, 3});
  const LinearInput input(x, nullptr);
  CHECK(input.Is(x));
  CHECK(input.Is(x.detach()));
  CHECK_FALSE(input.Is(x.clone()));
  CHECK_FALSE(input.Is(x.view({3, 2})));
}

TEST_CASE("what was dropped is made again by its node, and stays where no node can") {
  const Halving halving;
  const at::Tensor x = at::arange(6, at::kFloat).requires_grad_(true);
  at::Tensor doubled = x.detach() * 2;
  const auto node = NewNode<Doubled>(x);
  node->x = x.detach();
  torch::autograd::set_history(doubled, node);
  LinearInput from_node(doubled, &halving), from_nowhere(x.detach(), &halving);
  for (LinearInput* input : {&from_node, &from_nowhere}) {
    input->quantized();
    input->Drop();
  }
  CHECK_FALSE(from_node.Is(doubled));
  CHECK(node->made == 0);
  CHECK(halving.calls == 2);
  CHECK(at::equal(from_node.quantized(), x.detach()));
  CHECK(at::equal(from_node.x(), x.detach() * 2));
  CHECK(node->made == 1);
  CHECK(at::equal(from_nowhere.quantized(), x.detach() / 2));
  CHECK(halving.calls == 4);
}

}  // namespace
}  // namespace autoscheme
