#include "select/loss_correction.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace autoscheme {
namespace {

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

// Standard deviations of what is not known, as parts of a KL (docs/scorers.md, "Refinement").
constexpr double kScheme = 0.4, kClass = 0.2, kLuck = 0.05;
// The variance of c about the mean of what was measured.
constexpr double kConstant = 1;
// Until rows tell more, two recipes' KL on the same rows are taken to be this uncertain beside each other, as if four
// further rows had said so.
constexpr double kPairedError = 0.05, kPairedRows = 4;
// A score may be this wrong by itself, whatever its standard error says.
constexpr double kMostRelativeError = 0.5;

double Sum(const Vector& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

double Dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

// Standard normal, the same by every standard library.
double Normal(std::mt19937_64& random) {
  const auto uniform = [&] { return (static_cast<double>(random() >> 11) + 0.5) / 9007199254740992.0; };
  const double radius = std::sqrt(-2 * std::log(uniform()));
  return radius * std::cos(6.283185307179586 * uniform());
}

// Solves with a symmetric positive definite matrix, by its Cholesky factor.
class Solver {
 public:
  explicit Solver(Matrix matrix) : factor_(std::move(matrix)) {
    for (size_t i = 0; i < factor_.size(); ++i) {
      for (size_t j = 0; j <= i; ++j) {
        double rest = factor_[i][j];
        for (size_t m = 0; m < j; ++m) rest -= factor_[i][m] * factor_[j][m];
        factor_[i][j] = i == j ? std::sqrt(rest) : rest / factor_[j][j];
      }
    }
  }
  Vector Solve(Vector right) const {
    const size_t n = factor_.size();
    for (size_t i = 0; i < n; ++i) {
      for (size_t m = 0; m < i; ++m) right[i] -= factor_[i][m] * right[m];
      right[i] /= factor_[i][i];
    }
    for (size_t i = n; i-- > 0;) {
      for (size_t m = i + 1; m < n; ++m) right[i] -= factor_[m][i] * right[m];
      right[i] /= factor_[i][i];
    }
    return right;
  }

 private:
  Matrix factor_;
};

}  // namespace

LossCorrection::LossCorrection(Matrix losses, std::vector<std::vector<int>> classes, int class_count,
                               Matrix relative_errors)
    : losses_(std::move(losses)),
      classes_(std::move(classes)),
      class_count_(class_count),
      relative_errors_(std::move(relative_errors)) {}

double LossCorrection::Spread(int trait) const { return trait < static_cast<int>(losses_.size()) ? kScheme : kClass; }

void LossCorrection::Add(std::vector<int> choice, double kl, const Vector& row_kl) {
  constexpr double kLeast = 1e-12;  // for logarithms, where nothing is lost
  Measured one;
  one.shares.resize(choice.size());
  for (size_t l = 0; l < choice.size(); ++l) one.shares[l] = choice[l] < 0 ? 0 : losses_[choice[l]][l];
  const double sum = std::max(Sum(one.shares), kLeast);
  one.traits.resize(trait_count());
  for (size_t l = 0; l < choice.size(); ++l) {
    one.shares[l] /= sum;
    if (choice[l] < 0) continue;
    one.traits[choice[l]] += one.shares[l];
    for (const int c : classes_[l]) one.traits[losses_.size() + c] += one.shares[l];
  }
  one.log_sum = std::log(sum);
  one.surplus = std::log(std::max(kl, kLeast)) - one.log_sum;
  for (const double row : row_kl) one.row_kl.push_back(row / std::max(kl, kLeast));
  one.choice = std::move(choice);
  measured_.push_back(std::move(one));
}

LossCorrection::Matrix LossCorrection::Signal() const {
  Matrix signal(measured_.size(), Vector(measured_.size()));
  for (size_t i = 0; i < measured_.size(); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      const Measured &a = measured_[i], &b = measured_[j];
      double covariance = 0, alike = 0;
      for (int t = 0; t < trait_count(); ++t) covariance += Spread(t) * Spread(t) * a.traits[t] * b.traits[t];
      for (size_t l = 0; l < a.choice.size(); ++l) {
        if (a.choice[l] == b.choice[l]) alike += std::sqrt(a.shares[l] * b.shares[l]);
      }
      signal[i][j] = signal[j][i] = covariance + kLuck * kLuck * alike;
    }
  }
  return signal;
}

