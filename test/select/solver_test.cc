// The solver against brute force, against the reference's dynamic programme written plainly, and at the size it must
// bear.
#include "select/solver.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <random>

#include "select/relaxation.h"

namespace autoscheme {
namespace {

struct Plain {
  std::vector<int> choice;
  int64_t bits = 0;
  double loss = 0;
};

// The programme of docs/algorithm.md 8.6, word for word. Empty when nothing fits.
std::optional<Plain> PlainDynamicProgramme(const std::vector<SolverKey>& keys, int64_t budget) {
  std::map<int64_t, Plain> states;
  states[0] = {};
  for (const SolverKey& key : keys) {
    std::map<int64_t, Plain> next;
    for (const auto& [bits, state] : states) {
      for (size_t k = 0; k < key.size(); ++k) {
        const int64_t total = bits + key[k].bits;
        if (total > budget) continue;
        const double loss = state.loss + key[k].loss;
        const auto found = next.find(total);
        if (found != next.end() && !(loss < found->second.loss)) continue;
        Plain& entry = next[total];
        entry = state;
        entry.choice.push_back(static_cast<int>(k));
        entry.bits = total;
        entry.loss = loss;
      }
    }
    states.clear();
    double best = std::numeric_limits<double>::infinity();
    for (auto& [bits, state] : next) {
      if (state.loss >= best) continue;
      best = state.loss;
      states[bits] = std::move(state);
    }
    if (states.empty()) return std::nullopt;
  }
  return states.rbegin()->second;
}

// Least loss over every combination; infinite when none fits.
double BruteForce(const std::vector<SolverKey>& keys, int64_t budget) {
  std::vector<size_t> choice(keys.size(), 0);
  double best = std::numeric_limits<double>::infinity();
  while (true) {
    int64_t bits = 0;
    double loss = 0;
    for (size_t i = 0; i < keys.size(); ++i) {
      bits += keys[i][choice[i]].bits;
      loss += keys[i][choice[i]].loss;
    }
    if (bits <= budget) best = std::min(best, loss);
    size_t i = 0;
    while (i < keys.size() && ++choice[i] == keys[i].size()) choice[i++] = 0;
    if (i == keys.size()) return best;
  }
}

void CheckEqualsPlain(const std::vector<SolverKey>& keys, int64_t budget) {
  const std::optional<Plain> want = PlainDynamicProgramme(keys, budget);
  const auto got = SolveBudget(keys, budget);
  if (!want.has_value()) {
    REQUIRE(got.status().code() == absl::StatusCode::kOutOfRange);
    return;
  }
  REQUIRE(got.ok());
  REQUIRE(got->choice == want->choice);
  REQUIRE(got->bits == want->bits);
  REQUIRE(got->loss == want->loss);
  REQUIRE(got->gap == 0);
}

TEST_CASE("two small problems are solved as the reference solves them") {
  const std::vector<SolverKey> unequal = {{{2, 4.0}, {4, 1.0}}, {{2, 3.0}, {4, 0.5}}};
  auto solution = SolveBudget(unequal, 6);
  REQUIRE(solution.ok());
  CHECK(solution->loss == 4.0);
  CHECK(solution->choice == std::vector<int>{1, 0});
  CHECK(solution->bits == 6);

  const std::vector<SolverKey> tied = {{{2, 1.0}, {4, 0.0}}, {{2, 1.0}, {4, 0.0}}};
  solution = SolveBudget(tied, 6);
  REQUIRE(solution.ok());
  CHECK(solution->choice == std::vector<int>{0, 1});
}

TEST_CASE("small problems equal brute force and, with every tie, the plain dynamic programme") {
  std::mt19937 random(1);
  const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int round = 0; round < 6000; ++round) {
    std::vector<SolverKey> keys(draw(1, 6));
    int64_t least = 0, most = 0;
    for (SolverKey& key : keys) {
      key.resize(draw(1, 4));
      int64_t low = 1000, high = 0;
      for (SolverOption& option : key) {
        // Few values: ties of bits, of loss, of both, at one key and between them.
        option = {draw(0, 6) * (round % 3 == 0 ? 4 : 1), draw(0, 5) * (round % 2 == 0 ? 1.0 : 0.1)};
        low = std::min(low, option.bits);
        high = std::max(high, option.bits);
      }
      least += low;
      most += high;
    }
    const int64_t budget = least - 1 + draw(0, static_cast<int>(most - least) + 2);
    CheckEqualsPlain(keys, budget);
    const auto got = SolveBudget(keys, budget);
    if (got.ok()) REQUIRE(got->loss == Approx(BruteForce(keys, budget)).margin(1e-12));
  }
}

TEST_CASE("medium problems equal the plain dynamic programme") {
  std::mt19937 random(2);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int round = 0; round < 60; ++round) {
    const int count = 20 + round, options = 2 + round % 6;
    std::vector<SolverKey> keys(count);
    int64_t least = 0, most = 0;
    for (SolverKey& key : keys) {
      const int64_t weights = 1 + static_cast<int64_t>(uniform(random) * 4);
      const double harm = std::exp(4 * uniform(random));
      for (int k = 0; k < options; ++k) {
        // Bits per weight rise, losses fall about fourfold per bit; some noise, some equal losses.
        const double noise = round % 4 == 0 ? 1.0 : 0.5 + uniform(random);
        key.push_back({(2 + k) * weights, harm * std::pow(0.25, k) * noise});
      }
      least += 2 * weights;
      most += (1 + options) * weights;
    }
    CheckEqualsPlain(keys, least + static_cast<int64_t>(uniform(random) * static_cast<double>(most - least)));
  }
}

