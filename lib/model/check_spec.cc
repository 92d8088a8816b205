#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "autoscheme/quoted.h"
#include "base/count.h"
#include "model/decoder_spec.h"
#include "model/rope.h"

namespace autoscheme {
namespace {

using Shape = std::vector<int64_t>;

// Far above any published model, and small enough that no product of two, times the bytes of a number, overflows.
constexpr int64_t kMostNumbers = int64_t{1} << 30;
constexpr int kUnread = -1;

// Looks at every number of a description and keeps the first fault. What a fault makes unsafe to look at is left out.
class SpecCheck {
 public:
  explicit SpecCheck(const ModelSpec& spec) : spec_(spec) {}

  absl::Status Run() {
    Count("hidden_size", spec_.hidden_size);
    Count("vocab_size", spec_.vocab_size);
    if (spec_.blocks.empty()) Fail("it has no blocks");
    for (size_t i = 0; i < spec_.tables.size() && status_.ok(); ++i) Table(spec_.tables[i], i);
    if (status_.ok()) Ends();
    for (const BlockSpec& block : spec_.blocks) {
      if (!status_.ok()) break;
      Block(block);
    }
    for (size_t i = 0; i < spec_.tables.size(); ++i) {
      if (table_reads_.count(static_cast<int>(i)) == 0) Fail(absl::StrCat("rotary table ", i, " is never read"));
    }
    return status_;
  }

 private:
  // The tensors that norms and ends index, and the sublayer that reads each.
  struct Params {
    const std::vector<ParamSpec>& specs;
    std::vector<int> readers;
    explicit Params(const std::vector<ParamSpec>& all) : specs(all), readers(all.size(), kUnread) {}
  };

  void Fail(absl::string_view fault) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(
        absl::StrCat("architecture ", Quoted(spec_.model_type), ": ", where_, where_.empty() ? "" : ": ", fault));
  }
  void Expect(bool holds, absl::string_view what, double value, absl::string_view expected) {
    if (!holds) Fail(absl::StrCat(what, " is ", value, ", expected ", expected));
  }
  void Equal(absl::string_view what, int64_t value, int64_t expected, absl::string_view rule) {
    if (value != expected) Fail(absl::StrCat(what, " is ", value, ", expected ", expected, " (", rule, ")"));
  }
  void Count(absl::string_view what, int64_t value) {
    if (value >= 1 && value <= kMostNumbers) return;
    Fail(absl::StrCat(what, " is ", value, ", expected 1 to ", kMostNumbers));
  }
  void Positive(absl::string_view what, double value) {
    Expect(std::isfinite(value) && value > 0, what, value, "a positive number");
  }
  void NotNegative(absl::string_view what, double value) {
    Expect(std::isfinite(value) && value >= 0, what, value, "0 or more");
  }

  // Every tensor is one of its own.
  void Name(const std::string& below, const std::string& name, absl::string_view suffix) {
    if (name.empty()) return Fail("a tensor or linear has no name");
    const std::string full = absl::StrCat(below, below.empty() ? "" : ".", name, suffix);
    if (!names_.insert(full).second) Fail(absl::StrCat("two tensors are named ", Quoted(full)));
  }
  void LinearNames(const std::string& below, const LinearSpec& linear) {
    Name(below, linear.name, ".weight");
    if (linear.bias) Name(below, linear.name, ".bias");
  }

  // Its shape must be one of `shapes`; null if there is no such tensor.
  const ParamSpec* Read(Params& params, int index, const std::string& what, int sublayer,
                        const std::vector<Shape>& shapes) {
    if (index < 0 || index >= static_cast<int>(params.specs.size())) {
      Fail(absl::StrCat(what, " is tensor ", index, ", expected 0 to ", static_cast<int>(params.specs.size()) - 1));
      return nullptr;
    }
    const ParamSpec& param = params.specs[index];
    int& reader = params.readers[index];
    if (reader != kUnread && reader != sublayer) {
      Fail(absl::StrCat("tensor ", Quoted(param.name), " is read by sublayers ", reader, " and ", sublayer,
                        ", expected one"));
    }
    reader = sublayer;
    if (std::find(shapes.begin(), shapes.end(), param.shape) == shapes.end()) {
      const auto append = [](std::string* out, const Shape& shape) { out->append(ShapeText(shape)); };
      Fail(absl::StrCat(what, ", tensor ", Quoted(param.name), ": shape is ", ShapeText(param.shape), ", expected ",
                        absl::StrJoin(shapes, " or ", append)));
    }
    return &param;
  }

