#include "nn/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "device/torch_devices.h"
#include "nn/batched_attention.h"
#include "nn/fused.h"
#include "nn/node.h"
#include "nn/rope_tables.h"
#include "nn/stretches.h"
#include "tensor/products.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

// Rotary embedding of the first numbers of each head: x, y [heads, positions, dim], tables [2, positions, dims / 2];
// with direction -1 the inverse. Where the tables are of x's and y's dtype products are rounded to it; else the tables
// and one of x and y are float32. Numbers behind them are only scaled, as all are without tables.
void Rotate(const at::Tensor& all_x, const at::Tensor& tables, bool interleaved, int direction, double scale,
            const at::Tensor& all_y) {
  const int64_t half = tables.defined() ? tables.size(-1) : 0, rest = all_x.size(-1) - 2 * half;
  if (rest > 0) {
    const at::Tensor behind = all_y.narrow(-1, 2 * half, rest);
    behind.copy_(all_x.narrow(-1, 2 * half, rest));
    if (scale != 1) behind.mul_(scale);
  }
  if (half == 0) return;
  const at::Tensor x = all_x.narrow(-1, 0, 2 * half), y = all_y.narrow(-1, 0, 2 * half);
  const at::Tensor cos = tables[0], sin = tables[1], &like = x.scalar_type() == at::kFloat ? y : x;
  const auto run = [&](auto kernel, auto in, auto table, auto out) {
    using In = decltype(in);
    using Table = decltype(table);
    using Out = decltype(out);
    for (int64_t head = 0; head < x.size(0); ++head) {
      kernel({x.size(1), half, Data<In>(x) + head * x.stride(0), x.stride(1), Data<Table>(cos), Data<Table>(sin),
              Data<Out>(y) + head * y.stride(0), y.stride(1), static_cast<float>(direction),
              static_cast<float>(scale)});
    }
  };
  const bool dense = !interleaved && cos.is_contiguous() && x.stride(-1) == 1 && y.stride(-1) == 1;
  if (dense && WithRowKernels(like, [&](const auto& kernels, auto type) {
        if (tables.scalar_type() == like.scalar_type()) {
          run(kernels.rotate, type, type, type);
        } else if (y.scalar_type() == at::kFloat) {
          run(kernels.rotate_from, type, float(), float());
        } else {
          run(kernels.rotate_to, float(), float(), type);
        }
      })) {
    return;
  }
  const auto part = [&](const at::Tensor& t, int64_t which) {
    return interleaved ? t.slice(-1, which, 2 * half, 2) : t.narrow(-1, which * half, half);
  };
  const at::Tensor a = part(x, 0), b = part(x, 1);
  part(y, 0).copy_((a * cos - b * (sin * direction)) * scale);
  part(y, 1).copy_((b * cos + a * (sin * direction)) * scale);
}

// One key head of one row of the batch, with the query heads that read it: all that attention needs at a time.
// Everything here is float32 and serial.
class RowHead {
 public:
  // q, k, v: [seq, heads, dim] of one row.
  RowHead(const AttentionShape& shape, const at::Tensor& tables, const at::Tensor& k, const at::Tensor& v, int64_t head)
      : shape_(shape),
        head_(head),
        tables_(tables),
        seqlen_(k.size(0)),
        step_(QueriesAtOnce(shape, seqlen_)),
        query_scales_(QueryScales(shape.query_growth, shape.growth_length, seqlen_, k)) {
    keys_ = NewLike(k, {1, seqlen_, shape.head_dim}, at::kFloat);
    Rotate(k.narrow(1, head, 1).transpose(0, 1), tables_, shape.interleaved, 1, 1, keys_);
    keys_ = keys_[0];
    values_ = Converted(v.select(1, head), at::kFloat);
    const int64_t rows = shape.group() * step_;
    queries_ = NewLike(k, {rows * shape.head_dim}, at::kFloat);
    scores_ = NewLike(k, {rows * std::min(seqlen_, MostKeys())}, at::kFloat);
    if (shape.softcap > 0) slopes_ = NewLike(scores_);
    outside_ = at::full({step_, step_}, -std::numeric_limits<float>::infinity(), keys_.options()).triu_(1);
  }

