// Chooses one option for each key: least loss, bits within the budget. Three steps:
// - Relaxation: with a price on bits (a Lagrange multiplier) every key is decided alone. The best price gives a lower
//   bound of the loss of any choice, and so does the same over the keys from i on.
// - Greedy: a choice that fits, from the options that the price likes. Its loss is an upper bound.
// - Sweep: goes through the keys and keeps the partial choices that no other beats in both bits and loss, as the
//   reference's dynamic programme does. One whose loss so far and whose lower bound for the rest exceed the upper bound
//   is cut. First only a few are kept at each key, which is quick and lowers the upper bound; then more, until nothing
//   has to be cut for want of room: then the answer is proven. Where the limits come first, `gap` says how much better
//   another could be.
#include "select/solver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <queue>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "select/relaxation.h"

namespace autoscheme {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// A sweep over the keys that keeps the Pareto front of (bits, loss), as the reference does, less the partial choices
// that a bound shows to lead to no better end than `upper`. A choice that ends best, or ties with it, is never cut:
// everything it could have been displaced by is as good a beginning as itself.
class Sweep {
 public:
  Sweep(absl::Span<const SolverKey> keys, int64_t budget, const Relaxation& relaxation, double upper, double slack);

  // Extends at most `max_states` partial choices at a key, those of least bound, and remembers at most `max_nodes`.
  // Gives up, with found() false, when `*steps` runs out.
  absl::Status Run(int64_t max_states, int64_t max_nodes, int64_t* steps, const Context& context);

  bool found() const { return found_; }
  // The least bound among what the limits cut off; infinite when they cut nothing.
  double trimmed_bound() const { return trimmed_bound_; }
  Solution Take() { return std::move(solution_); }

 private:
  struct State {
    int64_t bits;
    double loss;
    uint32_t node;
  };
  // The key's options in the order of the menu, without those that no good choice uses.
  struct Live {
    int option;
    int64_t bits;
    double loss;
  };
  // parent << 8 | index into live_[stage]
  using Node = uint32_t;
  static constexpr int kOptionBits = 8;

  double Bound(size_t next_key, int64_t bits, double loss) const;
  void Extend(size_t key, std::vector<State>* next);
  void Trim(int64_t max_states, size_t next_key, std::vector<State>* states);
  void TraceBack();

  absl::Span<const SolverKey> keys_;
  int64_t budget_;
  double upper_, slack_;
  std::vector<double> multipliers_;
  std::vector<std::vector<double>> rest_;  // rest_[m][i]: least sum over keys >= i of loss + multiplier x bits
  std::vector<int64_t> least_bits_;        // sum over keys >= i
  std::vector<std::vector<Live>> live_;
  std::vector<State> states_;
  std::vector<std::vector<Node>> nodes_;  // by key; empty where only one option is live
  bool found_ = false;
  double trimmed_bound_ = kInfinity;
  Solution solution_;
};

absl::Status CheckKeys(absl::Span<const SolverKey> keys, int64_t budget);
int64_t TightenBudget(absl::Span<const SolverKey> keys, int64_t budget);
double Slack(absl::Span<const SolverKey> keys, int64_t budget, const Relaxation& relaxation);
Solution Greedy(absl::Span<const SolverKey> keys, const Relaxation& relaxation);

}  // namespace

