#include "reference/elementwise.h"

#include <cmath>

namespace convolt::reference {

std::vector<double> activation(const std::vector<double>& x, Activation act) {
  std::vector<double> y = x;
  for (double& v : y) {
    if (std::isnan(v) || act == Activation::none) continue;
    v = std::max(v, 0.0);
    if (act == Activation::relu6) v = std::min(v, 6.0);
  }
  return y;
}

std::vector<double> activation_backward(const std::vector<double>& dy, const std::vector<double>& y, Activation act) {
  std::vector<double> dx = dy;
  for (size_t i = 0; i < dx.size(); ++i) {
    if (act != Activation::none && !(y[i] > 0)) dx[i] = 0;
    if (act == Activation::relu6 && !(y[i] < 6)) dx[i] = 0;
  }
  return dx;
}

std::vector<double> add(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> y = a;
  for (size_t i = 0; i < y.size(); ++i) y[i] += b[i];
  return y;
}

}  // namespace convolt::reference
