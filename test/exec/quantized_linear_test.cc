#include "exec/quantized_linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "autoscheme/score_table.h"
#include "support/doubled_node.h"

namespace autoscheme {
namespace {

// A weight of random bf16 values in memory, as a streamer would hand it out.
struct StoredWeight {
  TensorInfo info;
  std::vector<std::byte> bytes;
  at::Tensor value;  // float32
  StoredWeight(int64_t rows, int64_t cols, size_t misalign = 0) {
    at::Tensor bf16 = at::randn({rows, cols}).to(at::kBFloat16);
    value = bf16.to(at::kFloat);
    info.name = "w";
    info.shape = {rows, cols};
    info.bytes = bf16.nbytes();
    bytes.resize(bf16.nbytes() + 16);
    offset = misalign;
    std::memcpy(bytes.data() + offset, bf16.data_ptr(), bf16.nbytes());
  }
  TensorView view() const { return {&info, bytes.data() + offset}; }
  size_t offset = 0;
};

struct Result {
  at::Tensor y, dx;
  LayerScore score;
};

struct Options {
  Precision precision;
  uint64_t chunk_bytes = uint64_t{8} << 20;
  bool cache_weight = false, measure = false, sliced = false;
};

// Sums up what it is shown as DeltaLoss does.
class Summing : public Scorer {
 public:
  explicit Summing(const LinearNeeds& needs) { needs_.variants.push_back({"test", false, {needs}}); }
  const ScorerNeeds& needs() const override { return needs_; }
  absl::StatusOr<Treatment> Treat(int, const LinearLayer&) override { return Treatment(); }
  void OnInputGradient(int, const LinearLayer&, const at::Tensor& grad, const at::Tensor& x,
                       const at::Tensor& xq) override {
    score.activation += SumAbsGradTimesError(grad, x, xq);
  }
  void OnWeightGradient(int, const LinearLayer&, const at::Tensor& grad, const at::Tensor& w,
                        const at::Tensor& wq) override {
    score.weight += SumAbsGradTimesError(grad, w, wq);
  }
  LayerScore score;

 private:
  ScorerNeeds needs_;
};

template <typename Quantizer>
std::shared_ptr<const Quantizer> Borrowed(const Quantizer* quantizer) {
  return std::shared_ptr<const Quantizer>(std::shared_ptr<void>(), quantizer);
}

LinearNeeds NeedsOf(const WeightQuantizer* weight, const ActivationQuantizer* activation, bool measure) {
  LinearNeeds needs;
  needs.scored = measure && (weight != nullptr || activation != nullptr);
  needs.weight_gradient = measure && weight != nullptr;
  return needs;
}

LinearLayer LayerOf(const StoredWeight& w) {
  LinearLayer layer;
  layer.name = "w", layer.weight = &w.info;
  layer.out_features = w.info.shape[0], layer.in_features = w.info.shape[1];
  return layer;
}

ExecutionPlan PlanOf(const Options& options) {
  ExecutionPlan plan;
  plan.chunk_bytes = options.chunk_bytes, plan.cache_weights = options.cache_weight,
  plan.micro_batch_rows = options.sliced;
  return plan;
}

// A QuantizedLinear whose weight is in memory.
struct Bound {
  Bound(const StoredWeight& w, const TensorView& bias, const WeightQuantizer* weight,
        const ActivationQuantizer* activation, const Options& options)
      : run(context),
        layer(LayerOf(w)),
        scorer(NeedsOf(weight, activation, options.measure)),
        scorers({&scorer}),
        quantizer(activation) {
    run.precision = options.precision;
    linear.emplace(run, PlanOf(options), layer, Treatment{Borrowed(weight), Borrowed(activation)},
                   scorer.needs().variants[0].linears[0], scorers, 0);
    Move(w, bias);
  }
  void Move(const StoredWeight& w, const TensorView& bias) {
    rows.emplace(run, [view = w.view()](absl::string_view) { return view; });
    linear->Bind(*rows, bias);
  }
  void EndBatch() { linear->EndBatch(); }
  const LayerScore& score() const { return scorer.score; }