  // out as q.
  void Forward(const at::Tensor& q, const at::Tensor& out) {
    at::Tensor sums = NewLike(queries_);
    ForEachStretch(shape_, seqlen_, step_, [&](const Stretch& s) {
      at::Tensor of_queries = Part(sums, s, shape_.head_dim);
      at::mm_out(of_queries, Probabilities(q, s), values_.narrow(0, s.first_key, s.keys()));
      Of(out, s).copy_(of_queries.view({shape_.group(), s.queries(), shape_.head_dim}));
    });
  }

  // dq, dk, dv as q, k, v.
  void Backward(const at::Tensor& q, const at::Tensor& grad, const at::Tensor& dq, const at::Tensor& dk,
                const at::Tensor& dv) {
    const int64_t dim = shape_.head_dim;
    at::Tensor of_keys = NewLike(keys_).zero_(), of_values = NewLike(keys_).zero_();
    at::Tensor of_scores = NewLike(scores_), g = NewLike(queries_), of_queries = NewLike(queries_);
    ForEachStretch(shape_, seqlen_, step_, [&](const Stretch& s) {
      const at::Tensor p = Probabilities(q, s);
      at::Tensor go = Part(g, s, dim), ds = Part(of_scores, s, s.keys()), dqs = Part(of_queries, s, dim);
      go.view({shape_.group(), s.queries(), dim}).copy_(Of(grad, s));
      of_values.narrow(0, s.first_key, s.keys()).addmm_(p.t(), go);
      at::mm_out(ds, go, values_.narrow(0, s.first_key, s.keys()).t());
      at::_softmax_backward_data_out(ds, ds, p, -1, at::kFloat);
      if (slopes_.defined()) ds.mul_(Part(slopes_, s, s.keys()));
      of_keys.narrow(0, s.first_key, s.keys()).addmm_(ds.t(), Part(queries_, s, dim));
      at::mm_out(dqs, ds, keys_.narrow(0, s.first_key, s.keys()));
      Grow(dqs, s);
      Rotate(dqs.view({shape_.group(), s.queries(), dim}), TablesOf(s), shape_.interleaved, -1, shape_.factor(),
             Of(dq, s));
    });
    Rotate(of_keys.unsqueeze(0), tables_, shape_.interleaved, -1, 1, dk.narrow(1, head_, 1).transpose(0, 1));
    dv.select(1, head_).copy_(of_values);
  }

 private:
  int64_t MostKeys() const { return shape_.window > 0 ? shape_.window + step_ : seqlen_; }

  // The matrix of a chunk in a buffer for the longest one.
  at::Tensor Part(const at::Tensor& buffer, const Stretch& s, int64_t width) const {
    const int64_t rows = shape_.group() * s.queries();
    return buffer.narrow(0, 0, rows * width).view({rows, width});
  }
  // [group, queries, dim] of a tensor like q.
  at::Tensor Of(const at::Tensor& t, const Stretch& s) const {
    return t.narrow(0, s.first, s.queries()).narrow(1, head_ * shape_.group(), shape_.group()).transpose(0, 1);
  }

  at::Tensor TablesOf(const Stretch& s) const {
    return tables_.defined() ? tables_.narrow(1, s.first, s.queries()) : tables_;
  }

  // Queries of a chunk, or their gradients, [group * queries, dim].
  void Grow(const at::Tensor& queries, const Stretch& s) const {
    if (!query_scales_.defined()) return;
    queries.view({shape_.group(), s.queries(), shape_.head_dim}).mul_(query_scales_.narrow(0, s.first, s.queries()));
  }