  void CheckNorm(const Norm& norm, const std::string& what, Params& params, int sublayer,
                 const std::vector<Shape>& shapes) {
    if (norm.weight < 0 && norm.parts != 1) return Fail(absl::StrCat(what, ": parts need a weight"));
    if (norm.kind == Norm::kNone) {
      if (norm.weight >= 0 || norm.bias >= 0) Fail(absl::StrCat(what, ": it has tensors, but its kind is kNone"));
      return;
    }
    Positive(absl::StrCat(what, ": eps"), norm.eps);
    Expect(std::isfinite(norm.offset), absl::StrCat(what, ": offset"), norm.offset, "a finite number");
    if (norm.kind == Norm::kRms && norm.bias >= 0) Fail(absl::StrCat(what, ": a norm of kind kRms has no bias"));
    if (norm.weight < 0) {
      if (norm.kind == Norm::kRms) Fail(absl::StrCat(what, ": a norm of kind kRms needs a weight"));
      if (norm.bias >= 0 || norm.offset != 0) Fail(absl::StrCat(what, ": a bias or an offset needs a weight"));
      return;
    }
    if (norm.parts != 1) return CheckParts(norm, what, params, sublayer, shapes.back());
    const ParamSpec* weight = Read(params, norm.weight, what, sublayer, shapes);
    if (weight == nullptr) return;
    if (norm.kind == Norm::kLayer && !norm.plain && weight->shape.size() > 1) {
      Fail(absl::StrCat(what, ": a norm of kind kLayer with a weight for each head must be plain"));
    }
    if (norm.bias >= 0) Read(params, norm.bias, absl::StrCat(what, " (bias)"), sublayer, {weight->shape});
  }

  // One weight of [n] for each head; `whole` is [heads, n] where a norm may have such.
  void CheckParts(const Norm& norm, const std::string& what, Params& params, int sublayer, const Shape& whole) {
    if (whole.size() != 2) return Fail(absl::StrCat(what, ": only norms of heads have parts"));
    Equal(absl::StrCat(what, ": parts"), norm.parts, whole[0], "heads");
    if (norm.bias >= 0) Fail(absl::StrCat(what, ": a norm with parts has no bias"));
    for (int part = 0; part < norm.parts && status_.ok(); ++part) {
      Read(params, norm.weight + part, absl::StrCat(what, ", part ", part), sublayer, {{whole[1]}});
    }
  }

  void AllRead(const Params& params) {
    for (size_t i = 0; i < params.specs.size(); ++i) {
      Name(where_block_, params.specs[i].name, "");
      if (params.readers[i] == kUnread) Fail(absl::StrCat("tensor ", Quoted(params.specs[i].name), " is never read"));
    }
  }

  void Table(const RotaryTable& table, size_t index) {
    const std::string what = absl::StrCat("rotary table ", index);
    const RopeConfig& rope = table.rope;
    if (!IsRopeType(rope.type)) return Fail(absl::StrCat(what, ": type ", Quoted(rope.type), " is not known"));
    const int64_t least = rope.type == "dynamic" ? 4 : 2;
    Expect(table.dims >= least && table.dims % 2 == 0 && table.dims <= kMostNumbers, absl::StrCat(what, ": dims"),
           static_cast<double>(table.dims), absl::StrCat("an even number, at least ", least));
    for (const auto& [name, value] :
         {std::pair{"theta", rope.theta}, {"factor", rope.factor}, {"attention_scale", rope.attention_scale}}) {
      Positive(absl::StrCat(what, ": ", name), value);
    }
    if (rope.type != "default" && rope.type != "linear") {
      Positive(absl::StrCat(what, ": original_max_positions"), rope.original_max_positions);
    }
    if (rope.type == "yarn") {
      Positive(absl::StrCat(what, ": beta_fast"), rope.beta_fast),
          Positive(absl::StrCat(what, ": beta_slow"), rope.beta_slow);
      Expect(rope.theta > 1, absl::StrCat(what, ": theta"), rope.theta, "more than 1");
    }
    if (rope.type == "llama3") {
      Positive(absl::StrCat(what, ": low_freq_factor"), rope.low_freq_factor);
      Expect(rope.high_freq_factor > rope.low_freq_factor, absl::StrCat(what, ": high_freq_factor"),
             rope.high_freq_factor, "more than low_freq_factor");
    }
    if (rope.type != "longrope") return;
    for (const auto* factors : {&rope.short_factors, &rope.long_factors}) {
      Equal(absl::StrCat(what, ": number of longrope factors"), static_cast<int64_t>(factors->size()), table.dims / 2,
            "dims / 2");
      for (const double factor : *factors) Positive(absl::StrCat(what, ": longrope factor"), factor);
    }
  }

