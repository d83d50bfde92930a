// Optimizers hold their moments beside a Params; the update itself is an op at the end of a training plan's step.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convolt/optimizer_kind.h"
#include "convolt/params.h"

namespace convolt {

// Settings of the parameters in whose names the pattern is found.
struct ParamGroup {
  std::string pattern;                // ECMAScript regular expression, searched for: "^layer1\\.", "bn", "bias$"
  float lr_scale = 1;                 // factor of the learning rate
  std::optional<float> weight_decay;  // in place of the optimizer's
  bool frozen = false;                // neither gradient nor update
  // > 0: trains for so many epochs only, with the learning rates of a training of that length; then its rate is 0.
  double epochs = 0;
};

// Which optimizer, and its numbers.
struct OptimizerOptions {
  using Kind = OptimizerKind;  // the formulas there are
  Kind kind = Kind::sgd;       // the formula
  float momentum = 0.9F;       // sgd, lars, rmsprop; muon: of what is no matrix
  bool nesterov = false;       // sgd; muon always has it
  float weight_decay = 0;      // not in the moments of adamw, lion, lamb and the matrices of muon
  // Weight decay of norms' scales and biases and of layer scales, and of the biases of convolutions and linear layers;
  // negative: as weight_decay.
  float norm_weight_decay = -1, bias_weight_decay = -1;
  std::optional<std::array<double, 2>> betas;  // adam, adamw, lamb [0.9, 0.999]; lion [0.9, 0.99]
  std::optional<double> eps;                   // adam, adamw, rmsprop [1e-8]; lamb [1e-6]
  double alpha = 0.99;                         // rmsprop
  float trust = 0.001F;                        // lars: the trust coefficient
  float muon_momentum = 0.95F;                 // muon: of the matrices
  int muon_iterations = 3;                     // muon: of Newton and Schulz
  bool muon_renormalise = false;               // muon: matrices are scaled to the norm sqrt(rows) before each update
  // > 0: all gradients together are shortened to this norm (torch's clip_grad_norm_) [0; lamb 1].
  std::optional<float> clip_norm;
  float clip_adaptive = 0;  // > 0: the gradient of each unit (a row of a weight, or a whole vector) is shortened to
                            // this part of the norm of its weights, but for the last layer (A. Brock et al., arXiv
                            // 2102.06171; eps 1e-3 as there)
  // Layers before the last learn slower, each by this factor (1: all alike). A layer is a block, of modules whose names
  // begin with the same numbers ("layer1.0", "block1.block1-0", "features.3"); outside of blocks a weight and the
  // vectors beside it. Of models that timm has too, these are about its layers.
  float layer_decay = 1;
  double ema_decay = 0;  // > 0: average() follows the weights
  BadStepPolicy bad_steps = BadStepPolicy::stop;
  // Every group that matches counts, in order: rates multiply, the last weight decay holds, one that freezes is enough.
  std::vector<ParamGroup> groups;
};

// What holds for what is not given, by the kind.
std::array<double, 2> betas_of(const OptimizerOptions& options);
double eps_of(const OptimizerOptions& options);
float clip_norm_of(const OptimizerOptions& options);

// The formulas are PyTorch's for sgd, adam, adamw and rmsprop, those of arXiv 1708.03888 for lars (vectors are not
// adapted), of arXiv 2302.06675 for lion and of K. Jordan's "Muon" (2024) for muon, whose matrices are the weights of
// convolutions, [outputs, all else], while linear layers and vectors learn by sgd, and timm's for lamb (arXiv
// 1904.00962); kernels/optimizer.h spells them out.
// The learning rates come with each step (StepInput). Params must outlive it.
class Optimizer {
public:
  // Throws UsageError for options that make no sense together and for a pattern that matches nothing.
  explicit Optimizer(Params& params, OptimizerOptions options = {});
  const OptimizerOptions& options() const { return options_; }
  Params& params() const { return *params_; }

  // What the options come to for one parameter.
  struct Settings {
    float lr_scale = 1, weight_decay = 0;  // factor of the learning rate; in force for it
    bool frozen = false;                   // neither gradient nor update
    bool clipped = true;                   // by clip_adaptive
    int rate = 0;  // which learning rate: 0 the common one, 1 + i that of own_epochs()[i] (StepInput::own_rates)
  };
  // Of parameter i.
  const Settings& settings(int i) const;
  // A trainable parameter that is not frozen.
  bool updates(int i) const;

  // The different ParamGroup::epochs, at most kOwnRates.
  const std::vector<double>& own_epochs() const { return own_epochs_; }
  // Whether muon makes parameter i orthogonal.
  bool is_matrix(int i) const;

  // Names of the moments that the kind keeps, in order: momentum | exp_avg, exp_avg_sq | square_avg ...
  const std::vector<std::string>& moments() const { return moments_; }
  // f32 [as the parameter]; parameter i must be trainable.
  Tensor moment(size_t which, int i) const;
  // Host values in file layout, as Params::values.
  std::vector<float> moment_values(size_t which, int i) const;
  void set_moment_values(size_t which, int i, const std::vector<float>& values);

  // Updates applied so far (steps skipped by loss scaling do not count); both synchronise.
  int64_t update_count() const;
  void set_update_count(int64_t count);
  int64_t* device_update_count() const { return count_.as<int64_t>(); }

  // The exponential moving average of weights and running statistics, equal to them at first; null without ema_decay.
  // After each update: average = ema_decay average + (1 - ema_decay) value.
  Params* average() const { return average_.get(); }

  // Bytes asked of the device allocator, the average's included.
  int64_t bytes() const;

private:
  Params* params_;
  OptimizerOptions options_;
  std::vector<Settings> settings_;
  std::vector<double> own_epochs_;
  std::vector<std::string> moments_;
  Buffer slab_;  // each moment as the trainable part of Params
  Buffer count_;
  std::unique_ptr<Params> average_;
};

}  // namespace convolt
