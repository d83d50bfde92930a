#include "reference/optimizer.h"

#include <algorithm>
#include <cmath>

namespace convolt::reference {

void Optimizer::step(std::vector<double>& w, std::vector<double>& first, std::vector<double>& second,
                     const std::vector<double>& gradient, int64_t number) const {
  const double weight_norm = norm(w), gradient_norm = norm(gradient), t = static_cast<double>(number);
  for (size_t i = 0; i < w.size(); ++i) {
    double g = gradient[i];
    double &a = first[i], &b = second[i];
    switch (kind) {
      case OptimizerKind::sgd:
        g += weight_decay * w[i];
        a = momentum * a + g;
        w[i] -= rate * (nesterov ? g + momentum * a : a);
        break;
      case OptimizerKind::adam:
      case OptimizerKind::adamw: {
        if (kind == OptimizerKind::adam)
          g += weight_decay * w[i];
        else
          w[i] *= 1 - rate * weight_decay;
        a = beta1 * a + (1 - beta1) * g;
        b = beta2 * b + (1 - beta2) * g * g;
        const double mean = a / (1 - std::pow(beta1, t)), square = b / (1 - std::pow(beta2, t));
        w[i] -= rate * mean / (std::sqrt(square) + eps);
        break;
      }
      case OptimizerKind::rmsprop:
        g += weight_decay * w[i];
        a = alpha * a + (1 - alpha) * g * g;
        b = momentum * b + g / (std::sqrt(a) + eps);
        w[i] -= rate * b;
        break;
      case OptimizerKind::lars: {
        const bool scaled = adapts && weight_norm > 0 && gradient_norm > 0;
        const double local = scaled ? trust * weight_norm / (gradient_norm + weight_decay * weight_norm) : 1;
        a = momentum * a + rate * local * (g + weight_decay * w[i]);
        w[i] -= a;
        break;
      }
      case OptimizerKind::lion: {
        const double c = beta1 * a + (1 - beta1) * g;
        w[i] -= rate * ((c > 0) - (c < 0) + weight_decay * w[i]);
        a = beta2 * a + (1 - beta2) * g;
        break;
      }
    }
  }
}

double norm(const std::vector<double>& v) {
  double squares = 0;
  for (const double x : v) squares += x * x;
  return std::sqrt(squares);
}

double clip_by_norm(std::vector<std::vector<double>>& gradients, double largest) {
  double squares = 0;
  for (const auto& g : gradients) squares += norm(g) * norm(g);
  const double before = std::sqrt(squares), factor = std::min(1.0, largest / (before + 1e-6));
  for (auto& g : gradients)
    for (double& x : g) x *= factor;
  return before;
}

void clip_by_units(std::vector<double>& g, const std::vector<double>& w, size_t unit, double part) {
  for (size_t first = 0; first < g.size(); first += unit) {
    const auto row = [&](const std::vector<double>& v) {
      const auto begin = v.begin() + static_cast<std::ptrdiff_t>(first);
      return norm({begin, begin + static_cast<std::ptrdiff_t>(unit)});
    };
    const double allowed = part * std::max(row(w), 1e-3), found = row(g);
    if (found > allowed)
      for (size_t i = first; i < first + unit; ++i) g[i] *= allowed / std::max(found, 1e-6);
  }
}

}  // namespace convolt::reference