absl::StatusOr<Solution> SolveBudget(absl::Span<const SolverKey> keys, int64_t budget, const SolverLimits& limits,
                                     const Context& context) {
  AUTOSCHEME_RETURN_IF_ERROR(CheckKeys(keys, budget));
  budget = TightenBudget(keys, budget);
  const Relaxation relaxation = Relax(keys, budget);
  const double slack = Slack(keys, budget, relaxation);

  // Narrow sweeps first: what they find lets the wide one cut far more.
  Solution best = Greedy(keys, relaxation);
  double upper = best.loss + slack;
  int64_t steps = limits.max_steps;
  for (int64_t width = 1 << 9;; width <<= 4) {
    const int64_t steps_before = steps;
    Sweep sweep(keys, budget, relaxation, upper, slack);
    AUTOSCHEME_RETURN_IF_ERROR(sweep.Run(std::min(width, limits.max_states), limits.max_nodes, &steps, context));
    if (sweep.found()) {
      Solution found = sweep.Take();
      if (sweep.trimmed_bound() > found.loss || found.loss < best.loss) best = std::move(found);
      upper = std::min(upper, best.loss + slack);
    }
    // Whatever was cut off is no better than its bound, nor than the relaxation.
    const double lower = std::max(relaxation.bound, sweep.trimmed_bound());
    // A wider sweep takes more steps than this one, unless what it found cuts a lot.
    const bool last = width >= limits.max_states || steps < steps_before - steps;
    if (lower > best.loss || last || best.loss - lower <= slack) {
      best.gap = best.loss - lower > slack ? best.loss - lower : 0;
      return best;
    }
  }
}

