// Group and layer normalisation in double, by the formulas of arXiv 1803.08494: two passes for the variance, and the
// gradient as a chain of partial derivatives rather than the closed form.
#pragma once

#include <cstdint>
#include <vector>

namespace convolt::reference {

// x is [pictures, pixels, C] with C the size of gamma; layer normalisation has one pixel and one group.
struct NormParams {
  std::vector<double> gamma, beta;
  int64_t pixels = 1, groups = 1;
  double eps = 1e-5;
};
std::vector<double> norm(const std::vector<double>& x, const NormParams& p);

struct NormGradients {
  std::vector<double> dx, dgamma, dbeta;
};
NormGradients norm_backward(const std::vector<double>& dy, const std::vector<double>& x, const NormParams& p);

}  // namespace convolt::reference
