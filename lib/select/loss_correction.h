// What measured recipes tell of losses that were only scored: how far these are off, and which recipe to believe in.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace autoscheme {

// A Gaussian model of the logarithm of a recipe's KL (docs/scorers.md, "Refinement"):
//
//   ln KL(recipe) = c + ln (sum of its losses) + sum over traits of share(trait) t(trait) + luck(recipe) + noise
//
// A trait is a scheme, or a class of layers; its share is that of the recipe's losses which have it. t, luck and noise
// are normal with mean 0; luck is alike where recipes are alike. Deterministic: random numbers come from the caller.
class LossCorrection {
 public:
  // losses[k][l] of scheme k in layer l, finite and not negative; classes[l] are the classes of layer l, from 0 to
  // class_count - 1; relative_errors[k][l] say how far each loss may be off by itself.
  LossCorrection(std::vector<std::vector<double>> losses, std::vector<std::vector<int>> classes, int class_count,
                 std::vector<std::vector<double>> relative_errors);

  // A recipe that was measured, all on the same rows: choice[l] is the scheme of layer l, -1 for one without a loss.
  void Add(std::vector<int> choice, double kl, const std::vector<double>& row_kl);

  // Factors for all losses, one draw of what is possible after what was measured: factors[k][l]. `width` times as far
  // from the most likely ones as what is possible; 0: these themselves.
  std::vector<std::vector<double>> Draw(double width, std::mt19937_64& random) const;

  // The recipe, by its place among those added, whose KL is most surely less than the first one's: by more than a
  // standard deviation of what is not known, 0 if none is.
  int Best() const;

 private:
  using Vector = std::vector<double>;
  using Matrix = std::vector<Vector>;
  struct Measured {
    std::vector<int> choice;
    Vector shares;                    // each layer's in the sum of losses
    Vector traits;                    // share of each trait
    double log_sum = 0, surplus = 0;  // ln (sum of losses); ln KL - that
    Vector row_kl;                    // relative to their mean
  };

  Matrix Signal() const;  // covariance of what recipes have of their own, without the noise of measurement
  Matrix Total() const;   // the same of what was measured
  double NoiseVariance() const;
  Vector Surpluses() const;
  int trait_count() const { return static_cast<int>(losses_.size()) + class_count_; }
  double Spread(int trait) const;  // standard deviation of t before anything is measured

  Matrix losses_;
  std::vector<std::vector<int>> classes_;
  int class_count_;
  Matrix relative_errors_;
  std::vector<Measured> measured_;
};

}  // namespace autoscheme
