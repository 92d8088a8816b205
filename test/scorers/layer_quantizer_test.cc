#include "scorers/layer_quantizer.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <string>

namespace autoscheme {
namespace {

LayerInfo Layer(int64_t out_features, int64_t in_features) {
  LayerInfo layer;
  layer.name = "q_proj", layer.out_features = out_features, layer.in_features = in_features;
  return layer;
}

TEST_CASE("a k-quant is weighed by the matrix, other schemes have no use for it") {
  at::manual_seed(1);
  const at::Tensor w = at::randn({8, 256}), imatrix = at::arange(1, 257, at::kFloat);
  const auto quantized = [&](const char* scheme, const at::Tensor* weights) {
    return QuantizerOfLayer(*FindScheme(scheme), Layer(8, 256), weights).value()->Forward(w, {});
  };
  CHECK_FALSE(at::equal(quantized("GGUF:Q4_K_S", nullptr), quantized("GGUF:Q4_K_S", &imatrix)));
  CHECK(at::equal(quantized("W4A16", nullptr), quantized("W4A16", &imatrix)));
}

TEST_CASE("a scheme that cannot hold the layer, and a matrix that is no numbers, are refused by its name") {
  const absl::Status shape = QuantizerOfLayer(*FindScheme("GGUF:Q4_K_S"), Layer(3, 48), nullptr).status();
  CHECK(shape.code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(shape.message()), Catch::StartsWith("layer \"q_proj\": "));
  const at::Tensor infinite = at::full({256}, INFINITY);
  const absl::Status matrix = QuantizerOfLayer(*FindScheme("GGUF:Q4_K_S"), Layer(8, 256), &infinite).status();
  CHECK_FALSE(matrix.ok());
  CHECK_THAT(std::string(matrix.message()), Catch::StartsWith("layer \"q_proj\": "));
}

}  // namespace
}  // namespace autoscheme
