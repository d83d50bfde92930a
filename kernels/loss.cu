#include "loss.h"

#include "exec/log_softmax.h"

namespace convolt {
namespace {

constexpr int kThreads = kRowThreads;

// The part of one class in a row's loss, and its derivative: by the log-probability in the losses by softmax, by the
// logit in the others.
struct Term {
  float value, slope;
};

// log(1 + e^-x).
HD float softplus_of_minus(float x) { return log1pf(expf(-fabsf(x))) + fmaxf(-x, 0.F); }
HD float logistic(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0 ? e : 1.F) / (1.F + e);
}

// The smoothed target of a row's label,
struct OneLabel {
  int label;
  float hard, soft;
  HD float of(int64_t k) const { return soft + (k == label ? hard : 0.F); }
};
// and whose it is in a mixed row, with the part of its own: the same twice where nothing is mixed. Where a label is
// invalid the part is no number, of classes that exist.
struct LabelPair {
  int own, other;
  float part;
};

// What the rows of a batch count for.
template <bool kMixed>
struct BatchRows {
  int64_t rows;
  int classes;
  LossArgs o;

  HD bool valid(int label) const { return label >= 0 && label < classes; }
  HD float row_weight(int64_t n) const {
    const float weight = o.input->weights[n];
    return weight > 0 && !(o.ignores && !o.dense && o.input->labels[n] == o.ignore_index) ? weight : 0.F;
  }
  // How much of the row's target is its own label.
  HD float part_of(int64_t n) const { return kMixed && o.input->mixes != nullptr ? o.input->mixes[n].part : 1.F; }
  HD int label_of(int64_t n) const { return valid(o.input->labels[n]) ? o.input->labels[n] : -1; }
  HD int other_label_of(int64_t n) const { return label_of(part_of(n) < 1.F ? rows - 1 - n : n); }

  // The class weight of the row's label; of a mixed row, of each label for its part.
  HD float label_weight(int64_t n) const {
    const int own = label_of(n), other = other_label_of(n);
    const float part = part_of(n), of_own = own < 0 ? 1.F : o.class_weights[own];
    return other == own ? of_own : part * of_own + (1.F - part) * (other < 0 ? 1.F : o.class_weights[other]);
  }

  // The weights of the rows that count, and what their loss divides by. The host's sum does not know which rows are
  // ignored, nor the weights of their classes. Each block looks at all rows again, which is little beside its logits
  // and saves a launch.
  HD void sum_weights(const Block<kThreads>& block, RowShared& shared, float& sum, float& divisor) const {
    const bool by_class = o.class_weights && o.kind == LossKind::cross_entropy && !o.dense;
    if (by_class || o.ignores)
      return sum_pairs(block, shared, rows, sum, divisor, [&](int64_t n, float& weights, float& of_loss) {
        const float weight = row_weight(n);
        if (!(weight > 0)) return;
        weights += weight;
        of_loss += by_class ? weight * label_weight(n) : weight;
      });
    block.phase_of(1, [&](int) { sum = divisor = o.input->weight_sum; });
  }
};

// One block for each row: its loss, its place in the meters and its gradient. Two labels cost registers that a row of
// one has better uses for.
template <class T, bool kMixed>
struct LossRow : BatchRows<kMixed> {
  using BatchRows<kMixed>::classes, BatchRows<kMixed>::o, BatchRows<kMixed>::valid, BatchRows<kMixed>::label_of,
      BatchRows<kMixed>::other_label_of, BatchRows<kMixed>::part_of;
  static constexpr int kBlocksPerProcessor = blocks_elsewhere(9);
  struct Shared {
    RowShared row;
    float weight_sum, divisor;  // of the batch: what its mean is of, and what this loss divides by
    Normaliser plain, cool, teacher;
    float value, slope;  // sums of the terms
    float divergence, unused;
    int label;       // that the row is counted by
    LabelPair pair;  // of mixed rows
    float ahead;     // classes that rank before the label
  };
  const T* logits;
  T* dlogits;                        // may be null
  float share, inverse_temperature;  // 1 / classes, 1 / temperature: divided once, on the host