// Depth-first branch and bound: the least loss below `known`, or `known`. Written apart from the solver, for sums of
// bits that no two choices share, where the plain dynamic programme has nothing to merge.
class BranchAndBound {
 public:
  BranchAndBound(const std::vector<SolverKey>& keys, int64_t budget, double known)
      : keys_(keys), budget_(budget), best_(known) {
    for (double slope = 1e-10; slope < 1e-2; slope *= 1.6) {
      std::vector<double> rest(keys.size() + 1, 0);
      for (size_t i = keys.size(); i-- > 0;) {
        double least = std::numeric_limits<double>::infinity();
        for (const SolverOption& option : keys[i])
          least = std::min(least, option.loss + slope * static_cast<double>(option.bits));
        rest[i] = rest[i + 1] + least;
      }
      slopes_.push_back(slope);
      rests_.push_back(std::move(rest));
    }
    Visit(0, 0, 0);
  }
  double best() const { return best_; }
  bool finished() const { return visits_ <= kMostVisits; }

 private:
  static constexpr int64_t kMostVisits = 2000000;

  void Visit(size_t i, int64_t bits, double loss) {
    if (++visits_ > kMostVisits) return;
    for (size_t s = 0; s < slopes_.size(); ++s) {
      if (loss + rests_[s][i] - slopes_[s] * static_cast<double>(budget_ - bits) >= best_) return;
    }
    if (i == keys_.size()) {
      if (bits <= budget_ && loss < best_) best_ = loss;
      return;
    }
    for (auto option = keys_[i].rbegin(); option != keys_[i].rend(); ++option)
      Visit(i + 1, bits + option->bits, loss + option->loss);
  }

  const std::vector<SolverKey>& keys_;
  const int64_t budget_;
  std::vector<double> slopes_;
  std::vector<std::vector<double>> rests_;
  double best_;
  int64_t visits_ = 0;
};

