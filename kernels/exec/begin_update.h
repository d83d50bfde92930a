// What comes before an optimizer's update: norms of the gradients, and what follows from them for all tensors.
#pragma once

#include "exec/update.h"

namespace convolt {

// A block sums the squares of one piece, in double: exact to the last bits whatever the loss scale, and finite exactly
// where the gradients are.
struct SumSquares {
  static constexpr int kThreads = 64;
  struct Shared {
    PieceSums sums[kThreads];
  };
  UpdateArgs a;
  Scratch scratch;
  bool weights;

  template <int W>
  HD void add(const OptimizerTensor& t, int64_t i, GrowingSums& sums) const {
    sums.gradient.add(load_gradient<W>(t, i));
    if (weights) sums.weight.add(load<W>(t.weight + i));
  }

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    if (!last_micro_batch(*a.input)) return;
    const OptimizerPiece piece = a.pieces[block.index];
    const OptimizerTensor tensor = a.tensors[piece.tensor];
    sum_piece<8>(block, piece, shared.sums,
                 [&](auto width, int64_t i, GrowingSums& sums) { add<width.value>(tensor, i, sums); });
    block.phase([&](int t) {
      if (t == 0) scratch.sums[block.index] = shared.sums[0];
    });
  }
};

// The factor of each unit in adaptive clipping.
struct ClipUnits {
  UpdateArgs a;
  Scratch scratch;

  HD void operator()(int64_t i) const {
    if (!last_micro_batch(*a.input)) return;
    const auto scale = static_cast<double>(unscale(*a.input, *a.status));
    const double gradient = sqrt(scratch.sums[i].gradient) * scale;
    const double largest = static_cast<double>(a.rule.clip_adaptive) * fmax(sqrt(scratch.sums[i].weight), 1e-3);
    scratch.factors[i] = gradient > largest ? static_cast<float>(largest / fmax(gradient, 1e-6)) : 1.F;
  }
};

// One block settles what holds for all tensors: whether the update takes place, its number, the clipping of the whole.
struct BeginUpdate {
  static constexpr int kThreads = SumSquares::kThreads;
  struct Shared {
    double sums[kThreads];
  };
  UpdateArgs a;
  Scratch scratch;
  int64_t pieces;  // whose sums are known

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    if (!last_micro_batch(*a.input)) {
      block.phase([&](int t) {
        if (t == 0) scratch.scalars->apply = 0;
      });
      return;
    }
    block.phase([&](int t) {
      double sum = 0;
      for (int64_t i = t; i < pieces; i += kThreads) sum += scratch.sums[i].gradient;
      shared.sums[t] = sum;
    });
    for (int width = kThreads / 2; width > 0; width /= 2)
      block.phase([&](int t) {
        if (t < width) shared.sums[t] += shared.sums[t + width];
      });
    block.phase([&](int t) {
      if (t == 0) begin(shared.sums[0]);
    });
  }

  HD void begin(double squares) const {
    StepStatus& status = *a.status;
    UpdateScalars& scalars = *scratch.scalars;
    scalars.apply = 0;
    if (a.rule.bad_steps == BadStepPolicy::stop && status.first_bad_step >= 0) return;
    const bool overflow = a.rule.check_finite && !(squares < INFINITY);
    status.skip = overflow;
    // At a loss scale of 1 it is not the scale's doing.
    if (overflow && !(a.rule.scale_loss && status.loss_scale > 1)) status.last_bad_step = a.input->step;
    if (status.last_bad_step == a.input->step) return count_bad_step(status);
    status.bad_in_a_row = 0;
    float scale = unscale(*a.input, status);
    const double norm = sqrt(squares) * static_cast<double>(scale);
    status.gradient_norm = static_cast<float>(norm);
    if (a.rule.scale_loss) follow_loss_scale(status);
    if (overflow) return;
    if (a.rule.clip_norm > 0)
      scale *= static_cast<float>(fmin(1.0, static_cast<double>(a.rule.clip_norm) / (norm + 1e-6)));
    const auto number = static_cast<double>(++*a.updates);
    scalars.apply = 1;
    scalars.rates[0] = a.input->learning_rate * status.rate_factor;
    for (int i = 0; i < kOwnRates; ++i) scalars.rates[1 + i] = a.input->own_rates[i] * status.rate_factor;
    scalars.gradient_scale = scale;
    scalars.correction1 = static_cast<float>(1 / (1 - pow(a.rule.beta1, number)));
    scalars.correction2 = static_cast<float>(1 / sqrt(1 - pow(a.rule.beta2, number)));
  }

  HD void count_bad_step(StepStatus& status) const {
    if (status.first_bad_step < 0) status.first_bad_step = a.input->step;
    ++status.bad_steps;
    ++status.bad_in_a_row;
    if (status.skip) status.good_steps = 0;
    if (a.rule.bad_steps == BadStepPolicy::halve_rate) status.rate_factor /= 2;
  }

  HD static void follow_loss_scale(StepStatus& status) {
    if (status.skip) {
      status.loss_scale = fmaxf(status.loss_scale / 2, 1.F);
      status.good_steps = 0;
      ++status.skipped_steps;
    } else if (++status.good_steps == 2000) {
      status.loss_scale = fminf(status.loss_scale * 2, 0x1p24F);
      status.good_steps = 0;
    }
  }
};

// A block joins the norms of one tensor.
struct TrustRatio {
  static constexpr int kThreads = 64;
  struct Shared {
    PieceSums sums[kThreads];
  };
  UpdateArgs a;
  Scratch scratch;

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    if (!scratch.scalars->apply) return;
    const OptimizerTensor& tensor = a.tensors[block.index];
    join_pieces(block, tensor, scratch.sums, shared.sums);
    block.phase([&](int t) {
      if (t == 0) scratch.ratios[block.index] = ratio(tensor, shared.sums[0]);
    });
  }

  HD float ratio(const OptimizerTensor& t, const PieceSums& sums) const {
    const double weight = sqrt(sums.weight);
    if (a.rule.kind == OptimizerKind::lamb) {
      const double direction = sqrt(sums.gradient);
      const bool adapts = t.weight_decay > 0 && weight > 0 && direction > 0;
      return adapts ? static_cast<float>(weight / direction) : 1.F;
    }
    const double gradient = sqrt(sums.gradient) * static_cast<double>(scratch.scalars->gradient_scale);
    if (!t.adapts || !(weight > 0) || !(gradient > 0)) return 1;
    return static_cast<float>(static_cast<double>(a.rule.trust) * weight /
                              (gradient + static_cast<double>(t.weight_decay) * weight));
  }
};

}  // namespace convolt
