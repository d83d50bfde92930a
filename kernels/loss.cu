#include "loss.h"

#include "exec/block.h"

namespace convolt {
namespace {

constexpr int kThreads = 128;

// Joins shared values of all threads of a block into the one of thread 0, in a fixed tree: join(t, other).
template <int B, class F>
HD void tree(const Block<B>& block, F join) {
  for (int width = B / 2; width > 0; width /= 2)
    block.phase([&](int t) {
      if (t < width) join(t, t + width);
    });
}

// The sums over one row of K logits that softmax needs, found by one block.
struct RowSums {
  float largest[kThreads];
  float exps[kThreads];   // sum of exp(x - largest)
  float below[kThreads];  // sum of x - largest
};

// After this largest[0], exps[0] and below[0] hold the row's values. NaN and +infinity among the logits
// make exps[0] NaN.
template <class T>
HD void sum_row(const Block<kThreads>& block, RowSums& row, const T* x, int classes) {
  block.phase([&](int t) {
    float largest = -INFINITY;
    for (int j = t; j < classes; j += kThreads) largest = fmaxf(largest, static_cast<float>(x[j]));
    row.largest[t] = largest;
  });
  tree(block, [&](int t, int u) { row.largest[t] = fmaxf(row.largest[t], row.largest[u]); });
  block.phase([&](int t) {
    float exps = 0, below = 0;
    for (int j = t; j < classes; j += kThreads) {
      const float d = static_cast<float>(x[j]) - row.largest[0];
      exps += expf(d);
      below += d;
    }
    row.exps[t] = exps;
    row.below[t] = below;
  });
  tree(block, [&](int t, int u) {
    row.exps[t] += row.exps[u];
    row.below[t] += row.below[u];
  });
}

// One block for each row: its loss, its place in the meters and its gradient.
template <class T>
struct XentRow {
  struct Shared {
    RowSums row;
    int ahead[kThreads];  // classes that rank before the label
  };
  const T* logits;
  T* dlogits;  // may be null
  int classes;
  const StepInput* input;
  const StepStatus* status;
  float smoothing;
  float* row_values;

  HD void operator()(Block<kThreads> block, Shared& shared) const {
    const int64_t n = block.index;
    const T* x = logits + n * classes;
    const float weight = input->weights[n];
    // A row without weight may hold anything, its label too.
    const int label = weight > 0 ? input->labels[n] : 0;
    const bool valid = label >= 0 && label < classes;
    const float target = valid ? static_cast<float>(x[label]) : NAN;
    sum_row(block, shared.row, x, classes);
    count_ahead(block, shared, x, label, target);
    block.phase([&](int t) {
      if (t != 0) return;
      float* out = row_values + n * 4;
      out[0] = weight > 0 ? loss(shared.row, target) : 0.F;
      out[1] = weight > 0 ? weight : 0.F;
      out[2] = weight > 0 && valid && shared.ahead[0] < 1 ? 1.F : 0.F;
      out[3] = weight > 0 && valid && shared.ahead[0] < 5 ? 1.F : 0.F;
    });
    if (dlogits) write_gradient(block, shared.row, x, n, weight, valid ? label : -1);
  }

  HD void count_ahead(const Block<kThreads>& block, Shared& shared, const T* x, int label, float target) const {
    block.phase([&](int t) {
      int ahead = 0;
      for (int j = t; j < classes; j += kThreads) {
        const auto v = static_cast<float>(x[j]);
        if (!(v <= target) || (v == target && j < label)) ++ahead;  // a NaN is no lucky guess
      }
      shared.ahead[t] = ahead;
    });
    tree(block, [&](int t, int u) { shared.ahead[t] += shared.ahead[u]; });
  }

  // -sum_k target_k log p_k, with log p_k = x_k - largest - log(sum of exps).
  HD float loss(const RowSums& row, float target) const {
    const float log_sum = logf(row.exps[0]);
    const float hard = log_sum - (target - row.largest[0]);
    if (smoothing == 0) return hard;
    const float even = log_sum - row.below[0] / static_cast<float>(classes);
    return (1.F - smoothing) * hard + smoothing * even;
  }

  HD void write_gradient(const Block<kThreads>& block, const RowSums& row, const T* x, int64_t n, float weight,
                         int label) const {
    const float factor = weight > 0 ? weight / input->weight_sum * status->loss_scale : 0.F;
    const float even = smoothing / static_cast<float>(classes), inverse = 1.F / row.exps[0];
    const float invalid = label < 0 ? NAN : 0.F;
    block.phase([&](int t) {
      for (int j = t; j < classes; j += kThreads) {
        const float p = expf(static_cast<float>(x[j]) - row.largest[0]) * inverse;
        const float target = even + (j == label ? 1.F - smoothing : 0.F) + invalid;
        dlogits[n * classes + j] = T(weight > 0 ? (p - target) * factor : 0.F);
      }
    });
  }
};

// One block adds the rows to the meters, in double and in a fixed order, and latches the first bad step.
struct AddMeters {
  static constexpr int kRows = 256;
  struct Shared {
    double sums[4][kRows];
    int bad[kRows];
  };
  const float* row_values;
  int64_t rows;
  const StepInput* input;
  Meters* meters;
  StepStatus* status;

  HD void operator()(Block<kRows> block, Shared& shared) const {
    block.phase([&](int t) {
      double sums[4] = {};
      int bad = 0;
      for (int64_t n = t; n < rows; n += kRows) {
        const float* v = row_values + n * 4;
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
    tree(block, [&](int t, int u) {
      for (int k = 0; k < 4; ++k) shared.sums[k][t] += shared.sums[k][u];
      shared.bad[t] |= shared.bad[u];
    });
    block.phase([&](int t) {
      if (t != 0) return;
      meters->loss += shared.sums[0][0];
      meters->weight += shared.sums[1][0];
      meters->top1 += shared.sums[2][0];
      meters->top5 += shared.sums[3][0];
      if (shared.bad[0] && status->first_bad_step < 0) status->first_bad_step = input->step;
    });
  }
};

template <class T>
struct SoftmaxRow {
  using Shared = RowSums;
  const T* logits;
  float* probabilities;
  int classes;

  HD void operator()(Block<kThreads> block, RowSums& row) const {
    const T* x = logits + block.index * classes;
    float* out = probabilities + block.index * classes;
    sum_row(block, row, x, classes);
    block.phase([&](int t) {
      for (int j = t; j < classes; j += kThreads)
        out[j] = expf(static_cast<float>(x[j]) - row.largest[0]) / row.exps[0];
    });
  }
};

}  // namespace

void softmax_xent(Stream s, const SoftmaxXentArgs& args) {
  const int64_t rows = args.logits.shape[0];
  const auto classes = static_cast<int>(args.logits.shape[1]);
  dispatch_float(args.logits.dtype, "softmax_xent", [&](auto t) {
    using T = decltype(t);
    for_each_block<kThreads>(s, rows,
                             XentRow<T>{args.logits.as<const T>(), args.dlogits.as<T>(), classes, args.input,
                                        args.status, args.smoothing, args.row_values});
  });
  for_each_block<AddMeters::kRows>(s, 1, AddMeters{args.row_values, rows, args.input, args.meters, args.status});
}

void softmax(Stream s, const Tensor& logits, float* probabilities) {
  const auto classes = static_cast<int>(logits.shape[1]);
  dispatch_float(logits.dtype, "softmax", [&](auto t) {
    using T = decltype(t);
    for_each_block<kThreads>(s, logits.shape[0], SoftmaxRow<T>{logits.as<const T>(), probabilities, classes});
  });
}

}  // namespace convolt