  HD bool given() const { return o.given_losses != nullptr; }
  HD bool by_softmax() const { return !given() && (o.kind == LossKind::cross_entropy || o.kind == LossKind::focal); }
  HD float class_weight(int k) const { return o.class_weights ? o.class_weights[k] : 1.F; }

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    const int64_t n = block.index;
    const T* x = logits + n * classes;
    const float weight = this->row_weight(n);
    if (!(weight > 0)) return write_nothing(block, n);
    this->sum_weights(block, shared.row, shared.weight_sum, shared.divisor);
    find_label(block, shared, x, n);
    if (by_softmax()) normalise(block, shared.row, x, classes, 1.F, shared.plain);
    sum_terms(block, shared, x, n);
    if (o.distill_alpha > 0) compare_with_teacher(block, shared, x, n);
    count_ahead(block, shared, x);
    block.phase_of(1, [&](int) {
      float* out = o.row_values + n * 4;
      out[0] = loss(shared);
      out[1] = weight;
      out[2] = shared.ahead < 1 ? 1.F : 0.F;
      out[3] = shared.ahead < 5 ? 1.F : 0.F;
    });
    if (dlogits) write_gradient(block, shared, x, n, weight);
  }

  HD void write_nothing(const Block<kThreads>& block, int64_t n) const {
    for_each_column(block, 4, [&](int64_t k) { o.row_values[n * 4 + k] = 0; });
    if (dlogits) for_each_column(block, classes, [&](int64_t k) { dlogits[n * classes + k] = T(0.F); });
  }

  HD void sum_terms(const Block<kThreads>& block, Shared& shared, const T* x, int64_t n) const {
    if (given()) return block.phase_of(1, [&](int) { shared.value = o.given_losses[n]; });
    if (is_plain()) return sum_plain_terms(block, shared, x);
    sum_pairs(block, shared.row, classes, shared.value, shared.slope, [&](int64_t k, float& value, float& slope) {
      const Term term = term_of(shared, x, n, static_cast<int>(k));
      value += term.value;
      slope += term.slope;
    });
  }

  // Cross-entropy of labels, by far the most frequent, has loops that know what they compute, and so vectorise.
  HD bool is_plain() const {
    return o.kind == LossKind::cross_entropy && !o.dense && !kMixed && !given() && !(o.distill_alpha > 0);
  }
  HD void sum_plain_terms(const Block<kThreads>& block, Shared& shared, const T* x) const {
    sum_pairs(
        block, shared.row, classes, shared.value, shared.slope,
        [target = one_label(shared), p = shared.plain, c = o.class_weights, x](int64_t k, float& value, float& slope) {
          const float weight = target.of(k) * (c ? c[k] : 1.F);
          const float term = weight * p.log_probability(static_cast<float>(x[k]));
          value -= choose(weight == 0, 0.F, term);  // also where the probability is 0
          slope -= weight;
        });
  }
  HD void write_plain_gradient(const Block<kThreads>& block, const Shared& shared, const T* x, T* out,
                               float own) const {
    const auto write = [&](auto weight_of) {
      for_each_column(
          block, classes,
          [target = one_label(shared), p = shared.plain, slope = shared.slope, x, out, own, weight_of](int64_t k) {
            const float weight = target.of(k) * weight_of(k);
            const float probability = fast_exp(p.log_probability(static_cast<float>(x[k])));
            out[k] = T(own * (-weight - probability * slope));
          });
    };
    if (o.class_weights)
      write([c = o.class_weights](int64_t k) { return c[k]; });
    else
      write([](int64_t) { return 1.F; });
  }

  HD void mix_labels(Shared& shared, int64_t n) const {
    const int own = label_of(n), other = other_label_of(n);
    const float part = part_of(n);
    shared.label = part < 0.5F ? other : own;
    shared.pair = {own, other, part};
    if (own < 0 || other < 0) shared.pair = {0, 0, NAN};
  }