  // Softmax of the scaled products of a chunk's queries, which are left in queries_, with the keys.
  at::Tensor Probabilities(const at::Tensor& q, const Stretch& s) {
    const int64_t dim = shape_.head_dim, n = s.queries();
    at::Tensor rotated = Part(queries_, s, dim), scores = Part(scores_, s, s.keys());
    Rotate(Of(q, s), TablesOf(s), shape_.interleaved, 1, shape_.factor(), rotated.view({shape_.group(), n, dim}));
    Grow(rotated, s);
    at::mm_out(scores, rotated, keys_.narrow(0, s.first_key, s.keys()).t());
    if (slopes_.defined()) {
      scores.div_(shape_.softcap).tanh_();
      at::Tensor slopes = Part(slopes_, s, s.keys());
      at::mul_out(slopes, scores, scores).neg_().add_(1);
      scores.mul_(shape_.softcap);
    }
    const at::Tensor by_head = scores.view({shape_.group(), n, s.keys()});
    by_head.narrow(-1, s.first - s.first_key, n).add_(outside_.narrow(0, 0, n).narrow(1, 0, n));
    // The first query sees all keys there are, those behind it miss one more each.
    if (shape_.window > 0) {
      for (int64_t i = 1; i < n; ++i) {
        const int64_t missed = s.first + i - shape_.window + 1 - s.first_key;
        if (missed > 0) by_head.narrow(1, i, 1).narrow(2, 0, missed).fill_(-std::numeric_limits<float>::infinity());
      }
    }
    return at::_softmax_out(scores, scores, -1, /*half_to_float=*/false);
  }

  const AttentionShape& shape_;
  const int64_t head_;
  const at::Tensor& tables_;
  const int64_t seqlen_, step_;
  const at::Tensor query_scales_;
  at::Tensor keys_, values_;     // [seq, dim], rotated; as they are
  at::Tensor queries_, scores_;  // a chunk of each
  at::Tensor slopes_;            // slopes of the cap, by score
  at::Tensor outside_;
};

// Pairs (row, key head) over threads, without autograd.
template <typename Body>
void ForEachHead(int64_t rows, int64_t kv_heads, const Body& body) {
  at::parallel_for(0, rows * kv_heads, 1, [&](int64_t begin, int64_t end) {
    at::AutoDispatchBelowADInplaceOrView no_autograd;  // a property of the thread
    for (int64_t i = begin; i < end; ++i) body(i / kv_heads, i % kv_heads);
  });
}

at::Tensor Heads(const at::Tensor& t, int64_t heads) {
  return t.view({t.size(0), t.size(1), heads, t.size(2) / heads});
}

// [batch, heads, seq, dim] rotated; the tables are of its dtype, or float32.
at::Tensor Rotated(const at::Tensor& x, const at::Tensor& tables, bool interleaved) {
  if (!tables.defined()) return x;
  const at::Tensor in = Converted(x, tables.scalar_type()), y = NewLike(in);
  for (int64_t row = 0; row < x.size(0); ++row) Rotate(in[row], tables, interleaved, 1, 1, y[row]);
  return Converted(y, x.scalar_type());
}

// [batch, kv_heads, seq, dim] with every head as often as query heads read it.
at::Tensor Repeated(const at::Tensor& t, int64_t group) {
  if (group == 1) return t;
  at::Tensor y = NewLike(t, {t.size(0), t.size(1) * group, t.size(2), t.size(3)}, t.scalar_type());
  y.view({t.size(0), t.size(1), group, t.size(2), t.size(3)}).copy_(t.unsqueeze(2));
  return y;
}

// What LibTorch's attention is given: it multiplies too (see tensor/products.h), and raises an error where a setting
// alone keeps it from the processor's instructions for narrow types.
at::ScalarType ComposedType(const at::Tensor& q) { return MultipliesBfloat16() ? q.scalar_type() : at::kFloat; }

// What a window adds to the scores: 0 where a query looks, else -inf. None without a window.
std::optional<at::Tensor> WindowMask(const at::Tensor& q, const AttentionShape& shape) {
  if (shape.window == 0) return std::nullopt;
  const int64_t seqlen = q.size(1);
  at::Tensor mask = NewLike(q, {seqlen, seqlen}, ComposedType(q));
  for (int64_t i = 0; i < seqlen; ++i) {
    const int64_t first = std::max<int64_t>(i - shape.window + 1, 0);
    at::Tensor row = mask[i].fill_(-std::numeric_limits<float>::infinity());
    row.narrow(0, first, i + 1 - first).zero_();
  }
  return mask;
}