  void Ends() {
    Params others(spec_.others);
    const Input& input = spec_.input;
    const Output& output = spec_.output;
    const int64_t hidden = spec_.hidden_size, width = input.width, head = spec_.head.in_features;
    Name("", input.embedding, "");
    LinearNames("", spec_.head);
    Count("input.width", width);
    Positive("input.scale", input.scale);
    Expect(spec_.max_positions >= 0, "max_positions", static_cast<double>(spec_.max_positions), "0 or more");
    if (input.positions >= 0) {
      Count("max_positions", spec_.max_positions);
      Expect(input.first_position >= 0 && input.first_position < kMostNumbers, "input.first_position",
             static_cast<double>(input.first_position), "0 or more");
      if (!status_.ok()) return;
      const Shape shape = {spec_.max_positions + input.first_position, hidden};
      Read(others, input.positions, "input.positions", 0, {shape});
    }
    if (input.projection >= 0) Read(others, input.projection, "input.projection", 0, {{hidden, width}});
    if (input.projection < 0) Equal("input.width", width, hidden, "hidden_size: there is no projection");
    CheckNorm(output.norm, "output.norm", others, 0, {{hidden}});
    Count("head: in_features", head);
    if (output.projection >= 0) Read(others, output.projection, "output.projection", 0, {{head, hidden}});
    if (output.projection < 0) Equal("head: in_features", head, hidden, "hidden_size: there is no projection");
    Equal("head: out_features", spec_.head.out_features, spec_.vocab_size, "vocab_size");
    if (spec_.tied_head || !spec_.tied_head_given)
      Equal("head: in_features", head, width, "input.width: it may be tied");
    if (spec_.head.transposed) Fail("head: its weight must not be stored transposed");
    Positive("output.multiplier", output.multiplier);
    NotNegative("output.softcap", output.softcap);
    AllRead(others);
  }

  void Block(const BlockSpec& block) {
    block_ = &block, where_block_ = block.name, linear_reads_.assign(block.linears.size(), 0);
    where_ = absl::StrCat("block ", Quoted(block.name));
    if (block.name.empty() || block.sublayers.empty()) Fail("it needs a name and a sublayer");
    Params params(block.params);
    for (size_t s = 0; s < block.sublayers.size(); ++s) CheckSublayer(block.sublayers[s], static_cast<int>(s), params);
    for (size_t i = 0; i < block.linears.size(); ++i) {
      LinearNames(block.name, block.linears[i]);
      if (linear_reads_[i] != 1) {
        Fail(absl::StrCat("linear ", Quoted(block.linears[i].name), " is read ", linear_reads_[i],
                          " times, expected once"));
      }
    }
    AllRead(params);
    where_.clear(), where_block_.clear();
  }

  void CheckSublayer(const Sublayer& sublayer, int index, Params& params) {
    const std::string what = absl::StrCat("sublayer ", index);
    const std::vector<Shape> hidden = {{spec_.hidden_size}};
    if (sublayer.branches.empty()) Fail(absl::StrCat(what, " has no branch"));
    Positive(absl::StrCat(what, ": scale"), sublayer.scale);
    CheckNorm(sublayer.after_sum, absl::StrCat(what, ", after_sum"), params, index, hidden);
    for (const Branch& branch : sublayer.branches) {
      CheckNorm(branch.before, absl::StrCat(what, ", before"), params, index, hidden);
      CheckNorm(branch.after, absl::StrCat(what, ", after"), params, index, hidden);
      if (const auto* mlp = std::get_if<Mlp>(&branch.body)) Check(*mlp);
      if (const auto* attention = std::get_if<Attention>(&branch.body)) Check(*attention, index, params);
    }
  }

