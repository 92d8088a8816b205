// DenseLlama: a small Llama with all its weights in memory, computed plainly, for what streamed runs are compared with.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "autoscheme/calibration.h"
#include "quant/quantizer.h"
#include "support/tiny_model.h"
#include "support/tiny_skeleton.h"

namespace autoscheme {

class DenseLlama {
 public:
  // The scheme of a layer by its name; null: as it is.
  using SchemeOf = std::function<const Scheme*(const std::string& layer)>;

  explicit DenseLlama(const TinyModel& model) : m_(model) {
    for (const RawTensor& tensor : MakeTinyTensors(model)) weights_[tensor.name] = FromBytes(tensor);
    if (m_.tied) weights_["lm_head.weight"] = weights_["model.embed_tokens.weight"];
  }

  // Float64 [rows, seq - 1, vocab], of a float32 forward pass in batches, which some activation scales span.
  at::Tensor Logits(const Calibration& tokens, int64_t batch_size, const SchemeOf& scheme_of) const {
    const at::Tensor ids = at::tensor(tokens.ids, at::kInt).to(at::kLong).view({tokens.nsamples, tokens.seqlen});
    std::vector<at::Tensor> logits;
    for (const at::Tensor& batch : ids.split(batch_size)) logits.push_back(Batch(batch, scheme_of));
    return at::cat(logits);
  }

 private:
  at::Tensor Batch(const at::Tensor& ids, const SchemeOf& scheme_of) const {
    const at::Tensor embedding = Weight("model.embed_tokens", scheme_of);
    at::Tensor x = embedding.index_select(0, ids.reshape({-1})).view({ids.size(0), ids.size(1), m_.hidden});
    for (int block = 0; block < m_.blocks; ++block) {
      const std::string prefix = "model.layers." + std::to_string(block) + ".";
      const auto linear = [&](const std::string& name, const at::Tensor& in) {
        return Linear(prefix + name, in, scheme_of);
      };
      const at::Tensor h = Norm(x, prefix + "input_layernorm.weight");
      x = x + linear("self_attn.o_proj", Attention(linear("self_attn.q_proj", h), linear("self_attn.k_proj", h),
                                                   linear("self_attn.v_proj", h)));
      const at::Tensor g = Norm(x, prefix + "post_attention_layernorm.weight");
      x = x + linear("mlp.down_proj", at::silu(linear("mlp.gate_proj", g)) * linear("mlp.up_proj", g));
    }
    const at::Tensor last = Norm(x, "model.norm.weight");
    return Linear("lm_head", last, scheme_of).narrow(1, 0, ids.size(1) - 1).to(at::kDouble);
  }

  static at::Tensor FromBytes(const RawTensor& tensor) {
    const at::ScalarType type = tensor.dtype == "BF16" ? at::kBFloat16 : at::kFloat;
    return at::from_blob(const_cast<char*>(tensor.bytes.data()), tensor.shape, at::TensorOptions().dtype(type))
        .to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }

  at::Tensor Weight(const std::string& layer, const SchemeOf& scheme_of) const {
    const at::Tensor w = weights_.at(layer + ".weight");
    const Scheme* scheme = scheme_of(layer);
    if (scheme == nullptr || !scheme->QuantizesWeight()) return w;
    const auto quantizer = MakeWeightQuantizer(*scheme).value();
    return quantizer->Forward(w, quantizer->Prepare(w));
  }

  at::Tensor Linear(const std::string& layer, const at::Tensor& x, const SchemeOf& scheme_of) const {
    const Scheme* scheme = scheme_of(layer);
    const bool quantizes = scheme != nullptr && scheme->QuantizesActivation();
    const at::Tensor in = quantizes ? MakeActivationQuantizer(*scheme).value()->Forward(x) : x;
    return at::matmul(in, Weight(layer, scheme_of).t());
  }

  at::Tensor Norm(const at::Tensor& x, const std::string& weight) const {
    return weights_.at(weight) * (x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + 1e-5));
  }

  // [rows, seq, heads * width] each.
  at::Tensor Attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
    const int64_t rows = q.size(0), seq = q.size(1), width = m_.head_dim != 0 ? m_.head_dim : m_.hidden / m_.heads;
    const auto heads = [&](const at::Tensor& t, int64_t count) {
      return t.view({rows, seq, count, width}).transpose(1, 2).repeat_interleave(m_.heads / count, 1);
    };
    const at::Tensor frequencies = 1.0 / at::pow(10000.0, at::arange(0, width, 2, at::kFloat) / width);
    const at::Tensor angles = at::outer(at::arange(seq, at::kFloat), frequencies).repeat({1, 2});
    const auto rotated = [&](const at::Tensor& t) {
      const auto halves = t.chunk(2, -1);
      return t * angles.cos() + at::cat({-halves[1], halves[0]}, -1) * angles.sin();
    };
    // Row by row: the bits of LibTorch's attention depend on how many it is given, and 8-bit activations on the bits.
    std::vector<at::Tensor> mixed;
    const at::Tensor queries = rotated(heads(q, m_.heads)), keys = rotated(heads(k, m_.kv_heads)),
                     values = heads(v, m_.kv_heads);
    for (int64_t row = 0; row < rows; ++row) {
      mixed.push_back(at::scaled_dot_product_attention(queries.narrow(0, row, 1), keys.narrow(0, row, 1),
                                                       values.narrow(0, row, 1), {}, 0.0, /*is_causal=*/true));
    }
    return at::cat(mixed).transpose(1, 2).reshape({rows, seq, -1});
  }

  const TinyModel m_;
  std::map<std::string, at::Tensor> weights_;
};

}  // namespace autoscheme