  Context context;
  RunResources run;
  LinearLayer layer;
  Summing scorer;
  Scorers scorers;
  const ActivationQuantizer* quantizer;
  std::optional<ResidentRows> rows;
  std::optional<QuantizedLinear> linear;
};

at::Tensor Apply(Bound& linear, const at::Tensor& x, bool values = true) {
  return linear.linear->Apply(x, std::make_shared<LinearInput>(x, linear.quantizer), values);
}

Result Run(Bound& linear, const at::Tensor& x, const at::Tensor& grad, bool values = true) {
  at::Tensor leaf = x.detach().clone().requires_grad_(true);
  Result r;
  r.y = Apply(linear, leaf, values);
  torch::autograd::backward({r.y}, {grad});
  r.dx = leaf.grad();
  r.score = linear.score();
  return r;
}

double MaxDifference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST_CASE("without quantizers it is the plain linear layer, and scores nothing") {
  at::manual_seed(1);
  StoredWeight w(24, 40), b(24, 1);
  b.info.shape = {24};
  Options options;
  options.chunk_bytes = 5 * 40 * 4;  // 5 rows: the last chunk is ragged
  options.measure = true;
  Bound linear(w, b.view(), nullptr, nullptr, options);
  const at::Tensor x = at::randn({2, 3, 40}), g = at::randn({2, 3, 24});
  const Result r = Run(linear, x, g);
  CHECK(MaxDifference(r.y, at::matmul(x, w.value.t()) + b.value.view({24})) < 1e-5);
  CHECK(MaxDifference(r.dx, at::matmul(g, w.value)) < 1e-5);
  CHECK(r.score.weight == 0);
  CHECK(r.score.activation == 0);
}

TEST_CASE("both terms equal those formed from full-size gradients") {
  at::manual_seed(2);
  const Scheme scheme = *FindScheme("MXFP4");
  const auto wq = MakeWeightQuantizer(scheme).value();
  const auto aq = MakeActivationQuantizer(scheme).value();
  StoredWeight w(48, 64);
  Options options;
  options.measure = true;
  const at::Tensor x = at::randn({2, 5, 64}), g = at::randn({2, 5, 48});
  const at::Tensor quantized = wq->Forward(w.value, {}), xq = aq->Forward(x);
  const at::Tensor dw = at::matmul(g.view({-1, 48}).t(), xq.view({-1, 64}));
  const double weight_term = (dw * (w.value - quantized)).abs().sum(at::kDouble).item<double>();
  const at::Tensor dxq = at::matmul(g, quantized);
  const double activation_term = (dxq * (x - xq)).abs().sum(at::kDouble).item<double>();
  REQUIRE(weight_term > 1);
  REQUIRE(activation_term > 1);

  for (const bool cached : {false, true}) {
    for (const int64_t rows : {int64_t{7}, int64_t{48}}) {
      options.cache_weight = cached;
      options.chunk_bytes = rows * 64 * 4;
      Bound linear(w, {}, wq.get(), aq.get(), options);
      const Result r = Run(linear, x, g);
      INFO("cached " << cached << ", chunk of " << rows);
      CHECK(MaxDifference(r.y, at::matmul(xq, quantized.t())) < 1e-4);
      CHECK(MaxDifference(r.dx, aq->Backward(x, dxq)) < 1e-4);
      CHECK(r.score.weight == Approx(weight_term).epsilon(1e-6));
      CHECK(r.score.activation == Approx(activation_term).epsilon(1e-6));
    }
  }
}

TEST_CASE("bfloat16 operands in the backward pass leave the result as it is and the gradients close") {
  at::manual_seed(12);
  const Scheme scheme = *FindScheme("INT8");
  const auto wq = MakeWeightQuantizer(scheme).value();
  const auto aq = MakeActivationQuantizer(scheme).value();
  StoredWeight w(96, 128);
  const at::Tensor x = at::randn({2, 16, 128}), g = at::randn({2, 16, 96});
  for (const bool cached : {false, true}) {
    for (const bool sliced : {false, true}) {
      INFO("cached " << cached << ", sliced " << sliced);
      Options options;
      options.measure = true;
      options.cache_weight = cached;
      options.sliced = sliced;
      options.chunk_bytes = 40 * 128 * 4;
      Bound wide(w, {}, wq.get(), aq.get(), options);
      options.precision.operands = Dtype::kBF16;
      Bound mixed(w, {}, wq.get(), aq.get(), options);
      Result a = Run(wide, x, g), b = Run(mixed, x, g);
      wide.EndBatch(), mixed.EndBatch();
      CHECK(b.y.scalar_type() == at::kFloat);
      CHECK(MaxDifference(a.y, b.y) == 0);
      const double distance = MaxDifference(a.dx, b.dx), largest = a.dx.abs().max().item<double>();
      CHECK(distance > 0);  // else the operands were not rounded
      CHECK(distance < 0.02 * largest);
      CHECK(mixed.score().weight == Approx(wide.score().weight).epsilon(2e-3));
      CHECK(mixed.score().activation == Approx(wide.score().activation).epsilon(2e-3));
      CHECK(mixed.score().weight != wide.score().weight);
    }
  }
}

TEST_CASE("scores of two batches add up, each taken after its own gradient is summed") {
  at::manual_seed(3);
  const auto wq = MakeWeightQuantizer(*FindScheme("W2A16")).value();
  StoredWeight w(16, 128);
  Options options;
  options.measure = true;
  const at::Tensor x1 = at::randn({4, 128}), x2 = at::randn({4, 128}), g1 = at::randn({4, 16}), g2 = at::randn({4, 16});
  Bound both(w, {}, wq.get(), nullptr, options), first(w, {}, wq.get(), nullptr, options),
      second(w, {}, wq.get(), nullptr, options);
  Run(both, x1, g1);
  const double sum = Run(both, x2, g2).score.weight;
  const double one = Run(first, x1, g1).score.weight, two = Run(second, x2, g2).score.weight;
  CHECK(sum == Approx(one + two).epsilon(1e-9));
}

TEST_CASE("micro-batches score as the whole batch, whose gradient is summed before its absolute value is taken") {
  at::manual_seed(6);
  const Scheme scheme = *FindScheme("MXFP8");
  const auto wq = MakeWeightQuantizer(scheme).value();
  const auto aq = MakeActivationQuantizer(scheme).value();
  StoredWeight w(16, 64);
  Options options;
  options.measure = true;
  options.chunk_bytes = 5 * 64 * 4;
  const at::Tensor x = at::randn({6, 4, 64}), g = at::randn({6, 4, 16});
  Bound whole(w, {}, wq.get(), aq.get(), options);
  Run(whole, x, g);
  for (const bool cached : {false, true}) {
    options.cache_weight = cached;
    options.sliced = true;
    Bound sliced(w, {}, wq.get(), aq.get(), options);
    for (const int64_t row : {0, 2, 4}) Run(sliced, x.narrow(0, row, 2), g.narrow(0, row, 2));
    CHECK(sliced.score().weight == 0);
    sliced.EndBatch();
    CHECK(sliced.score().weight == Approx(whole.score().weight).epsilon(1e-6));
    CHECK(sliced.score().activation == Approx(whole.score().activation).epsilon(1e-6));
    sliced.EndBatch();
    CHECK(sliced.score().weight == Approx(whole.score().weight).epsilon(1e-6));
  }
}

TEST_CASE("a product whose values nobody needs has the same gradients and scores") {
  at::manual_seed(7);
  const auto wq = MakeWeightQuantizer(*FindScheme("W2A16")).value();
  StoredWeight w(16, 128);
  Options options;
  options.measure = true;
  const at::Tensor x = at::randn({2, 3, 128}), g = at::randn({2, 3, 16});
  Bound with(w, {}, wq.get(), nullptr, options), without(w, {}, wq.get(), nullptr, options);
  const Result a = Run(with, x, g), b = Run(without, x, g, /*values=*/false);
  CHECK(b.y.sizes() == a.y.sizes());
  CHECK(at::equal(a.dx, b.dx));
  CHECK(a.score.weight == b.score.weight);
}

TEST_CASE("a graph that outlives the residence of its weight is differentiated when the weight is back") {
  at::manual_seed(8);
  const auto wq = MakeWeightQuantizer(*FindScheme("W4A16")).value();
  StoredWeight w(16, 128);
  Options options;
  options.measure = true;
  options.cache_weight = true;
  const at::Tensor x = at::randn({2, 128}), g = at::randn({2, 16});
  Bound plain(w, {}, wq.get(), nullptr, options), kept(w, {}, wq.get(), nullptr, options);
  const Result expected = Run(plain, x, g);
  at::Tensor leaf = x.detach().clone().requires_grad_(true);
  const at::Tensor y = Apply(kept, leaf);
  kept.linear->Unbind();
  const StoredWeight moved = w;
  kept.Move(moved, {});
  torch::autograd::backward({y}, {g});
  CHECK(at::equal(leaf.grad(), expected.dx));
  CHECK(kept.score().weight == expected.score.weight);
}

TEST_CASE("an input that was dropped is made again once for all its readers, with the same bits") {
  at::manual_seed(9);
  const Scheme scheme = *FindScheme("MXFP4");
  const auto wq = MakeWeightQuantizer(scheme).value();
  const auto aq = MakeActivationQuantizer(scheme).value();
  StoredWeight w(48, 64), other(32, 64);
  const at::Tensor x = at::randn({3, 5, 64}), g = at::randn({3, 5, 48}), h = at::randn({3, 5, 32});
  for (const bool quantized : {false, true}) {
    const ActivationQuantizer* quantizer = quantized ? aq.get() : nullptr;
    for (const bool known : {true, false}) {  // whether a node that makes it again is there
      INFO("quantized " << quantized << ", from a node " << known);
      std::vector<Result> results;
      for (const bool drop : {false, true}) {
        Options options;
        options.measure = true;
        Bound a(w, {}, wq.get(), quantizer, options), b(other, {}, wq.get(), quantizer, options);
        at::Tensor leaf = x.clone().requires_grad_(true), doubled = x * 2;
        const auto node = NewNode<Doubled>(leaf);
        node->x = x;
        if (known) {
          torch::autograd::set_history(doubled, node);
        } else {
          doubled = leaf * 2;
        }
        auto input = std::make_shared<LinearInput>(doubled, quantizer);
        CHECK(input->Is(doubled));
        CHECK_FALSE(input->Is(leaf));
        const at::Tensor y = a.linear->Apply(doubled, input), z = b.linear->Apply(doubled, input);
        if (drop) {
          input->Drop();
          const at::Storage& storage = doubled.storage();
          CHECK(storage.use_count() == (known ? 1 : 2));  // ours, and the input's that cannot be made again
        }
        input.reset();
        torch::autograd::backward({y, z}, {g, h});
        CHECK(node->made == (drop && known ? 1 : 0));
        results.push_back(
            {y, leaf.grad(), {a.score().weight + b.score().weight, a.score().activation + b.score().activation}});
      }
      CHECK(at::equal(results[0].dx, results[1].dx));
      CHECK(results[0].score.weight == results[1].score.weight);
      CHECK(results[0].score.activation == results[1].score.activation);
      CHECK(results[0].score.weight > 0);
      CHECK((results[0].score.activation > 0) == quantized);
    }
  }
}

TEST_CASE("a forward pass that is not measured leaves the score alone") {
  at::manual_seed(4);
  const auto wq = MakeWeightQuantizer(*FindScheme("W4A16")).value();
  StoredWeight w(16, 128);
  Bound linear(w, {}, wq.get(), nullptr, {});
  Run(linear, at::randn({4, 128}), at::randn({4, 16}));
  CHECK(linear.score().weight == 0);
}

TEST_CASE("weights at odd addresses are read right") {
  at::manual_seed(5);
  StoredWeight w(8, 32, /*misalign=*/1);
  Bound linear(w, {}, nullptr, nullptr, {});
  const at::Tensor x = at::randn({3, 32});
  CHECK(MaxDifference(Apply(linear, x), at::matmul(x, w.value.t())) < 1e-5);
}

}  // namespace
}  // namespace autoscheme
