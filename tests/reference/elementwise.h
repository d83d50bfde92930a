// Element-wise operations in double.
#pragma once

#include <vector>

#include "activation.h"

namespace convolt::reference {

std::vector<double> activation(const std::vector<double>& x, Act act);
// dx from the input x; at kinks as activation_backward says in kernels/activation.h.
std::vector<double> activation_backward(const std::vector<double>& dy, const std::vector<double>& x, Act act);
std::vector<double> add(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace convolt::reference