  // -1 for none: the label is invalid, or no class of several is positive.
  HD void find_label(const Block<kThreads>& block, Shared& shared, const T* x, int64_t n) const {
    if (!o.dense)
      return block.phase_of(1, [&](int) {
        shared.label = label_of(n);
        if constexpr (kMixed) mix_labels(shared, n);
      });
    const float* target = o.input->targets + n * classes;
    const bool several = o.kind == LossKind::binary_cross_entropy || o.kind == LossKind::sigmoid_focal;
    block.phase([&](int t) {
      float best = -INFINITY;
      int index = -1;
      for (int k = t; k < classes; k += kThreads) {
        if (several && !(target[k] >= 0.5F)) continue;
        const float v = several ? static_cast<float>(x[k]) : target[k];
        if (index < 0 || v > best) best = v, index = k;
      }
      shared.row.a[t] = best;
      shared.row.index[t] = index;
    });
    tree(block, kThreads, [&](int t, int u) {
      const int mine = shared.row.index[t], other = shared.row.index[u];
      const bool equal = shared.row.a[u] == shared.row.a[t];
      if (other < 0 || (mine >= 0 && !(shared.row.a[u] > shared.row.a[t] || (equal && other < mine)))) return;
      shared.row.a[t] = shared.row.a[u];
      shared.row.index[t] = other;
    });
    block.phase_of(1, [&](int) { shared.label = shared.row.index[0]; });
  }

  HD void count_ahead(const Block<kThreads>& block, Shared& shared, const T* x) const {
    const int label = shared.label;
    const float own = label < 0 ? NAN : static_cast<float>(x[label]);
    sum_pairs(block, shared.row, classes, shared.ahead, shared.unused, [=](int64_t j, float& count, float&) {
      const auto v = static_cast<float>(x[j]);
      count += (!(v <= own)) | ((v == own) & (j < label)) ? 1.F : 0.F;  // a NaN is no lucky guess
    });
    if (label < 0) block.phase_of(1, [&](int) { shared.ahead = INFINITY; });
  }

  HD OneLabel one_label(const Shared& shared) const {
    return {shared.label, 1.F - o.smoothing, shared.label < 0 ? NAN : o.smoothing * share};
  }
  HD float target_of(const Shared& shared, int64_t n, int k) const {
    if constexpr (kMixed) {
      const LabelPair& pair = shared.pair;
      const float hard = 1.F - o.smoothing, own = k == pair.own ? pair.part * hard : 0.F;
      return o.smoothing * share + own + (k == pair.other ? (1.F - pair.part) * hard : 0.F);
    }
    if (!o.dense) return one_label(shared).of(k);
    return (1.F - o.smoothing) * o.input->targets[n * classes + k] + o.smoothing * share;
  }

  HD Term term_of(const Shared& shared, const T* x, int64_t n, int k) const {
    const float t = target_of(shared, n, k), v = static_cast<float>(x[k]);
    if (by_softmax()) return softmax_term(shared.plain.log_probability(v), t * class_weight(k));
    Term term = o.kind == LossKind::binary_cross_entropy ? binary_term(v, t, k)
                : o.kind == LossKind::sigmoid_focal      ? sigmoid_focal_term(v, t)
                                                         : Term{(v - t) * (v - t), 2.F * (v - t)};
    return {term.value * share, term.slope * share};
  }

  HD Term softmax_term(float log_p, float weight) const {
    if (weight == 0) return {0, 0};  // also where log_p is -infinity
    if (o.kind == LossKind::cross_entropy) return {-weight * log_p, -weight};
    // With q = 1 - p: d(q^gamma log p) / dlog p = q^gamma (1 - gamma p log p / q); log p / q is -1 in the limit of p
    // = 1.
    const float q = -expm1f(log_p), power = o.focal_gamma == 0 ? 1.F : powf(q, o.focal_gamma);
    const float ratio = q == 0 ? -1.F : log_p / q;
    return {-weight * power * log_p, -weight * power * (1.F - o.focal_gamma * expf(log_p) * ratio)};
  }

