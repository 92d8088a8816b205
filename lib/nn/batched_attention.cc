#include "nn/batched_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "nn/rope_tables.h"
#include "nn/stretches.h"
#include "tensor/tensor_pool.h"

namespace autoscheme {
namespace {

// [rows, seq, kv_heads * group * dim] seen as [rows, kv_heads, seq, group, dim].
at::Tensor ByKeyHead(const at::Tensor& t, const AttentionShape& shape) {
  return t.view({t.size(0), t.size(1), shape.kv_heads, -1, shape.head_dim}).permute({0, 2, 1, 3, 4});
}

// Rotary embedding of the first numbers of x [.., positions, group, dim] by tables [2, positions, 1, dims / 2]; with
// direction -1 the inverse. y is float32; products are rounded to the type of x and the tables.
void RotateInto(const at::Tensor& y, const at::Tensor& x, const at::Tensor& tables, bool interleaved, int direction) {
  const int64_t half = tables.defined() ? tables.size(-1) : 0, rest = x.size(-1) - 2 * half;
  if (rest > 0) y.narrow(-1, 2 * half, rest).copy_(x.narrow(-1, 2 * half, rest));
  if (half == 0) return;
  const auto part = [&](const at::Tensor& t, int64_t which) {
    return interleaved ? t.slice(-1, which, 2 * half, 2) : t.narrow(-1, which * half, half);
  };
  const at::Tensor a = part(x, 0), b = part(x, 1), cos = tables[0], sin = tables[1];
  at::Tensor first = part(y, 0), second = part(y, 1);
  if (tables.scalar_type() != at::kFloat) {
    first.copy_((a * cos).sub_(b * sin, direction));
    second.copy_((b * cos).add_(a * sin, direction));
    return;
  }
  at::mul_out(first, a, cos).addcmul_(b, sin, -direction);
  at::mul_out(second, b, cos).addcmul_(a, sin, direction);
}

// Back through the rotation, x float32 -> y of any type, rounded once.
void RotateBack(const at::Tensor& y, const at::Tensor& x, const at::Tensor& tables, bool interleaved) {
  if (y.scalar_type() == at::kFloat) return RotateInto(y, x, tables, interleaved, -1);
  const at::Tensor wide = NewLike(x);
  RotateInto(wide, x, tables, interleaved, -1);
  y.copy_(wide);
}

// Everything that attention holds, in float32: queries and keys rotated, queries times the factor of the scores, as
// matrices by (row, key head). A query of every head that shares the key head is one behind the other.
class Batch {
 public:
  // Forward, narrow queries and keys are rounded once rotated; for the gradient they are not.
  Batch(const AttentionShape& shape, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
        const at::Tensor& tables, bool rounds)
      : shape_(shape),
        rows_(q.size(0)),
        seqlen_(q.size(1)),
        step_(BatchedQueries(shape, rows_, seqlen_)),
        tables_(tables.defined() ? tables.unsqueeze(2) : tables) {
    if (tables.defined()) query_scales_ = QueryScales(shape.query_growth, shape.growth_length, seqlen_, q);
    if (query_scales_.defined()) query_scales_ = query_scales_.unsqueeze(2);
    const bool narrow = rounds && q.scalar_type() != at::kFloat;
    const at::Tensor own_tables =
        narrow && !shape.wide_rotation && tables_.defined() ? Converted(tables_, q.scalar_type()) : tables_;
    queries_ = Wide(q), keys_ = Wide(k), values_ = Wide(v);
    RotateInto(queries_, ByKeyHead(q, shape), own_tables, shape.interleaved, 1);
    RotateInto(keys_, ByKeyHead(k, shape), own_tables, shape.interleaved, 1);
    values_.copy_(ByKeyHead(v, shape));
    if (narrow) {
      keys_.copy_(keys_.to(k.scalar_type()));
      queries_.copy_(Grown(queries_.to(q.scalar_type())));
    } else {
      Grown(queries_);
    }
    queries_.mul_(shape.factor());
    const int64_t queries = rows_ * shape.heads * step_, keys = BatchedKeys(shape, rows_, seqlen_);
    scores_ = NewLike(q, {queries * keys}, at::kFloat);
    if (shape.softcap > 0) slopes_ = NewLike(scores_);
    hidden_ = at::full({step_, step_}, -std::numeric_limits<float>::infinity(), queries_.options());
    if (shape.window > 0) left_ = at::tril(hidden_, -1).unsqueeze(1);
    hidden_ = hidden_.triu_(1).unsqueeze(1);
  }

  void Forward(const at::Tensor& out) {
    ForEachStretch(shape_, seqlen_, step_, [&](const Stretch& s) {
      at::Tensor taken = Queries(queries_, s);  // sums take the place of their queries
      at::bmm_out(taken, Probabilities(s), Keys(values_, s));
    });
    ByKeyHead(out, shape_).copy_(queries_);
  }

