#include "nn/decoder.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <vector>

#include "nn/attention.h"
#include "nn/ops.h"
#include "nn/rope_tables.h"

namespace autoscheme {
namespace {

LoadedNorm Load(const Norm& norm, BlockOps& ops) {
  LoadedNorm loaded{norm, {}, {}};
  if (norm.weight >= 0) loaded.weight = ops.Param(norm.weight);
  if (norm.parts > 1) {
    std::vector<at::Tensor> weights;
    for (int part = 0; part < norm.parts; ++part) weights.push_back(ops.Param(norm.weight + part));
    loaded.weight = at::stack(weights);
  }
  if (norm.bias >= 0) loaded.bias = ops.Param(norm.bias);
  return loaded;
}

at::Tensor Apply(const Norm& norm, const at::Tensor& x, BlockOps& ops) {
  return norm.kind == Norm::kNone ? x : Normed(Load(norm, ops), x);
}

// Over every head on its own, where the weight is not as wide as all.
at::Tensor NormHeads(const Norm& norm, const at::Tensor& x, int64_t head_dim, BlockOps& ops) {
  if (norm.kind == Norm::kNone) return x;
  const LoadedNorm loaded = Load(norm, ops);
  if (loaded.weight.defined() && (loaded.weight.dim() == 2 || loaded.weight.numel() != head_dim)) {
    return Normed(loaded, x);
  }
  return Normed(loaded, x.view({x.size(0), x.size(1), -1, head_dim})).view(x.sizes());
}

// How many linears read a body's input.
int64_t ReadersOf(const Attention& a) { return a.inputs == Attention::kSeparate ? 3 : 1; }
int64_t ReadersOf(const Mlp& m) { return m.gate >= 0 ? 2 : 1; }

// Reads its normed input by as many variables as ReadersOf says.
at::Tensor Run(const Attention& a, const at::Tensor* in, BlockOps& ops) {
  std::vector<at::Tensor> qkv = {ops.Linear(a.q, in[0])};
  const int64_t groups = a.inputs == Attention::kGrouped ? a.kv_heads : 1;
  if (a.inputs == Attention::kSeparate) {
    qkv.push_back(ops.Linear(a.k, in[1]));
    qkv.push_back(ops.Linear(a.v, in[2]));
  } else {
    const int64_t kv = a.kv_heads * a.head_dim / groups;
    qkv = Split(qkv[0], groups, {a.heads * a.head_dim / groups, kv, kv});
  }
  if (a.clip > 0) {
    for (at::Tensor& t : qkv) t = at::clamp(t, -a.clip, a.clip);
  }
  const at::Tensor q = NormHeads(a.q_norm, qkv[0], a.head_dim, ops), k = NormHeads(a.k_norm, qkv[1], a.head_dim, ops);
  const at::Tensor tables = a.rotary.table < 0 ? at::Tensor() : ops.position_tables(a.rotary.table);
  return ops.Linear(a.out, CausalAttention(q, k, qkv[2], tables, ShapeOf(a)));
}

at::Tensor Run(const Mlp& m, const at::Tensor* in, BlockOps& ops) {
  at::Tensor gate, up;
  if (m.fused) {
    const std::vector<at::Tensor> parts = Split(ops.Linear(m.up, in[0]), 1, {m.width, m.width});
    gate = parts[0], up = parts[1];
  } else {
    if (m.gate >= 0) gate = ops.Linear(m.gate, in[0]);
    up = ops.Linear(m.up, m.gate >= 0 ? in[1] : in[0]);
  }
  return ops.Linear(m.down, Activated(m.activation, gate, up));
}

}  // namespace

std::vector<at::Tensor> PositionTables(const ModelSpec& spec, int64_t seqlen) {
  std::vector<at::Tensor> tables;
  for (const RotaryTable& table : spec.tables) tables.push_back(RopeTables(table.rope, table.dims, seqlen));
  return tables;
}

at::Tensor Forward(const Sublayer& sublayer, const at::Tensor& x, BlockOps& ops) {
  const auto readers = [](const Branch& branch) {
    return std::visit([](const auto& body) { return ReadersOf(body); }, branch.body);
  };
  std::vector<std::vector<at::Tensor>> inputs(sublayer.branches.size());
  at::Tensor residual = x;
  for (size_t b = 0; b < inputs.size(); ++b) {
    if (!inputs[b].empty()) continue;  // shares the norm of one before it
    const Norm& norm = sublayer.branches[b].before;
    std::vector<size_t> sharing;
    int64_t count = 0;
    for (size_t other = b; other < inputs.size(); ++other) {
      if (!(sublayer.branches[other].before == norm)) continue;
      sharing.push_back(other), count += readers(sublayer.branches[other]);
    }
    std::vector<at::Tensor> normed(count, residual);
    if (norm.kind != Norm::kNone) {
      NormedBranches branches = NormBranches(Load(norm, ops), residual, count);
      residual = branches.x, normed = std::move(branches.normed);
    }
    auto next = normed.begin();
    for (const size_t other : sharing) {
      const auto end = next + readers(sublayer.branches[other]);
      inputs[other].assign(next, end);
      next = end;
    }
  }
  std::vector<at::Tensor> changes;
  for (size_t b = 0; b < inputs.size(); ++b) {
    const at::Tensor* in = inputs[b].data();
    const Branch& branch = sublayer.branches[b];
    changes.push_back(
        Apply(branch.after, std::visit([&](const auto& body) { return Run(body, in, ops); }, branch.body), ops));
  }
  return Apply(sublayer.after_sum, Residual(residual, changes, sublayer.scale, sublayer.residual_last), ops);
}

at::Tensor EmbeddedRows(const ModelSpec& spec, const at::Tensor& rows, BlockOps& ops) {
  const Input& input = spec.input;
  at::Tensor x = rows;
  if (input.scale != 1) x = x * at::scalar_tensor(input.scale, at::kFloat).to(x.scalar_type());
  if (input.projection >= 0) x = at::matmul(x, ops.Param(input.projection).t());
  if (input.positions >= 0) {
    x = x + ops.Param(input.positions).narrow(0, input.first_position, x.size(1)).unsqueeze(0);
  }
  return x;
}

at::Tensor HeadInputs(const ModelSpec& spec, const at::Tensor& x, BlockOps& ops) {
  const at::Tensor y = Apply(spec.output.norm, x, ops);
  return spec.output.projection < 0 ? y : at::matmul(y, ops.Param(spec.output.projection).t());
}

}  // namespace autoscheme