  HD Term binary_term(float x, float t, int k) const {
    if (o.target_threshold >= 0 && t == t) t = t > o.target_threshold ? 1.F : 0.F;  // an invalid label stays no number
    const float positive = 1.F + ((o.positive_weights ? o.positive_weights[k] : 1.F) - 1.F) * t, c = class_weight(k);
    return {c * ((1.F - t) * x + positive * softplus_of_minus(x)), c * ((1.F - t) - positive * logistic(-x))};
  }

  // The binary cross-entropy ce times a_t q^gamma, with q = 1 - p_t the probability of the wrong side.
  HD Term sigmoid_focal_term(float x, float t) const {
    const float p = logistic(x), not_p = logistic(-x), q = t * not_p + (1.F - t) * p;
    const float ce = (1.F - t) * x + softplus_of_minus(x), power = o.focal_gamma == 0 ? 1.F : powf(q, o.focal_gamma);
    const float a = o.focal_alpha < 0 ? 1.F : o.focal_alpha * t + (1.F - o.focal_alpha) * (1.F - t);
    const float ratio = q == 0 ? 1.F : ce / q;
    return {a * power * ce, a * power * ((p - t) - o.focal_gamma * ratio * (2.F * t - 1.F) * p * not_p)};
  }

  // sum_k q_k (log q_k - log p_k) of the teacher's q and the student's p, both at the temperature.
  HD void compare_with_teacher(const Block<kThreads>& block, Shared& shared, const T* x, int64_t n) const {
    const float inverse = inverse_temperature;
    const float* z = o.input->teacher + n * classes;
    normalise(block, shared.row, x, classes, inverse, shared.cool);
    normalise(block, shared.row, z, classes, inverse, shared.teacher);
    sum_pairs(block, shared.row, classes, shared.divergence, shared.unused, [&](int64_t k, float& sum, float&) {
      const float log_q = shared.teacher.log_probability(z[k] * inverse);
      const float log_p = shared.cool.log_probability(static_cast<float>(x[k]) * inverse), q = fast_exp(log_q);
      if (q != 0) sum += q * (log_q - log_p);
    });
  }

  // In the meters the mean is taken by weight_sum.
  HD float loss(const Shared& shared) const {
    const float own = shared.divisor > 0 ? shared.value * (shared.weight_sum / shared.divisor) : 0.F;
    if (!(o.distill_alpha > 0)) return own;
    return (1.F - o.distill_alpha) * own + o.distill_alpha * o.temperature * o.temperature * shared.divergence;
  }

  HD void write_gradient(const Block<kThreads>& block, const Shared& shared, const T* x, int64_t n,
                         float weight) const {
    const float scale = weight * o.status->loss_scale;
    const float own = shared.divisor > 0 ? (1.F - o.distill_alpha) * scale / shared.divisor : 0.F;
    const float taught = shared.weight_sum > 0 ? o.distill_alpha * o.temperature * scale / shared.weight_sum : 0.F;
    const float inverse = inverse_temperature;
    if (is_plain()) return write_plain_gradient(block, shared, x, dlogits + n * classes, own);
    for_each_column(block, classes, [&](int64_t k) {
      const auto v = static_cast<float>(x[k]);
      float slope = given() ? o.given_gradient[n * classes + k] : term_of(shared, x, n, static_cast<int>(k)).slope;
      if (by_softmax()) slope -= fast_exp(shared.plain.log_probability(v)) * shared.slope;
      float g = own * slope;
      if (o.distill_alpha > 0) {
        const float z = o.input->teacher[n * classes + k] * inverse;
        g +=
            taught * (fast_exp(shared.cool.log_probability(v * inverse)) - fast_exp(shared.teacher.log_probability(z)));
      }
      dlogits[n * classes + k] = T(g);
    });
  }
};

// One block adds the rows to the meters, in double and in a fixed order, and notes a bad step and what the update will
// have to know of the batch.
template <bool kMixed>
struct AddMeters {
  static constexpr int kRows = kThreads;
  struct Shared {
    double sums[4][kRows];
    int bad[kRows];
    RowShared row;
    float weight_sum, divisor;
  };
  BatchRows<kMixed> batch;

