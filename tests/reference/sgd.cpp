#include "reference/sgd.h"

#include <cstddef>

namespace convolt::reference {

void Sgd::step(std::vector<double>& w, std::vector<double>& v, const std::vector<double>& g) const {
  for (size_t i = 0; i < w.size(); ++i) {
    const double decayed = g[i] + weight_decay * w[i];
    v[i] = momentum * v[i] + decayed;
    w[i] -= rate * (nesterov ? decayed + momentum * v[i] : v[i]);
  }
}

}  // namespace convolt::reference