TEST_CASE("problems without equal sums equal an exact branch and bound") {
  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int round = 0; round < 60; ++round) {
    std::vector<SolverKey> keys(6 + round % 9);
    int64_t least = 0, most = 0;
    for (SolverKey& key : keys) {
      const double weights = 1000 + 1e6 * uniform(random), harm = std::exp(5 * uniform(random));
      int64_t low = std::numeric_limits<int64_t>::max(), high = 0;
      for (int k = 0; k < 3 + round % 4; ++k) {
        const double bits = 2 + 2 * k + uniform(random);
        key.push_back({static_cast<int64_t>(bits * weights), harm * std::pow(0.3, bits) * (0.5 + uniform(random))});
        low = std::min(low, key.back().bits), high = std::max(high, key.back().bits);
      }
      least += low, most += high;
    }
    const int64_t budget = least + static_cast<int64_t>(uniform(random) * static_cast<double>(most - least));
    const auto got = SolveBudget(keys, budget);
    REQUIRE(got.ok());
    REQUIRE(got->gap == 0);
    REQUIRE(got->bits <= budget);
    const BranchAndBound exact(keys, budget, got->loss * (1 + 1e-12));
    REQUIRE(exact.finished());
    REQUIRE(exact.best() >= got->loss * (1 - 1e-12));
  }
}

TEST_CASE("a choice of least loss that also has least bits is preferred") {
  // Both options of `b` cost nothing in loss.
  const std::vector<SolverKey> keys = {{{8, 1.0}, {16, 0.0}}, {{16, 0.0}, {4, 0.0}}};
  const auto solution = SolveBudget(keys, 32);
  REQUIRE(solution.ok());
  CHECK(solution->choice == std::vector<int>{1, 1});
  CHECK(solution->bits == 20);
}

TEST_CASE("a budget below the cheapest options names both numbers") {
  const auto solution = SolveBudget(std::vector<SolverKey>{{{10, 1.0}}, {{20, 1.0}, {15, 2.0}}}, 24);
  REQUIRE(solution.status().code() == absl::StatusCode::kOutOfRange);
  CHECK(std::string(solution.status().message()) == "the cheapest options take 25 bits, but the budget is 24 bits");
}