  HD void operator()(Block<kRows> block, Shared& shared) const {
    batch.sum_weights(block, shared.row, shared.weight_sum, shared.divisor);
    block.phase([&](int t) {
      double sums[4] = {};
      int bad = 0;
      for (int64_t n = t; n < batch.rows; n += kRows) {
        const float* v = batch.o.row_values + n * 4;
        const auto weight = static_cast<double>(v[1]);
        if (weight > 0) {
          bad |= !(fabsf(v[0]) < INFINITY);
          sums[0] += weight * static_cast<double>(v[0]);
          sums[1] += weight;
          sums[2] += weight * static_cast<double>(v[2]);
          sums[3] += weight * static_cast<double>(v[3]);
        }
      }
      for (int k = 0; k < 4; ++k) shared.sums[k][t] = sums[k];
      shared.bad[t] = bad;
    });
    tree(block, kRows, [&](int t, int u) {
      for (int k = 0; k < 4; ++k) shared.sums[k][t] += shared.sums[k][u];
      shared.bad[t] |= shared.bad[u];
    });
    block.phase([&](int t) {
      if (t != 0) return;
      const StepInput* const input = batch.o.input;
      StepStatus* const status = batch.o.status;
      Meters* const meters = batch.o.meters;
      status->loss_weight = shared.divisor;
      status->gradient_weight = (input->micro_batch == 0 ? 0.F : status->gradient_weight) + shared.divisor;
      if (shared.bad[0]) {
        if (status->first_bad_step < 0) status->first_bad_step = input->step;
        status->last_bad_step = input->step;
        if (batch.o.leaves_out_bad) return;
      }
      meters->loss += shared.sums[0][0];
      meters->weight += shared.sums[1][0];
      meters->top1 += shared.sums[2][0];
      meters->top5 += shared.sums[3][0];
    });
  }
};

template <class T>
struct SoftmaxRow {
  struct Shared {
    RowShared row;
    Normaliser normaliser;
  };
  const T* logits;
  float* probabilities;
  int classes;

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    const T* x = logits + block.index * classes;
    float* out = probabilities + block.index * classes;
    normalise(block, shared.row, x, classes, 1.F, shared.normaliser);
    for_each_column(block, classes, [p = shared.normaliser, x, out](int64_t j) {
      out[j] = fast_exp(p.log_probability(static_cast<float>(x[j])));
    });
  }
};

template <class T, bool kMixed>
void run_loss(Stream s, const LossArgs& args) {
  const int64_t rows = args.logits.shape[0];
  const auto classes = static_cast<int>(args.logits.shape[1]);
  const BatchRows<kMixed> batch{rows, classes, args};
  for_each_block_then<kThreads>(s, rows,
                                LossRow<T, kMixed>{batch, args.logits.as<const T>(), args.dlogits.as<T>(),
                                                   1.F / static_cast<float>(classes), 1.F / args.temperature},
                                AddMeters<kMixed>{batch});
}

}  // namespace

void loss_and_gradient(Stream s, const LossArgs& args) {
  if (args.mixed && (args.dense || args.ignores || args.given_losses != nullptr))
    throw UsageError("a mixed loss takes every row's label, and no dense targets or losses from elsewhere");
  dispatch_float(args.logits.dtype, "loss", [&](auto t) {
    using T = decltype(t);
    args.mixed ? run_loss<T, true>(s, args) : run_loss<T, false>(s, args);
  });
}

void softmax(Stream s, const Tensor& logits, float* probabilities) {
  const auto classes = static_cast<int>(logits.shape[1]);
  dispatch_float(logits.dtype, "softmax", [&](auto t) {
    using T = decltype(t);
    for_each_block<kThreads>(s, logits.shape[0], SoftmaxRow<T>{logits.as<const T>(), probabilities, classes});
  });
}

}  // namespace convolt