  void Backward(const at::Tensor& grad, const AttentionGradients& out) {
    const at::Tensor of_keys = NewLike(keys_).zero_(), of_values = NewLike(values_).zero_();
    const at::Tensor grads = ByKeyHead(grad, shape_), of_scores = NewLike(scores_);
    const at::Tensor part = NewLike(grad, {rows_ * shape_.heads * step_ * shape_.head_dim}, at::kFloat);
    ForEachStretch(shape_, seqlen_, step_, [&](const Stretch& s) {
      const at::Tensor p = Probabilities(s);
      at::Tensor g = Part(part, s, shape_.head_dim), ds = Part(of_scores, s, s.keys()), q = Queries(queries_, s);
      g.view({rows_, shape_.kv_heads, s.queries(), shape_.group(), shape_.head_dim})
          .copy_(grads.narrow(2, s.first, s.queries()));
      Keys(of_values, s).baddbmm_(p.transpose(1, 2), g);
      at::bmm_out(ds, g, Keys(values_, s).transpose(1, 2));
      at::_softmax_backward_data_out(ds, ds, p, -1, at::kFloat);
      if (slopes_.defined()) ds.mul_(Part(slopes_, s, s.keys()));
      Keys(of_keys, s).baddbmm_(ds.transpose(1, 2), q);
      at::bmm_out(q, ds, Keys(keys_, s));  // gradients take the place of their queries
    });
    Grown(queries_).mul_(shape_.factor());
    RotateBack(ByKeyHead(out.q, shape_), queries_, tables_, shape_.interleaved);
    RotateBack(ByKeyHead(out.k, shape_), of_keys, tables_, shape_.interleaved);
    ByKeyHead(out.v, shape_).copy_(of_values);
  }

 private:
  // Room for t by key head.
  at::Tensor Wide(const at::Tensor& t) const { return NewLike(t, ByKeyHead(t, shape_).sizes(), at::kFloat); }

  at::Tensor Grown(at::Tensor queries) const {
    return query_scales_.defined() ? queries.mul_(query_scales_.to(queries.scalar_type())) : queries;
  }

  // Matrices of a stretch, one for each (row, key head): of queries, of keys, and in a buffer for the longest stretch.
  at::Tensor Queries(const at::Tensor& all, const Stretch& s) const {
    return all.view({rows_ * shape_.kv_heads, seqlen_ * shape_.group(), shape_.head_dim})
        .narrow(1, s.first * shape_.group(), s.queries() * shape_.group());
  }
  at::Tensor Keys(const at::Tensor& all, const Stretch& s) const {
    return all.view({rows_ * shape_.kv_heads, seqlen_, shape_.head_dim}).narrow(1, s.first_key, s.keys());
  }
  at::Tensor Part(const at::Tensor& buffer, const Stretch& s, int64_t width) const {
    const int64_t pairs = rows_ * shape_.kv_heads, queries = s.queries() * shape_.group();
    return buffer.narrow(0, 0, pairs * queries * width).view({pairs, queries, width});
  }

  // Softmax of the products of a stretch's queries with the keys.
  at::Tensor Probabilities(const Stretch& s) {
    at::Tensor scores = Part(scores_, s, s.keys());
    at::bmm_out(scores, Queries(queries_, s), Keys(keys_, s).transpose(1, 2));
    if (slopes_.defined()) {
      scores.div_(shape_.softcap).tanh_();
      at::Tensor slopes = Part(slopes_, s, s.keys());
      at::mul_out(slopes, scores, scores).neg_().add_(1);
      scores.mul_(shape_.softcap);
    }
    const int64_t n = s.queries();
    const at::Tensor by_query = scores.view({-1, n, shape_.group(), s.keys()});
    by_query.narrow(-1, s.first - s.first_key, n).add_(hidden_.narrow(0, 0, n).narrow(-1, 0, n));
    // The first query that misses a key is that number `sees_all`; those behind it miss one more each.
    if (shape_.window > 0) {
      const int64_t sees_all = s.first_key + shape_.window - 1 - s.first, missing = n - sees_all;
      if (missing > 1) {
        by_query.narrow(1, sees_all, missing)
            .narrow(-1, 0, missing)
            .add_(left_.narrow(0, 0, missing).narrow(-1, 0, missing));
      }
    }
    return at::_softmax_out(scores, scores, -1, /*half_to_float=*/false);
  }

  const AttentionShape& shape_;
  const int64_t rows_, seqlen_, step_;
  const at::Tensor tables_;             // [2, seq, 1, dims / 2]
  at::Tensor query_scales_;             // [seq, 1, 1]
  at::Tensor queries_, keys_, values_;  // [rows, kv_heads, seq, group or 1, dim]
  at::Tensor scores_, slopes_;          // a stretch's; what the cap multiplies a gradient by
  at::Tensor hidden_, left_;            // [queries, 1, keys]: -inf behind a query; and before what its window sees
};

}  // namespace

at::Tensor BatchedAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                            const AttentionShape& shape) {
  const at::Tensor out = NewLike(q);
  // The processor's way with capped scores rounds nothing either before the result.
  Batch(shape, q, k, v, tables, /*rounds=*/shape.softcap == 0).Forward(out);
  return out;
}

void BatchedAttentionGradients(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& tables,
                               const AttentionShape& shape, const at::Tensor& grad, const AttentionGradients& out) {
  Batch(shape, q, k, v, tables, /*rounds=*/false).Backward(grad, out);
}

}  // namespace autoscheme
