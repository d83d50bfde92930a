// Element-wise operations in double.
#pragma once

#include <vector>

#include "activation.h"

namespace convolt::reference {

std::vector<double> activation(const std::vector<double>& x, Activation act);
// dx from the output y; 0 at both kinks.
std::vector<double> activation_backward(const std::vector<double>& dy, const std::vector<double>& y, Activation act);
std::vector<double> add(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace convolt::reference
