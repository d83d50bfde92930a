#include "reference/elementwise.h"

#include <cmath>
#include <numbers>

namespace convolt::reference {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// erfc, since 1 + erf loses the digits of small probabilities.
double normal_distribution(double x) { return std::erfc(-x / std::numbers::sqrt2) / 2; }
double normal_density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }

double value(double x, Act act) {
  switch (act.kind) {
    case Activation::none:
      return x;
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::relu6:
      return std::min(std::max(x, 0.0), 6.0);
    case Activation::leaky_relu:
      return x > 0 ? x : static_cast<double>(act.slope) * x;
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::gelu:
      return x * normal_distribution(x);
    case Activation::hardswish:
      return x * std::min(std::max(x + 3, 0.0), 6.0) / 6;
    case Activation::hardsigmoid:
      return std::min(std::max(x + 3, 0.0), 6.0) / 6;
    case Activation::mish:
      return x * std::tanh(std::log1p(std::exp(x)));
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::tanh:
      return std::tanh(x);
  }
  return NAN;
}

double derivative(double x, Act act) {
  switch (act.kind) {
    case Activation::none:
      return 1;
    case Activation::relu:
      return x > 0 ? 1 : 0;
    case Activation::relu6:
      return x > 0 && x < 6 ? 1 : 0;
    case Activation::leaky_relu:
      return x > 0 ? 1 : static_cast<double>(act.slope);
    case Activation::silu:
      return sigmoid(x) + x * sigmoid(x) * sigmoid(-x);
    case Activation::gelu:
      return normal_distribution(x) + x * normal_density(x);
    case Activation::hardswish:
      return x <= -3 ? 0 : x >= 3 ? 1 : (2 * x + 3) / 6;
    case Activation::hardsigmoid:
      return x > -3 && x < 3 ? 1.0 / 6 : 0;
    case Activation::mish: {
      const double t = std::tanh(std::log1p(std::exp(x)));
      return t + x * (1 - t * t) * sigmoid(x);
    }
    case Activation::sigmoid:
      return sigmoid(x) * sigmoid(-x);
    case Activation::tanh:
      return 1 / (std::cosh(x) * std::cosh(x));
  }
  return NAN;
}

}  // namespace

std::vector<double> activation(const std::vector<double>& x, Act act) {
  std::vector<double> y = x;
  for (double& v : y)
    if (!std::isnan(v)) v = value(v, act);
  return y;
}

std::vector<double> activation_backward(const std::vector<double>& dy, const std::vector<double>& x, Act act) {
  std::vector<double> dx = dy;
  for (size_t i = 0; i < dx.size(); ++i) dx[i] *= derivative(x[i], act);
  return dx;
}

std::vector<double> add(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> y = a;
  for (size_t i = 0; i < y.size(); ++i) y[i] += b[i];
  return y;
}

}  // namespace convolt::reference