  void CheckLinear(int index, const char* what, std::pair<int64_t, const char*> out,
                   std::pair<int64_t, const char*> in) {
    if (index < 0 || index >= static_cast<int>(block_->linears.size())) {
      return Fail(
          absl::StrCat(what, " is linear ", index, ", expected 0 to ", static_cast<int>(block_->linears.size()) - 1));
    }
    const LinearSpec& linear = block_->linears[index];
    ++linear_reads_[index];
    const std::string name = absl::StrCat("linear ", Quoted(linear.name), ": ");
    Equal(name + "out_features", linear.out_features, out.first, out.second);
    Equal(name + "in_features", linear.in_features, in.first, in.second);
    Count(name + "out_features", linear.out_features);
    Count(name + "in_features", linear.in_features);
  }
  void None(int index, const char* what, const char* why) {
    if (index >= 0) Fail(absl::StrCat(what, " is linear ", index, ", expected none: ", why));
  }

  void Check(const Mlp& mlp) {
    const std::pair hidden{spec_.hidden_size, "hidden_size"};
    const std::pair width{mlp.width, "mlp.width"};
    Count("mlp.width", mlp.width);
    if (!status_.ok()) return;
    if (mlp.gate >= 0 && !mlp.fused) CheckLinear(mlp.gate, "mlp.gate", width, hidden);
    if (mlp.fused) None(mlp.gate, "mlp.gate", "up is fused");
    CheckLinear(mlp.up, "mlp.up", mlp.fused ? std::pair{2 * mlp.width, "2 x mlp.width"} : width, hidden);
    CheckLinear(mlp.down, "mlp.down", hidden, width);
  }

  void Check(const Attention& a, int sublayer, Params& params) {
    Count("attention.heads", a.heads), Count("attention.kv_heads", a.kv_heads), Count("attention.head_dim", a.head_dim);
    if (!status_.ok()) return;
    if (a.heads % a.kv_heads != 0) {
      Fail(absl::StrCat("attention.heads is ", a.heads, ", expected a multiple of kv_heads (", a.kv_heads, ")"));
    }
    const std::pair hidden{spec_.hidden_size, "hidden_size"};
    const std::pair q{a.heads * a.head_dim, "heads x head_dim"}, kv{a.kv_heads * a.head_dim, "kv_heads x head_dim"};
    if (a.inputs == Attention::kSeparate) {
      CheckLinear(a.q, "attention.q", q, hidden);
      CheckLinear(a.k, "attention.k", kv, hidden);
      CheckLinear(a.v, "attention.v", kv, hidden);
    } else {
      CheckLinear(a.q, "attention.q", {q.first + 2 * kv.first, "(heads + 2 x kv_heads) x head_dim"}, hidden);
      None(a.k, "attention.k", "q gives q, k and v");
      None(a.v, "attention.v", "q gives q, k and v");
    }
    CheckLinear(a.out, "attention.out", hidden, q);
    CheckNorm(a.q_norm, "q_norm", params, sublayer, {{a.head_dim}, {q.first}, {a.heads, a.head_dim}});
    CheckNorm(a.k_norm, "k_norm", params, sublayer, {{a.head_dim}, {kv.first}, {a.kv_heads, a.head_dim}});
    NotNegative("attention.window", static_cast<double>(a.window));
    NotNegative("attention.scale", a.scale), NotNegative("attention.softcap", a.softcap);
    NotNegative("attention.clip", a.clip);
    Check(a.rotary, a.head_dim);
  }

  void Check(const Rotary& rotary, int64_t head_dim) {
    NotNegative("rotary.query_growth", rotary.query_growth), Positive("rotary.growth_length", rotary.growth_length);
    if (rotary.table < 0) {
      Expect(rotary.query_growth == 0, "rotary.query_growth", rotary.query_growth, "0: there is no rotation");
      return;
    }
    const int count = static_cast<int>(spec_.tables.size());
    if (rotary.table >= count) {
      return Fail(absl::StrCat("rotary.table is ", rotary.table, ", expected -1 to ", count - 1));
    }
    table_reads_.insert(rotary.table);
    Equal("rotary.dims", rotary.dims, spec_.tables[rotary.table].dims, "dims of its table");
    Expect(rotary.dims <= head_dim, "rotary.dims", static_cast<double>(rotary.dims),
           absl::StrCat("at most head_dim (", head_dim, ")"));
  }

  const ModelSpec& spec_;
  const BlockSpec* block_ = nullptr;
  std::string where_, where_block_;
  std::vector<int> linear_reads_;
  absl::flat_hash_set<int> table_reads_;
  absl::flat_hash_set<std::string> names_;
  absl::Status status_;
};

}  // namespace

absl::Status CheckSpec(const ModelSpec& spec) { return SpecCheck(spec).Run(); }

}  // namespace autoscheme