// Half of the mean square by which the rows of two recipes differ: what all
// recipes share on these rows is in c.
double LossCorrection::NoiseVariance() const {
  double squares = kPairedRows * kPairedError * kPairedError, weight = kPairedRows;
  const double rows = measured_.empty() ? 0 : static_cast<double>(measured_[0].row_kl.size());
  if (rows > 1 && measured_.size() > 1) {
    double error = 0;
    for (size_t i = 1; i < measured_.size(); ++i) {
      for (size_t r = 0; r < measured_[0].row_kl.size(); ++r) {
        const double apart = measured_[i].row_kl[r] - measured_[0].row_kl[r];
        error += apart * apart / (rows * (rows - 1));
      }
    }
    squares += (rows - 1) * error / static_cast<double>(measured_.size() - 1);
    weight += rows - 1;
  }
  return squares / weight / 2;
}

LossCorrection::Matrix LossCorrection::Total() const {
  Matrix total = Signal();
  const double noise = NoiseVariance();
  for (size_t i = 0; i < total.size(); ++i) {
    for (double& value : total[i]) value += kConstant;
    total[i][i] += noise;
  }
  return total;
}

// About their mean: c is anything.
LossCorrection::Vector LossCorrection::Surpluses() const {
  Vector surpluses;
  for (const Measured& one : measured_) surpluses.push_back(one.surplus);
  const double mean = Sum(surpluses) / static_cast<double>(std::max<size_t>(1, surpluses.size()));
  for (double& surplus : surpluses) surplus -= mean;
  return surpluses;
}

// A draw before anything is measured, moved by how much what was measured
// differs from what it says of that.
std::vector<std::vector<double>> LossCorrection::Draw(double width, std::mt19937_64& random) const {
  const size_t schemes = losses_.size(), layers = classes_.size(), n = measured_.size();
  Vector traits(trait_count());
  for (int t = 0; t < trait_count(); ++t) traits[t] = width * Spread(t) * Normal(random);
  Matrix luck(schemes, Vector(layers));
  for (Vector& row : luck) {
    for (double& value : row) value = width * kLuck * Normal(random);
  }
  if (n > 0) {
    const double noise = width * std::sqrt(NoiseVariance());
    Vector apart = Surpluses();
    for (size_t i = 0; i < n; ++i) {
      const Measured& one = measured_[i];
      apart[i] -= Dot(one.traits, traits) + noise * Normal(random);
      for (size_t l = 0; l < layers; ++l) {
        if (one.choice[l] >= 0) apart[i] -= std::sqrt(one.shares[l]) * luck[one.choice[l]][l];
      }
    }
    const Vector weights = Solver(Total()).Solve(apart);
    for (int t = 0; t < trait_count(); ++t) {
      for (size_t i = 0; i < n; ++i) traits[t] += Spread(t) * Spread(t) * measured_[i].traits[t] * weights[i];
    }
  }
  Matrix factors(schemes, Vector(layers));
  for (size_t l = 0; l < layers; ++l) {
    double of_classes = 0;
    for (const int c : classes_[l]) of_classes += traits[schemes + c];
    // What a layer's score is off by is much the same under all schemes: one
    // draw for all.
    const double own = width * Normal(random);
    for (size_t k = 0; k < schemes; ++k) {
      factors[k][l] = std::exp(traits[k] + of_classes + own * std::min(relative_errors_[k][l], kMostRelativeError));
    }
  }
  return factors;
}

int LossCorrection::Best() const {
  const size_t n = measured_.size();
  if (n < 2) return 0;
  const Matrix signal = Signal();
  const Solver total(Total());
  const Vector weights = total.Solve(Surpluses());
  double most = 0;
  int best = 0;
  for (size_t i = 1; i < n; ++i) {
    // How the first recipe's true KL differs from this one's, and how surely.
    Vector covariance(n);
    for (size_t j = 0; j < n; ++j) covariance[j] = signal[0][j] - signal[i][j];
    const double gain = measured_[0].log_sum - measured_[i].log_sum + Dot(covariance, weights);
    const double variance = signal[0][0] + signal[i][i] - 2 * signal[0][i] - Dot(covariance, total.Solve(covariance));
    const double sure = gain - std::sqrt(std::max(0.0, variance));
    if (sure > most) most = sure, best = static_cast<int>(i);
  }
  return best;
}

}  // namespace autoscheme
