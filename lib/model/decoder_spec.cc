#include "model/decoder_spec.h"

namespace autoscheme {
namespace {

struct Uses {
  std::vector<int> linears, params, last_products;
  void Read(const Norm& norm) {
    for (int part = 0; norm.weight >= 0 && part < norm.parts; ++part) Read(norm.weight + part, params);
    Read(norm.bias, params);
  }
  static void Read(int index, std::vector<int>& of) {
    if (index >= 0) of.push_back(index);
  }
  void Read(std::initializer_list<int> indices) {
    for (const int index : indices) Read(index, linears);
  }
  // The index of the body's last product.
  int operator()(const Attention& a) {
    Read({a.q, a.k, a.v, a.out});
    Read(a.q_norm), Read(a.k_norm);
    return a.out;
  }
  int operator()(const Mlp& m) {
    Read({m.gate, m.up, m.down});
    return m.down;
  }
};

Uses UsesOf(const Sublayer& sublayer) {
  Uses uses;
  for (const Branch& branch : sublayer.branches) {
    uses.Read(branch.before);
    const int last = std::visit([&](const auto& body) { return uses(body); }, branch.body);
    uses.Read(branch.after);
    if (branch.after.kind == Norm::kNone && sublayer.after_sum.kind == Norm::kNone) uses.last_products.push_back(last);
  }
  uses.Read(sublayer.after_sum);
  return uses;
}

}  // namespace

std::vector<int> LinearsOf(const Sublayer& sublayer) { return UsesOf(sublayer).linears; }
std::vector<int> ParamsOf(const Sublayer& sublayer) { return UsesOf(sublayer).params; }
std::vector<int> LastProducts(const Sublayer& sublayer) { return UsesOf(sublayer).last_products; }

void Finish(BlockSpec& block) {
  for (size_t s = 0; s < block.sublayers.size(); ++s) {
    const Uses uses = UsesOf(block.sublayers[s]);
    for (const int linear : uses.linears) block.linears[linear].sublayer = static_cast<int>(s);
    for (const int param : uses.params) block.params[param].sublayer = static_cast<int>(s);
  }
}

}  // namespace autoscheme
