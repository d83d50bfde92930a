// torch.optim.SGD in double, with dampening 0.
#pragma once

#include <vector>

namespace convolt::reference {

struct Sgd {
  double rate = 0.1, momentum = 0.9, weight_decay = 0;
  bool nesterov = false;
  // Updates the weights w and the moments v (0 at the start) by the gradient g.
  void step(std::vector<double>& w, std::vector<double>& v, const std::vector<double>& g) const;
};

}  // namespace convolt::reference
