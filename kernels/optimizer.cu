#include "optimizer.h"

#include "exec/begin_update.h"
#include "exec/lamb.h"
#include "muon.h"

namespace convolt {
namespace {

constexpr int kPackets = kOptimizerTile / 8;  // of one tile

template <int W>
HD void store_as(void* p, DType dtype, int64_t i, const Floats<W>& v) {
  if (dtype == DType::bf16) return store(static_cast<bf16*>(p) + i, v);
  if (dtype == DType::f16) return store(static_cast<f16*>(p) + i, v);
  store(static_cast<float*>(p) + i, v);
}

// Packets [first, last) of each tile of f.
template <class F>
struct ForPackets {
  F f;
  HD void run(int64_t index, int first, int last) const {
    if (!f.active()) return;
    const OptimizerPiece tile = f.tiles[index];
    const auto place = f.at(tile.tensor);
    for (int packet = first; packet < last && packet * 8 < tile.count; ++packet) {
      const int64_t at = tile.first + packet * 8;
      if (at + 8 <= place.tensor.elements) {
        f.template run<8>(place, at);
      } else {
        for (int64_t i = at; i < place.tensor.elements; ++i) f.template run<1>(place, i);
      }
    }
  }
};
// On the GPU a thread for each four elements, on the CPU one for each tile: weights and moments are f32, of which
// neighbouring threads then write neighbouring 16 bytes.
constexpr int kQuads = kOptimizerTile / 4;
template <class F>
struct OneQuad {
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(3);
  F f;
  HD void operator()(int64_t k) const {
    if (!f.active()) return;
    const int64_t index = k / kQuads;
    const int first = static_cast<int>(k % kQuads) * 4;
    const OptimizerPiece tile = f.tiles[index];
    if (first >= tile.count) return;
    const auto place = f.at(tile.tensor);
    const int64_t at = tile.first + first;
    if (at + 4 <= place.tensor.elements) {
      f.template run<4>(place, at);
    } else {
      for (int64_t i = at; i < place.tensor.elements; ++i) f.template run<1>(place, i);
    }
  }
};
template <class F>
struct WholeTile : ForPackets<F> {
  HD void operator()(int64_t k) const { this->run(k, 0, kPackets); }
};

// f.run<8>(f.at(tensor), i), or run<4>, for each whole packet of each tile while f.active(), run<1> for the tails.
template <class F>
void for_each_packet_of_tiles(Stream s, int64_t tiles, F f) {
  if (s.cuda)
    for_each_on_cuda(s, tiles * kQuads, OneQuad<F>{f});
  else
    for_each_on_cpu(tiles, WholeTile<F>{{f}}, kOptimizerTile);
}

struct Accumulate {
  const OptimizerTensor* tensors;
  const OptimizerPiece* tiles;
  const StepInput* input;
  const StepStatus* status;

  struct Place {
    OptimizerTensor tensor;
    float weight;
    bool first;
  };
  HD bool active() const { return true; }
  HD Place at(int32_t index) const { return {tensors[index], status->loss_weight, input->micro_batch == 0}; }
  template <int W>
  HD void run(const Place& p, int64_t i) const {
    const OptimizerTensor& t = p.tensor;
    if (!t.gradient) return;
    const Floats<W> g = load_as<W>(t.gradient, t.gradient_dtype, i);
    auto sum = zeros<W>();
    if (!p.first) sum = load_ahead<W>(t.gradient_sum + i);
    for_lanes<W>([&](int j) { sum[j] += p.weight * g[j]; });
    store(t.gradient_sum + i, sum);
  }
};

template <OptimizerKind K>
struct Update {
  const OptimizerTensor* tensors;
  const OptimizerPiece* tiles;
  const UpdateScalars* scalars;
  const float* factors;  // of adaptive clipping, or null
  const float* ratios;
  const float* keeps;
  const float* directions;  // muon's
  float momentum, beta1, rest1, beta2, rest2, alpha, rest_alpha, eps, average_rest;
  bool nesterov;

  Update(const UpdateArgs& a, const Scratch& scratch)
      : tensors(a.tensors),
        tiles(a.tiles),
        scalars(scratch.scalars),
        factors(a.rule.clip_adaptive > 0 ? scratch.factors : nullptr),
        ratios(scratch.ratios),
        keeps(scratch.keeps),
        directions(scratch.values[a.rule.iterations % 2]),
        momentum(a.rule.momentum),
        beta1(static_cast<float>(a.rule.beta1)),
        rest1(static_cast<float>(1 - a.rule.beta1)),  // in double: 1 - 0.999F is off by 5e-5 of itself
        beta2(static_cast<float>(a.rule.beta2)),
        rest2(static_cast<float>(1 - a.rule.beta2)),
        alpha(static_cast<float>(a.rule.alpha)),
        rest_alpha(static_cast<float>(1 - a.rule.alpha)),
        eps(static_cast<float>(a.rule.eps)),
        average_rest(static_cast<float>(1 - a.rule.average_decay)),
        nesterov(a.rule.nesterov || K == OptimizerKind::muon) {}

  HD bool active() const { return scalars->apply != 0; }

