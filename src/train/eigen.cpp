#include "train/eigen.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace convolt {
namespace {

using Matrix = std::vector<std::vector<double>>;

double off_diagonal(const Matrix& a) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < i; ++j) sum += a[i][j] * a[i][j];
  return sum;
}

// Turns the plane of p and q so that a[p][q] becomes 0; the rows of v turn likewise.
void rotate(Matrix& a, Matrix& v, size_t p, size_t q) {
  if (a[p][q] == 0) return;
  const double tau = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const double t = (tau >= 0 ? 1 : -1) / (std::abs(tau) + std::sqrt(1 + tau * tau));
  const double c = 1 / std::sqrt(1 + t * t), s = t * c;
  const auto turn = [&](double& x, double& y) {
    const double old = x;
    x = c * old - s * y;
    y = s * old + c * y;
  };
  for (auto& row : a) turn(row[p], row[q]);
  for (size_t k = 0; k < a.size(); ++k) {
    turn(a[p][k], a[q][k]);
    turn(v[p][k], v[q][k]);
  }
}

}  // namespace

Eigen eigen_of(Matrix a) {
  const size_t n = a.size();
  Matrix v(n, std::vector<double>(n));
  double squares = 0;
  for (size_t i = 0; i < n; ++i) {
    v[i][i] = 1;
    for (const double x : a[i]) squares += x * x;
  }
  constexpr int kMostSweeps = 50;
  for (int sweep = 0; sweep < kMostSweeps && off_diagonal(a) > 1e-30 * squares; ++sweep)
    for (size_t p = 0; p < n; ++p)
      for (size_t q = p + 1; q < n; ++q) rotate(a, v, p, q);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return a[i][i] < a[j][j]; });
  Eigen result;
  for (const size_t i : order) {
    result.values.push_back(a[i][i]);
    result.vectors.push_back(v[i]);
  }
  return result;
}

}  // namespace convolt
