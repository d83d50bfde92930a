// LAMB's moments, and the direction that they and the weights give (optimizer.h). A direction's norm is wanted before
// the update takes it; the update computes it anew from the moments, for keeping it would need memory for all of them.
#pragma once

#include "exec/update.h"

namespace convolt {

template <int W>
HD Floats<W> lamb_direction(float correction1, float correction2, float eps, float decay, const Floats<W>& m,
                            const Floats<W>& s, const Floats<W>& w) {
  Floats<W> d = square_root(s);
  for_lanes<W>([&](int j) { d[j] = correction1 * m[j] / (d[j] * correction2 + eps) + decay * w[j]; });
  return d;
}

// A block brings the moments of one piece up to date, and sums the squares of its direction and of its weights.
struct LambMoments {
  static constexpr int kThreads = 128;
#if defined(__CUDA_ARCH__)
  static constexpr int kWidth = 4;  // neighbouring threads write neighbouring 16 bytes
#else
  static constexpr int kWidth = 8;
#endif
  struct Shared {
    PieceSums sums[kThreads];
  };
  UpdateArgs a;
  Scratch scratch;
  float rest1, beta2, rest2, eps;

  LambMoments(const UpdateArgs& args, const Scratch& scratch_of)
      : a(args),
        scratch(scratch_of),
        rest1(static_cast<float>(1 - a.rule.beta1)),
        beta2(static_cast<float>(a.rule.beta2)),
        rest2(static_cast<float>(1 - a.rule.beta2)),
        eps(static_cast<float>(a.rule.eps)) {}

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    const UpdateScalars& scalars = *scratch.scalars;
    if (!scalars.apply) return;
    const OptimizerPiece piece = a.pieces[block.index];
    const OptimizerTensor& tensor = a.tensors[piece.tensor];
    sum_piece<kWidth>(block, piece, shared.sums,
                      [&](auto width, int64_t i, GrowingSums& sums) { step<width.value>(tensor, scalars, i, sums); });
    block.phase([&](int t) {
      if (t == 0) scratch.sums[block.index] = shared.sums[0];
    });
  }

  template <int W>
  HD void step(const OptimizerTensor& t, const UpdateScalars& scalars, int64_t i, GrowingSums& sums) const {
    const Floats<W> g = load_gradient<W>(t, i), w = load_ahead<W>(t.weight + i);
    Floats<W> m = load_ahead<W>(t.moments[0] + i), s = load_ahead<W>(t.moments[1] + i);
    for_lanes<W>([&](int j) {
      const float d = scalars.gradient_scale * g[j];
      m[j] += rest1 * (d - m[j]);
      s[j] = beta2 * s[j] + rest2 * d * d;
    });
    store(t.moments[0] + i, m);
    store(t.moments[1] + i, s);
    sums.gradient.add(lamb_direction(scalars.correction1, scalars.correction2, eps, t.weight_decay, m, s, w));
    sums.weight.add(w);
  }
};

}  // namespace convolt
