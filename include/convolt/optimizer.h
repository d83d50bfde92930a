// Optimizers hold their moments beside a Params; the update itself is an op at the end of a training plan's step.
#pragma once

#include "convolt/params.h"

namespace convolt {

struct SgdOptions {
  float momentum = 0.9F;
  bool nesterov = false;
  float weight_decay = 0;
  // Weight decay of norms' scales and biases; negative: as weight_decay.
  float norm_weight_decay = -1;
};

// Stochastic gradient descent as torch.optim.SGD: g += wd w; v = momentum v + g; w -= lr (nesterov ? g + momentum v :
// v). The learning rate comes with each step (StepInput). Params must outlive it.
class Sgd {
public:
  Sgd(Params& params, const SgdOptions& options);
  const SgdOptions& options() const { return options_; }
  Params& params() const { return *params_; }
  // f32 [as the parameter]; parameter i must be trainable.
  Tensor moment(int i) const;
  // Host values in file layout, as Params::values.
  std::vector<float> moment_values(int i) const;
  void set_moment_values(int i, const std::vector<float>& values);
  int64_t bytes() const { return moments_.bytes(); }

private:
  Params* params_;
  SgdOptions options_;
  Buffer moments_;
};

}  // namespace convolt
