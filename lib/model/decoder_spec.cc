#include "model/decoder_spec.h"

#include <initializer_list>

namespace autoscheme {
namespace {

// What shows the uses of one part.
struct Walk {
  const std::function<void(int)>&see_linear, &see_param;

  void operator()(const Norm& norm) const {
    for (int part = 0; norm.weight >= 0 && part < norm.parts; ++part) see_param(norm.weight + part);
    if (norm.bias >= 0) see_param(norm.bias);
  }
  void operator()(const Attention& a) const {
    See({a.q, a.k, a.v});
    (*this)(a.q_norm), (*this)(a.k_norm);
    See({a.out});
  }
  void operator()(const Mlp& m) const { See({m.gate, m.up, m.down}); }
  void See(std::initializer_list<int> linears) const {
    for (const int linear : linears) {
      if (linear >= 0) see_linear(linear);
    }
  }
};

int LastProduct(const Attention& a) { return a.out; }
int LastProduct(const Mlp& m) { return m.down; }

void Ignore(int) {}

}  // namespace

std::vector<int64_t> StoredShape(const LinearSpec& linear) {
  if (linear.transposed) return {linear.in_features, linear.out_features};
  return {linear.out_features, linear.in_features};
}

void ForEachUse(const Sublayer& sublayer, const std::function<void(int linear)>& see_linear,
                const std::function<void(int param)>& see_param) {
  const Walk walk{see_linear, see_param};
  for (const Branch& branch : sublayer.branches) {
    walk(branch.before);
    std::visit(walk, branch.body);
    walk(branch.after);
  }
  walk(sublayer.after_sum);
}

std::vector<int> LinearsOf(const Sublayer& sublayer) {
  std::vector<int> linears;
  ForEachUse(
      sublayer, [&](int linear) { linears.push_back(linear); }, Ignore);
  return linears;
}

std::vector<int> ParamsOf(const Sublayer& sublayer) {
  std::vector<int> params;
  ForEachUse(sublayer, Ignore, [&](int param) { params.push_back(param); });
  return params;
}

std::vector<int> LastProducts(const Sublayer& sublayer) {
  std::vector<int> last;
  for (const Branch& branch : sublayer.branches) {
    if (branch.after.kind != Norm::kNone || sublayer.after_sum.kind != Norm::kNone) continue;
    last.push_back(std::visit([](const auto& body) { return LastProduct(body); }, branch.body));
  }
  return last;
}

void Finish(BlockSpec& block) {
  for (size_t s = 0; s < block.sublayers.size(); ++s) {
    ForEachUse(
        block.sublayers[s], [&](int linear) { block.linears[linear].sublayer = static_cast<int>(s); },
        [&](int param) { block.params[param].sublayer = static_cast<int>(s); });
  }
}

}  // namespace autoscheme
