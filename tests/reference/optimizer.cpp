#include "reference/optimizer.h"

#include <algorithm>
#include <cmath>

namespace convolt::reference {
namespace {

using Matrix = std::vector<std::vector<double>>;

Matrix transposed(const Matrix& a) {
  Matrix t(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[0].size(); ++j) t[j][i] = a[i][j];
  return t;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c(a.size(), std::vector<double>(b[0].size()));
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < b.size(); ++k)
      for (size_t j = 0; j < b[0].size(); ++j) c[i][j] += a[i][k] * b[k][j];
  return c;
}

Matrix sum(double p, const Matrix& a, double q, const Matrix& b) {
  Matrix c = a;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[0].size(); ++j) c[i][j] = p * a[i][j] + q * b[i][j];
  return c;
}

}  // namespace

// The polynomial in X X^T even of tall matrices: a X + b (X X^T) X is the same either way.
std::vector<double> orthogonalised(const std::vector<double>& g, size_t rows, int iterations) {
  const size_t columns = g.size() / rows;
  const double length = norm(g) + 1e-7;
  Matrix x(rows, std::vector<double>(columns));
  for (size_t i = 0; i < g.size(); ++i) x[i / columns][i % columns] = g[i] / length;
  for (int i = 0; i < iterations; ++i) {
    const Matrix gram = product(x, transposed(x)), polynomial = sum(-4.7750, gram, 2.0315, product(gram, gram));
    x = sum(3.4445, x, 1, product(polynomial, x));
  }
  std::vector<double> all;
  for (const auto& row : x) all.insert(all.end(), row.begin(), row.end());
  return all;
}

void Optimizer::step(std::vector<double>& w, std::vector<double>& first, std::vector<double>& second,
                     const std::vector<double>& gradient, int64_t number) const {
  if (kind == OptimizerKind::muon && rows > 0) return matrix_step(w, first, gradient);
  if (kind == OptimizerKind::lamb) return lamb_step(w, first, second, gradient, number);
  const bool nesterov_too = nesterov || kind == OptimizerKind::muon;
  const double weight_norm = norm(w), gradient_norm = norm(gradient), t = static_cast<double>(number);
  for (size_t i = 0; i < w.size(); ++i) {
    double g = gradient[i];
    double &a = first[i], &b = second[i];
    switch (kind) {
      case OptimizerKind::sgd:
      case OptimizerKind::muon:
        g += weight_decay * w[i];
        a = momentum * a + g;
        w[i] -= rate * (nesterov_too ? g + momentum * a : a);
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
      case OptimizerKind::lamb:
        break;
    }
  }
}

void Optimizer::matrix_step(std::vector<double>& w, std::vector<double>& v, const std::vector<double>& g) const {
  std::vector<double> u(g.size());
  for (size_t i = 0; i < g.size(); ++i) {
    v[i] = matrix_momentum * v[i] + g[i];
    u[i] = g[i] + matrix_momentum * v[i];
  }
  const std::vector<double> direction = orthogonalised(u, rows, iterations);
  const double keep = renormalise && rate > 0 ? std::sqrt(static_cast<double>(rows)) / norm(w) : 1;
  for (size_t i = 0; i < w.size(); ++i) w[i] = w[i] * keep * (1 - rate * weight_decay) - rate * direction[i];
}

void Optimizer::lamb_step(std::vector<double>& w, std::vector<double>& m, std::vector<double>& s,
                          const std::vector<double>& g, int64_t number) const {
  const double t = static_cast<double>(number);
  std::vector<double> direction(w.size());
  for (size_t i = 0; i < w.size(); ++i) {
    m[i] = beta1 * m[i] + (1 - beta1) * g[i];
    s[i] = beta2 * s[i] + (1 - beta2) * g[i] * g[i];
    const double mean = m[i] / (1 - std::pow(beta1, t)), square = s[i] / (1 - std::pow(beta2, t));
    direction[i] = mean / (std::sqrt(square) + eps) + weight_decay * w[i];
  }
  const double weight_norm = norm(w), direction_norm = norm(direction);
  const bool scaled = weight_decay != 0 && weight_norm > 0 && direction_norm > 0;
  for (size_t i = 0; i < w.size(); ++i) w[i] -= rate * (scaled ? weight_norm / direction_norm : 1) * direction[i];
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