  // Single scalars: a copy of them all, for the sake of one of the rates, would be one in memory.
  struct Place {
    OptimizerTensor tensor;
    float rate, gradient_scale, correction1, correction2;
    float factor;  // lars, lamb: the trust ratio; muon: of the weights
  };
  HD Place at(int32_t index) const {
    constexpr bool adapts = K == OptimizerKind::lars || K == OptimizerKind::lamb;
    const float factor = adapts ? ratios[index] : K == OptimizerKind::muon ? keeps[index] : 1.F;
    const OptimizerTensor& t = tensors[index];
    return {t, rate_of(*scalars, t), scalars->gradient_scale, scalars->correction1, scalars->correction2, factor};
  }

  template <int W>
  HD void run(const Place& p, int64_t i) const {
    const OptimizerTensor& t = p.tensor;
    Floats<W> w = load_ahead<W>(t.weight + i);
    if (t.gradient) {
      auto g = zeros<W>();
      if constexpr (K != OptimizerKind::lamb) {  // whose moments know the gradient already
        g = load_gradient<W>(t, i);
        for_lanes<W>([&](int j) { g[j] *= p.gradient_scale; });
        if (factors && t.unit > 0) clip(t, i, g);
      }
      step(p, i, w, g);
      store(t.weight + i, w);
      if (t.copy) store_as(t.copy, t.copy_dtype, i, w);
    }
    if (t.average) {
      Floats<W> average = load_ahead<W>(t.average + i);
      for_lanes<W>([&](int j) { average[j] += average_rest * (w[j] - average[j]); });
      store(t.average + i, average);
    }
  }

  template <int W>
  HD void clip(const OptimizerTensor& t, int64_t i, Floats<W>& g) const {
    const float* of_tensor = factors + t.first_piece;
    for (int j = 0; j < W; ++j) g[j] *= of_tensor[static_cast<uint32_t>(i + j) / static_cast<uint32_t>(t.unit)];
  }

  template <int W>
  HD void step(const Place& p, int64_t i, Floats<W>& w, Floats<W>& g) const {
    const OptimizerTensor& t = p.tensor;
    const float rate = p.rate, decay = t.weight_decay;
    if constexpr (K == OptimizerKind::sgd) {
      sgd(t, i, rate, w, g);
    } else if constexpr (K == OptimizerKind::muon) {
      if (t.rows == 0) return sgd(t, i, rate, w, g);
      const float keep = p.factor - rate * decay * p.factor;
      for (int j = 0; j < W; ++j) w[j] = keep * w[j] - rate * directions[t.values + place_in_matrix(t, i + j)];
    } else if constexpr (K == OptimizerKind::adam || K == OptimizerKind::adamw) {
      adam(p, i, rate, w, g);
    } else if constexpr (K == OptimizerKind::rmsprop) {
      rmsprop(t, i, rate, w, g);
    } else if constexpr (K == OptimizerKind::lars) {
      if (rate == 0) return;  // rates are in the momentum: that of what no longer learns would go on
      Floats<W> v = load_ahead<W>(t.moments[0] + i);
      const float local = rate * p.factor;
      for_lanes<W>([&](int j) {
        v[j] = momentum * v[j] + local * (g[j] + decay * w[j]);
        w[j] -= v[j];
      });
      store(t.moments[0] + i, v);
    } else if constexpr (K == OptimizerKind::lamb) {
      const Floats<W> m = load_ahead<W>(t.moments[0] + i), s = load_ahead<W>(t.moments[1] + i);
      const Floats<W> d = lamb_direction(p.correction1, p.correction2, eps, decay, m, s, w);
      const float local = rate * p.factor;
      for_lanes<W>([&](int j) { w[j] -= local * d[j]; });
    } else {
      Floats<W> m = load_ahead<W>(t.moments[0] + i);
      for_lanes<W>([&](int j) {
        const float c = beta1 * m[j] + rest1 * g[j];
        const float sign = c > 0 ? 1.F : c < 0 ? -1.F : c;  // NaN stays NaN
        w[j] -= rate * (sign + decay * w[j]);
        m[j] = beta2 * m[j] + rest2 * g[j];
      });
      store(t.moments[0] + i, m);
    }
  }

  template <int W>
  HD void sgd(const OptimizerTensor& t, int64_t i, float rate, Floats<W>& w, Floats<W>& g) const {
    const float decay = t.weight_decay, ahead = nesterov ? 1.F : 0.F, kept = nesterov ? momentum : 1.F;
    auto v = zeros<W>();
    if (t.moments[0]) v = load_ahead<W>(t.moments[0] + i);
    for_lanes<W>([&](int j) {
      g[j] += decay * w[j];
      v[j] = momentum * v[j] + g[j];
      w[j] -= rate * (ahead * g[j] + kept * v[j]);
    });
    if (t.moments[0]) store(t.moments[0] + i, v);
  }

