#include "model/decoder_spec.h"

namespace autoscheme {
namespace {

struct Uses {
  std::vector<int> linears, params, last_products;
  void Read(const Norm& norm) {
    if (norm.weight >= 0) params.push_back(norm.weight);
  }
  void operator()(const Attention& a) {
    linears.insert(linears.end(), {a.q, a.k, a.v, a.out});
    Read(a.q_norm), Read(a.k_norm);
    last_products.push_back(a.out);
  }
  void operator()(const GatedMlp& m) {
    linears.insert(linears.end(), {m.gate, m.up, m.down});
    last_products.push_back(m.down);
  }
};

Uses UsesOf(const Sublayer& sublayer) {
  Uses uses;
  for (const Branch& branch : sublayer.branches) {
    uses.Read(branch.before);
    std::visit([&](const auto& body) { uses(body); }, branch.body);
  }
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
