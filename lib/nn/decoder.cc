#include "nn/decoder.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <vector>

#include "nn/attention.h"
#include "nn/ops.h"
#include "nn/rope_tables.h"

namespace autoscheme {
namespace {

int64_t ReadersOf(const Attention&) { return 3; }
int64_t ReadersOf(const GatedMlp&) { return 2; }

// Every head on its own.
at::Tensor NormHeads(const Norm& norm, const at::Tensor& x, int64_t head_dim, BlockOps& ops) {
  if (norm.weight < 0) return x;
  return RmsNorm(x.view({x.size(0), x.size(1), -1, head_dim}), ops.Param(norm.weight), norm.eps).view(x.sizes());
}

// A body reads its normed input by as many branches as ReadersOf says.
at::Tensor Run(const Attention& a, const std::vector<at::Tensor>& in, BlockOps& ops) {
  at::Tensor q = ops.Linear(a.q, in[0]), k = ops.Linear(a.k, in[1]), v = ops.Linear(a.v, in[2]);
  q = NormHeads(a.q_norm, q, a.head_dim, ops);
  k = NormHeads(a.k_norm, k, a.head_dim, ops);
  const AttentionShape shape{a.heads, a.kv_heads, a.head_dim, a.window};
  return ops.Linear(a.out, CausalAttention(q, k, v, ops.position_tables(), shape));
}

at::Tensor Run(const GatedMlp& m, const std::vector<at::Tensor>& in, BlockOps& ops) {
  const at::Tensor gate = ops.Linear(m.gate, in[0]);
  return ops.Linear(m.down, SwiGlu(gate, ops.Linear(m.up, in[1])));
}

}  // namespace

at::Tensor PositionTables(const ModelSpec& spec, int64_t seqlen) {
  return RopeTables(spec.rope, spec.rotary_dims, seqlen);
}

at::Tensor Forward(const Sublayer& sublayer, const at::Tensor& x, BlockOps& ops) {
  TORCH_CHECK(sublayer.branches.size() == 1, "a sublayer of one branch is what is known so far");
  const Branch& branch = sublayer.branches[0];
  return std::visit(
      [&](const auto& body) {
        const NormedBranches in =
            RmsNormBranches(x, ops.Param(branch.before.weight), branch.before.eps, ReadersOf(body));
        return Residual(in.x, Run(body, in.normed, ops));
      },
      branch.body);
}

at::Tensor FinalNorm(const ModelSpec& spec, const at::Tensor& x, BlockOps& ops) {
  return RmsNorm(x, ops.Param(spec.final_norm.weight), spec.final_norm.eps);
}

}  // namespace autoscheme