TEST_CASE("options that make no sense are refused") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(SolveBudget(std::vector<SolverKey>{{}}, 1).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(SolveBudget(std::vector<SolverKey>{{{1, nan}}}, 1).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(SolveBudget(std::vector<SolverKey>{{{-1, 0}}}, 1).status().code() == absl::StatusCode::kInvalidArgument);
  const int64_t huge = std::numeric_limits<int64_t>::max() / 2;
  CHECK(SolveBudget(std::vector<SolverKey>{{{huge, 0}}, {{huge, 0}}}, huge).status().code() ==
        absl::StatusCode::kInvalidArgument);
  CHECK(SolveBudget({}, 0)->choice.empty());
}

TEST_CASE("the solver stops when the host cancels") {
  CancelToken token;
  token.Cancel();
  Context context;
  context.cancel = &token;
  const std::vector<SolverKey> keys = {{{1, 1.0}, {2, 0.0}}};
  CHECK(SolveBudget(keys, 2, {}, context).status().code() == absl::StatusCode::kCancelled);
}

TEST_CASE("under limits that are too tight the answer fits the budget and its gap is a true bound") {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<SolverKey> keys(40);
  for (SolverKey& key : keys) {
    for (int k = 0; k < 8; ++k) key.push_back({1000 + static_cast<int64_t>(uniform(random) * 100000), uniform(random)});
  }
  const int64_t budget = 40 * 30000;
  const auto exact = SolveBudget(keys, budget);
  REQUIRE(exact.ok());
  REQUIRE(exact->gap == 0);
  SolverLimits tight;
  tight.max_states = 3;
  tight.max_nodes = 100;
  const auto rough = SolveBudget(keys, budget, tight);
  REQUIRE(rough.ok());
  CHECK(rough->bits <= budget);
  CHECK(rough->loss >= exact->loss);
  CHECK(rough->loss - rough->gap <= exact->loss * (1 + 1e-12));
  CHECK(rough->nodes <= 100);
}

TEST_CASE("the relaxation bounds the optimum from below and its greedy choice fits") {
  const std::vector<SolverKey> keys = {{{2, 9.0}, {4, 8.0}, {6, 1.0}}, {{2, 5.0}, {6, 0.5}}};
  const Relaxation relaxation = Relax(keys, 9);
  // 4 bits are paid; the step 2 -> 6 of the first key saves 2 per bit and fits (8), the other's 1.125 per bit fits by
  // 1/4.
  CHECK(relaxation.greedy == std::vector<int>{2, 0});
  CHECK(relaxation.greedy_loss == 6.0);
  CHECK(relaxation.multiplier == 1.125);
  CHECK(relaxation.bound == 6.0 - 1.125);
}

TEST_CASE("5,000 layers by 12 schemes are solved to a proven optimum, a subset sum to a stated gap") {
  // How far loss is tied to bits: 1 makes it a subset sum, the hardest of all.
  struct Kind {
    const char* name;
    bool arbitrary_bits;
    double correlated;
    bool random_loss;
  };
  for (const Kind kind :
       {Kind{"shapes of a model", false, 0, false}, Kind{"arbitrary sizes", true, 0, false},
        Kind{"shapes of a model, any loss", false, 0, true}, Kind{"arbitrary sizes, any loss", true, 0, true},
        Kind{"arbitrary sizes, loss nearly tied to bits", true, 0.99, false},
        Kind{"shapes of a model, loss tied to bits", false, 1, false},
        Kind{"arbitrary sizes, loss tied to bits", true, 1, false}}) {
    std::mt19937_64 random(7);
    std::uniform_real_distribution<double> uniform(0, 1);
    const double bits_per_weight[12] = {2.140625, 2.28125, 2.5625,    3.1484375, 4.0,    4.15625,
                                        4.25,     4.5,     5.1640625, 6.171875,  8.1875, 16.0};
    const int64_t shapes[5] = {4096 * 4096, 1024 * 4096, 14336 * 4096, 2048 * 2048, 11008 * 4096};
    std::vector<SolverKey> keys(5000);
    double weights_sum = 0;
    for (SolverKey& key : keys) {
      const int64_t weights = kind.arbitrary_bits ? 1000000 + static_cast<int64_t>(uniform(random) * 5e7)
                                                  : shapes[static_cast<size_t>(uniform(random) * 5)];
      weights_sum += static_cast<double>(weights);
      const double harm = std::exp(6 * uniform(random));
      for (double bits : bits_per_weight) {
        double loss = harm * std::pow(0.25, bits) * (0.7 + 0.6 * uniform(random));
        if (kind.random_loss) loss = uniform(random);
        if (kind.correlated > 0)
          loss = (16.0 - bits) * static_cast<double>(weights) * (1 - (1 - kind.correlated) * uniform(random));
        key.push_back({static_cast<int64_t>(bits * static_cast<double>(weights)), bits == 16.0 ? 0.0 : loss});
      }
    }
    for (double target : {2.5, 4.5, 7.0}) {
      const auto start = std::chrono::steady_clock::now();
      const auto solution = SolveBudget(keys, static_cast<int64_t>(weights_sum * target));
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      REQUIRE(solution.ok());
      std::cout << kind.name << ", " << target << " bits: " << seconds << " s, widest front " << solution->peak_states
                << ", nodes " << solution->nodes << ", loss " << solution->loss << ", gap " << solution->gap << "\n";
      if (kind.correlated > 0) {
        CHECK(solution->gap <= 1e-4 * solution->loss);
      } else {
        CHECK(solution->gap == 0);
      }
      CHECK(solution->nodes <= SolverLimits().max_nodes);
      CHECK(static_cast<double>(solution->bits) <= weights_sum * target);
    }
  }
}

}  // namespace
}  // namespace autoscheme