namespace {

Sweep::Sweep(absl::Span<const SolverKey> keys, int64_t budget, const Relaxation& relaxation, double upper, double slack)
    : keys_(keys), budget_(budget), upper_(upper), slack_(slack), live_(keys.size()), nodes_(keys.size()) {
  // Each multiplier gives a valid bound. The relaxation's own is best near its line, the others away from it; close
  // ones are what keeps fronts narrow where there are thousands of keys.
  multipliers_ = {relaxation.multiplier};
  if (relaxation.multiplier > 0) {
    for (double factor : {0.97, 1.03, 0.99, 1.01, 0.997, 1.003, 0.94, 1.06, 0.88, 1.12, 0.75, 1.35, 0.5, 2.0})
      multipliers_.push_back(relaxation.multiplier * factor);
  }
  const size_t n = keys.size();
  least_bits_.assign(n + 1, 0);
  rest_.assign(multipliers_.size(), std::vector<double>(n + 1, 0));
  for (size_t i = n; i-- > 0;) {
    int64_t bits = std::numeric_limits<int64_t>::max();
    for (const SolverOption& option : keys[i]) bits = std::min(bits, option.bits);
    least_bits_[i] = least_bits_[i + 1] + bits;
    for (size_t m = 0; m < multipliers_.size(); ++m) {
      double cost = kInfinity;
      for (const SolverOption& option : keys[i]) {
        cost = std::min(cost, option.loss + multipliers_[m] * static_cast<double>(option.bits));
      }
      rest_[m][i] = rest_[m][i + 1] + cost;
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < keys[i].size(); ++k) {
      const SolverOption& option = keys[i][k];
      if (option.bits - (least_bits_[i] - least_bits_[i + 1]) + least_bits_[0] > budget_) continue;
      double bound = -kInfinity;
      for (size_t m = 0; m < multipliers_.size(); ++m) {
        const double cost = option.loss + multipliers_[m] * static_cast<double>(option.bits);
        bound = std::max(bound, rest_[m][0] - (rest_[m][i] - rest_[m][i + 1]) + cost -
                                    multipliers_[m] * static_cast<double>(budget_));
      }
      if (bound <= upper_) live_[i].push_back({static_cast<int>(k), option.bits, option.loss});
    }
  }
}

absl::Status Sweep::Run(int64_t max_states, int64_t max_nodes, int64_t* steps, const Context& context) {
  int64_t stages = 0, nodes_left = max_nodes;
  for (const auto& live : live_) stages += live.size() > 1;
  states_ = {{0, 0.0, 0}};
  std::vector<State> next;
  for (size_t i = 0; i < keys_.size(); ++i) {
    AUTOSCHEME_RETURN_IF_ERROR(context.CheckCancelled());
    const bool branches = live_[i].size() > 1;
    if (branches) {
      const int64_t share = std::max<int64_t>(1, std::max(nodes_left / stages, nodes_left / 8));
      const int64_t node_limit = (int64_t{1} << (32 - kOptionBits)) - 1;
      Trim(std::min({max_states, share, node_limit}), i, &states_);
    }
    next.clear();
    *steps -= static_cast<int64_t>(states_.size() * live_[i].size());
    if (*steps < 0) {
      trimmed_bound_ = -kInfinity;
      return absl::OkStatus();
    }
    Extend(i, &next);
    states_.swap(next);
    if (states_.empty()) return absl::OkStatus();
    if (branches) {
      // A stage's front may be a few times wider than what was extended; it is cut before it is remembered.
      const int64_t share = std::max<int64_t>(1, std::max(nodes_left / stages, nodes_left / 8));
      const std::vector<Node> all = std::move(nodes_[i]);
      Trim(std::min(max_states, share), i + 1, &states_);
      nodes_[i].clear();
      nodes_[i].reserve(states_.size());
      for (State& state : states_) {
        nodes_[i].push_back(all[state.node]);
        state.node = static_cast<uint32_t>(nodes_[i].size() - 1);
      }
      nodes_left -= static_cast<int64_t>(states_.size());
      --stages;
    }
    solution_.peak_states = std::max<int64_t>(solution_.peak_states, static_cast<int64_t>(states_.size()));
  }
  solution_.nodes = max_nodes - nodes_left;
  TraceBack();
  return absl::OkStatus();
}

double Sweep::Bound(size_t next_key, int64_t bits, double loss) const {
  const double left = static_cast<double>(budget_ - bits);
  double bound = -kInfinity;
  for (size_t m = 0; m < multipliers_.size(); ++m) {
    bound = std::max(bound, loss + rest_[m][next_key] - multipliers_[m] * left);
  }
  return bound;
}

// Merges, for every live option, the front shifted by it: in ascending bits, then loss, then the earlier state, then
// the earlier option. The first of equal bits is the one that the reference keeps; the others fall to the Pareto test.
void Sweep::Extend(size_t key, std::vector<State>* next) {
  const std::vector<Live>& live = live_[key];
  const int64_t most_bits = budget_ - least_bits_[key + 1];
  if (live.size() == 1) {
    for (State state : states_) {
      state.bits += live[0].bits;
      state.loss += live[0].loss;
      if (state.bits > most_bits) break;
      if (!next->empty() && state.loss >= next->back().loss) continue;
      if (Bound(key + 1, state.bits, state.loss) <= upper_) next->push_back(state);
    }
    return;
  }
  struct Cursor {
    int64_t bits;
    double loss;
    uint32_t state, option;
    bool operator<(const Cursor& o) const {  // the queue gives the greatest
      if (bits != o.bits) return bits > o.bits;
      if (loss != o.loss) return loss > o.loss;
      if (state != o.state) return state > o.state;
      return option > o.option;
    }
  };
  std::priority_queue<Cursor> cursors;
  const auto push = [&](uint32_t option, uint32_t state) {
    if (state >= states_.size()) return;
    const int64_t bits = states_[state].bits + live[option].bits;
    if (bits <= most_bits) cursors.push({bits, states_[state].loss + live[option].loss, state, option});
  };
  for (uint32_t k = 0; k < live.size(); ++k) push(k, 0);
  double best = kInfinity;
  while (!cursors.empty()) {
    const Cursor c = cursors.top();
    cursors.pop();
    push(c.option, c.state + 1);
    if (c.loss >= best) continue;
    best = c.loss;
    if (Bound(key + 1, c.bits, c.loss) > upper_) continue;
    nodes_[key].push_back(states_[c.state].node << kOptionBits | c.option);
    next->push_back({c.bits, c.loss, static_cast<uint32_t>(nodes_[key].size() - 1)});
  }
}

// Keeps the states of least bound; among those that rounding cannot tell apart, an even sample of the front.
void Sweep::Trim(int64_t max_states, size_t next_key, std::vector<State>* states) {
  if (static_cast<int64_t>(states->size()) <= max_states) return;
  std::vector<double> bounds;
  bounds.reserve(states->size());
  for (const State& state : *states) bounds.push_back(Bound(next_key, state.bits, state.loss));
  std::vector<double> sorted = bounds;
  std::nth_element(sorted.begin(), sorted.begin() + max_states, sorted.end());
  const double limit = sorted[max_states];
  int64_t below = 0, level = 0;
  for (double bound : bounds) {
    below += bound < limit - slack_;
    level += bound >= limit - slack_ && bound <= limit + slack_;
  }
  const int64_t wanted = max_states - below;
  size_t kept = 0;
  int64_t seen = 0;
  for (size_t s = 0; s < states->size(); ++s) {
    bool keep = bounds[s] < limit - slack_;
    if (!keep && bounds[s] <= limit + slack_) {
      keep = (seen + 1) * wanted / level > seen * wanted / level;
      ++seen;
    }
    if (keep) {
      (*states)[kept++] = (*states)[s];
    } else {
      trimmed_bound_ = std::min(trimmed_bound_, bounds[s]);
    }
  }
  states->resize(kept);
}

// Losses decrease along the front: the last state is the best, and the only one of that loss.
void Sweep::TraceBack() {
  const State& end = states_.back();
  found_ = true;
  solution_.bits = end.bits;
  solution_.loss = end.loss;
  solution_.choice.assign(keys_.size(), 0);
  uint32_t node = end.node;
  for (size_t i = keys_.size(); i-- > 0;) {
    const std::vector<Live>& live = live_[i];
    if (live.size() == 1) {
      solution_.choice[i] = live[0].option;
      continue;
    }
    const Node packed = nodes_[i][node];
    solution_.choice[i] = live[packed & ((1u << kOptionBits) - 1)].option;
    node = packed >> kOptionBits;
  }
}

absl::Status CheckKeys(absl::Span<const SolverKey> keys, int64_t budget) {
  int64_t least = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].empty() || keys[i].size() > 256) {
      return absl::InvalidArgumentError(
          absl::StrCat("key ", i, " has ", keys[i].size(), " options; the solver takes 1 to 256"));
    }
    int64_t bits = std::numeric_limits<int64_t>::max(), most = 0;
    for (const SolverOption& option : keys[i]) {
      if (!std::isfinite(option.loss) || option.bits < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("key ", i, " has an option of ", option.bits, " bits and loss ", option.loss));
      }
      bits = std::min(bits, option.bits);
      most = std::max(most, option.bits);
    }
    if (most > std::numeric_limits<int64_t>::max() / 4 / static_cast<int64_t>(keys.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("key ", i, " has an option of ", most, " bits: too many to add up"));
    }
    least += bits;
  }
  if (least > budget) {
    return absl::OutOfRangeError(
        absl::StrCat("the cheapest options take ", least, " bits, but the budget is ", budget, " bits"));
  }
  return absl::OkStatus();
}