  template <int W>
  HD void adam(const Place& p, int64_t i, float rate, Floats<W>& w, const Floats<W>& g) const {
    const OptimizerTensor& t = p.tensor;
    constexpr bool decoupled = K == OptimizerKind::adamw;
    const float into_gradient = decoupled ? 0.F : t.weight_decay, shrink = decoupled ? 1 - rate * t.weight_decay : 1.F;
    const float step_size = rate * p.correction1, correction2 = p.correction2;
    Floats<W> m = load_ahead<W>(t.moments[0] + i), s = load_ahead<W>(t.moments[1] + i);
    for_lanes<W>([&](int j) {
      const float d = g[j] + into_gradient * w[j];
      m[j] += rest1 * (d - m[j]);
      s[j] = beta2 * s[j] + rest2 * d * d;
    });
    const Floats<W> root = square_root(s);
    for_lanes<W>([&](int j) { w[j] = shrink * w[j] - step_size * (m[j] / (root[j] * correction2 + eps)); });
    store(t.moments[0] + i, m);
    store(t.moments[1] + i, s);
  }

  template <int W>
  HD void rmsprop(const OptimizerTensor& t, int64_t i, float rate, Floats<W>& w, const Floats<W>& g) const {
    const float decay = t.weight_decay;
    Floats<W> s = load_ahead<W>(t.moments[0] + i), v = zeros<W>(), d;
    if (t.moments[1]) v = load_ahead<W>(t.moments[1] + i);
    for_lanes<W>([&](int j) {
      d[j] = g[j] + decay * w[j];
      s[j] = alpha * s[j] + rest_alpha * d[j] * d[j];
    });
    const Floats<W> root = square_root(s);
    for_lanes<W>([&](int j) {
      v[j] = momentum * v[j] + d[j] / (root[j] + eps);
      w[j] -= rate * v[j];
    });
    store(t.moments[0] + i, s);
    if (t.moments[1]) store(t.moments[1] + i, v);
  }
};

template <OptimizerKind K>
void run_update(Stream s, const UpdateArgs& args, const Scratch& scratch) {
  for_each_packet_of_tiles(s, args.tile_count, Update<K>(args, scratch));
}

}  // namespace

int64_t update_scratch_bytes(const UpdateRule& rule, int64_t tensors, int64_t pieces, const MatrixSizes& matrices) {
  if (!rule.needs_sums()) return 256;
  return 256 + Scratch::sums_bytes(tensors, pieces) + 8 * (matrices.values + matrices.grams);
}

int update_launches(const UpdateRule& rule) {
  // What begins the update is the end of the pass over the gradients, unless another pass comes between.
  int more = rule.clip_adaptive > 0 ? 2 : 0;
  if (rule.kind == OptimizerKind::lars) more += 1;
  if (rule.kind == OptimizerKind::lamb) more += 2;
  if (rule.kind == OptimizerKind::muon) more += muon_launches(rule);
  return 2 + more;
}

void optimizer_update(Stream s, const UpdateArgs& args) {
  const UpdateRule& rule = args.rule;
  const bool lars = rule.kind == OptimizerKind::lars, lamb = rule.kind == OptimizerKind::lamb;
  const Scratch scratch(args);
  const SumSquares sums{args, scratch, lars || rule.clip_adaptive > 0};
  const BeginUpdate begin{args, scratch, rule.needs_norms() ? args.piece_count : 0};
  if (rule.needs_norms() && rule.clip_adaptive == 0) {
    for_each_block_then<SumSquares::kThreads>(s, args.piece_count, sums, begin);
  } else {
    if (rule.needs_norms()) for_each_block<SumSquares::kThreads>(s, args.piece_count, sums);
    if (rule.clip_adaptive > 0) for_each(s, args.piece_count, ClipUnits{args, scratch});
    for_each_block<BeginUpdate::kThreads>(s, 1, begin);
  }
  if (lamb) for_each_block<LambMoments::kThreads>(s, args.piece_count, LambMoments(args, scratch));
  if (lars || lamb) for_each_block<TrustRatio::kThreads>(s, args.tensor_count, TrustRatio{args, scratch});
  if (rule.kind == OptimizerKind::muon) muon_directions(s, args);
  switch (rule.kind) {
    case OptimizerKind::muon:
      return run_update<OptimizerKind::muon>(s, args, scratch);
    case OptimizerKind::sgd:
      return run_update<OptimizerKind::sgd>(s, args, scratch);
    case OptimizerKind::adam:
      return run_update<OptimizerKind::adam>(s, args, scratch);
    case OptimizerKind::adamw:
      return run_update<OptimizerKind::adamw>(s, args, scratch);
    case OptimizerKind::rmsprop:
      return run_update<OptimizerKind::rmsprop>(s, args, scratch);
    case OptimizerKind::lars:
      return run_update<OptimizerKind::lars>(s, args, scratch);
    case OptimizerKind::lion:
      return run_update<OptimizerKind::lion>(s, args, scratch);
    case OptimizerKind::lamb:
      return run_update<OptimizerKind::lamb>(s, args, scratch);
  }
}

void accumulate_gradients(Stream s, const UpdateArgs& args) {
  for_each_packet_of_tiles(s, args.tile_count, Accumulate{args.tensors, args.tiles, args.input, args.status});
}

}  // namespace convolt
