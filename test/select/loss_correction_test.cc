// What measured recipes are made of, on losses whose true errors are known.
#include "select/loss_correction.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

namespace autoscheme {
namespace {

using Matrix = std::vector<std::vector<double>>;

// Two schemes, twelve layers of two classes.
constexpr int kLayers = 12;
Matrix Losses() { return {std::vector<double>(kLayers, 0.4), std::vector<double>(kLayers, 0.1)}; }
std::vector<std::vector<int>> Classes() {
  std::vector<std::vector<int>> classes;
  for (int l = 0; l < kLayers; ++l) classes.push_back({l % 2});
  return classes;
}
LossCorrection Correction(double error = 0) {
  return {Losses(), Classes(), 2, Matrix(2, std::vector<double>(kLayers, error))};
}
// Scheme 0 in the first `count` layers.
std::vector<int> First(int count) {
  std::vector<int> choice(kLayers, 1);
  for (int l = 0; l < count; ++l) choice[l] = 0;
  return choice;
}
std::vector<double> Rows(double kl) { return {0.8 * kl, 1.1 * kl, 0.9 * kl, 1.2 * kl}; }

double MeanRatio(const LossCorrection& correction) {
  std::mt19937_64 random(1);
  double sum = 0;
  constexpr int kDraws = 400;
  for (int i = 0; i < kDraws; ++i) {
    const Matrix factors = correction.Draw(1, random);
    sum += std::log(factors[0][0] / factors[1][0]);
  }
  return sum / kDraws;
}

TEST_CASE("before anything is measured, draws are about the losses as they were scored") {
  const LossCorrection correction = Correction();
  CHECK(std::abs(MeanRatio(correction)) < 0.1);
  CHECK(correction.Best() == 0);
  std::mt19937_64 random(7), again(7);
  CHECK(correction.Draw(1, random) == correction.Draw(1, again));
}

TEST_CASE("draws learn that a scheme costs more than its losses say") {
  LossCorrection correction = Correction();
  // Scheme 0 really costs twice as much.
  for (const int count : {2, 4, 6, 8, 10}) {
    const double kl = 2 * 0.4 * count + 0.1 * (kLayers - count);
    correction.Add(First(count), kl, Rows(kl));
  }
  const double learned = MeanRatio(correction);
  CHECK(learned > 0.3);
  CHECK(learned < 1.0);
}

TEST_CASE("layers whose scores are unsure are drawn apart, the others are not") {
  Matrix errors(2, std::vector<double>(kLayers, 0.0));
  errors[0][2] = errors[1][2] = 0.3;
  const LossCorrection correction(Losses(), Classes(), 2, errors);
  std::mt19937_64 random(3);
  const Matrix factors = correction.Draw(1, random);
  CHECK(factors[0][0] == factors[0][4]);
  CHECK(factors[0][2] != factors[0][4]);
  CHECK(factors[0][2] / factors[1][2] == Approx(factors[0][4] / factors[1][4]));
}

TEST_CASE("a recipe is taken where it is surely better, and only there") {
  const auto best = [](double kl, std::vector<double> rows) {
    LossCorrection correction = Correction();
    correction.Add(First(6), 1, Rows(1));
    correction.Add({1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0}, kl, rows);
    return correction.Best();
  };
  CHECK(best(0.8, Rows(0.8)) == 1);
  CHECK(best(0.99, Rows(0.99)) == 0);
  CHECK(best(1.2, Rows(1.2)) == 0);
  // As good on average, but by one row that fits it.
  CHECK(best(0.92, {0.1, 1.18, 1.15, 1.25}) == 0);
}

TEST_CASE("the best of several is taken, and layers without a loss do not count") {
  LossCorrection correction = Correction();
  std::vector<int> choice = First(6), other = First(6), third = First(6);
  choice[11] = other[11] = third[11] = -1;
  other[0] = third[0] = 1, other[6] = third[7] = 0;
  correction.Add(choice, 1, Rows(1));
  correction.Add(other, 0.85, Rows(0.85));
  correction.Add(third, 0.7, Rows(0.7));
  CHECK(correction.Best() == 2);
}

TEST_CASE("a KL of zero and losses of zero are no trouble") {
  LossCorrection correction(Matrix(2, std::vector<double>(3)), {{0}, {0}, {}}, 1, Matrix(2, std::vector<double>(3)));
  correction.Add({0, 0, 0}, 0, {0, 0});
  correction.Add({1, 1, 1}, 0, {0, 0});
  CHECK(correction.Best() == 0);
  std::mt19937_64 random(1);
  for (const std::vector<double>& row : correction.Draw(1, random)) {
    for (const double factor : row) CHECK(std::isfinite(factor));
  }
}

}  // namespace
}  // namespace autoscheme