// The largest sum that the options' granularity allows within the budget.
int64_t TightenBudget(absl::Span<const SolverKey> keys, int64_t budget) {
  int64_t least = 0, most = 0, unit = 0;
  for (const SolverKey& key : keys) {
    int64_t low = key[0].bits, high = key[0].bits;
    for (const SolverOption& option : key) {
      unit = std::gcd(unit, option.bits - key[0].bits);
      low = std::min(low, option.bits);
      high = std::max(high, option.bits);
    }
    least += low;
    most += high;
  }
  if (budget >= most || unit == 0) return most;
  return least + (budget - least) / unit * unit;
}

Solution Greedy(absl::Span<const SolverKey> keys, const Relaxation& relaxation) {
  Solution solution;
  solution.choice = relaxation.greedy;
  solution.loss = relaxation.greedy_loss;
  for (size_t i = 0; i < keys.size(); ++i) solution.bits += keys[i][solution.choice[i]].bits;
  return solution;
}

// More than rounding can move any bound: so much worse than the best known may a bound look before it is believed.
double Slack(absl::Span<const SolverKey> keys, int64_t budget, const Relaxation& relaxation) {
  double magnitude = std::abs(relaxation.greedy_loss) + 4 * relaxation.multiplier * static_cast<double>(budget);
  for (size_t i = 0; i < keys.size(); ++i) magnitude += std::abs(keys[i][relaxation.greedy[i]].loss);
  return 4 * std::numeric_limits<double>::epsilon() * static_cast<double>(keys.size() + 16) * magnitude;
}

}  // namespace
}  // namespace autoscheme