// Gives the bits of LibTorch's operators in the dtype of q, k, v and the tables; a narrow type that cannot be
// multiplied is rotated as such, and float32 from there. Without autograd.
at::Tensor Compose(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                   const std::optional<at::Tensor>& mask, const AttentionShape& shape) {
  const auto split = [](const at::Tensor& t, int64_t heads) { return Heads(t, heads).transpose(1, 2); };
  const auto given = [&](const at::Tensor& t) { return Converted(t, ComposedType(q)); };
  const at::Tensor queries = Rotated(split(q, shape.heads), tables, shape.interleaved);
  // Queries grow only where tables turn them, and so made a copy.
  const at::Tensor scales = QueryScales(shape.query_growth, shape.growth_length, q.size(1), q);
  if (scales.defined() && tables.defined()) queries.mul_(Converted(scales, q.scalar_type()));
  return at::scaled_dot_product_attention(
             given(queries),
             Repeated(given(Rotated(split(k, shape.kv_heads), tables, shape.interleaved)), shape.group()),
             Repeated(given(split(v, shape.kv_heads)), shape.group()), mask,
             /*dropout_p=*/0.0,
             /*is_causal=*/!mask.has_value(), shape.factor())
      .transpose(1, 2)
      .reshape(q.sizes());
}

// Row by row, so that no copies of all rows exist. By LibTorch's own kernel, as in the reference: under 4-bit
// activations a last bit that differs grows to percents over the blocks.
at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                  const AttentionShape& shape) {
  if (!OnHost(q)) return BatchedAttention(q, k, v, tables, shape);
  at::Tensor out = NewLike(q);
  if (shape.softcap > 0) {
    const at::Tensor qh = Heads(q, shape.heads), kh = Heads(k, shape.kv_heads), vh = Heads(v, shape.kv_heads),
                     oh = Heads(out, shape.heads);
    ForEachHead(q.size(0), shape.kv_heads, [&](int64_t row, int64_t head) {
      RowHead(shape, tables, kh[row], vh[row], head).Forward(qh[row], oh[row]);
    });
    return out;
  }
  const std::optional<at::Tensor> mask = WindowMask(q, shape);
  const at::Tensor own_tables = tables.defined() && !shape.wide_rotation ? Converted(tables, q.scalar_type()) : tables;
  const auto compute = [&](int64_t row, int64_t) {
    const auto one = [&](const at::Tensor& t) { return t.narrow(0, row, 1); };
    one(out).copy_(Compose(one(q), one(k), one(v), own_tables, mask, shape));
  };
  if (q.size(0) >= at::get_num_threads()) {
    ForEachHead(q.size(0), 1, compute);
  } else {  // the kernel spreads over heads
    for (int64_t row = 0; row < q.size(0); ++row) compute(row, 0);
  }
  return out;
}

struct AttentionNode : torch::autograd::Node {
  at::Tensor q, k, v, tables;
  AttentionShape shape;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& grads) override {
    at::NoGradGuard no_grad;
    at::Tensor dq = NewLike(q), dk = NewLike(k), dv = NewLike(v);
    if (!OnHost(q)) {
      BatchedAttentionGradients(q, k, v, tables, shape, grads[0].contiguous(), {dq, dk, dv});
      return {dq, dk, dv};
    }
    const at::Tensor qh = Heads(q, shape.heads), kh = Heads(k, shape.kv_heads), vh = Heads(v, shape.kv_heads),
                     gh = Heads(grads[0].contiguous(), shape.heads), dqh = Heads(dq, shape.heads),
                     dkh = Heads(dk, shape.kv_heads), dvh = Heads(dv, shape.kv_heads);
    ForEachHead(q.size(0), shape.kv_heads, [&](int64_t row, int64_t head) {
      RowHead(shape, tables, kh[row], vh[row], head).Backward(qh[row], gh[row], dqh[row], dkh[row], dvh[row]);
    });
    return {dq, dk, dv};
  }
  void release_variables() override { q.reset(), k.reset(), v.reset(); }
};

}  // namespace

at::Tensor CausalAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                           const AttentionShape& given) {
  const AttentionShape shape = Seen(given, q.size(1));
  at::Tensor out;
  {
    at::NoGradGuard no_grad;
    out = Attend(q, k, v, tables, shape);
  }
  if (torch::autograd::compute_requires_grad(q, k, v)) {
    auto node = NewNode<AttentionNode>(q, k, v);
    node->q = q.detach(), node->k = k.detach(), node->v = v.detach(), node->tables = tables, node->shape = shape;
    torch::autograd::set_history(out, node);
  }
  return out;
}

}  // namespace autoscheme
