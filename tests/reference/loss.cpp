#include "reference/loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace convolt::reference {
namespace {

// The place of `label` when the classes are sorted by falling logit, then by rising index.
int64_t place_of(const double* x, int64_t classes, int32_t label) {
  std::vector<int64_t> order(static_cast<size_t>(classes));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return x[a] > x[b]; });
  return std::find(order.begin(), order.end(), label) - order.begin();
}

}  // namespace

std::vector<double> softmax(const std::vector<double>& logits, int64_t classes) {
  std::vector<double> p = logits;
  for (auto row = p.begin(); row != p.end(); row += classes) {
    const double largest = *std::max_element(row, row + classes);
    double sum = 0;
    for (auto v = row; v != row + classes; ++v) sum += * v = std::exp(*v - largest);
    for (auto v = row; v != row + classes; ++v) *v /= sum;
  }
  return p;
}

XentResult softmax_xent(const std::vector<double>& logits, int64_t classes, const std::vector<int32_t>& labels,
                        const std::vector<double>& weights, double smoothing) {
  const std::vector<double> p = softmax(logits, classes);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  XentResult r;
  r.row_losses.resize(labels.size());
  r.dlogits.resize(logits.size());
  for (size_t n = 0; n < labels.size(); ++n) {
    if (weights[n] == 0) continue;
    const size_t first = n * static_cast<size_t>(classes);
    for (int32_t k = 0; k < classes; ++k) {
      const size_t i = first + static_cast<size_t>(k);
      const double target = (k == labels[n] ? 1 - smoothing : 0) + smoothing / static_cast<double>(classes);
      if (target > 0) r.row_losses[n] -= target * std::log(p[i]);
      r.dlogits[i] = (p[i] - target) * weights[n] / total;
    }
    r.loss += weights[n] * r.row_losses[n] / total;
    const int64_t place = place_of(&logits[first], classes, labels[n]);
    if (place < 1) r.top1 += weights[n];
    if (place < 5) r.top5 += weights[n];
  }
  return r;
}

namespace {

double target_of(const LossCase& c, size_t n, size_t k) {
  const auto classes = static_cast<size_t>(c.classes);
  const double t = c.options.target == LossOptions::Target::dense ? c.targets[n * classes + k]
                                                                  : (static_cast<size_t>(c.labels[n]) == k ? 1 : 0);
  const auto s = static_cast<double>(c.options.smoothing);
  const double smoothed = c.options.smoothing == 0 ? t : (1 - s) * t + s / static_cast<double>(c.classes);
  if (!c.options.target_threshold) return smoothed;
  return smoothed > static_cast<double>(*c.options.target_threshold) ? 1 : 0;
}

double weight_of(const std::vector<float>& weights, size_t k) {
  return weights.empty() ? 1 : static_cast<double>(weights[k]);
}

double class_loss(const LossOptions& o, double x, double p, double t, size_t k) {
  const auto gamma = static_cast<double>(o.focal_gamma), alpha = static_cast<double>(o.focal_alpha);
  const double c = weight_of(o.class_weights, k);
  const double log_s = x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)), log_not_s = log_s - x;
  const double s = std::exp(log_s), not_s = std::exp(log_not_s);
  switch (o.kind) {
    case LossKind::cross_entropy:
      return t == 0 ? 0 : -c * t * std::log(p);
    case LossKind::focal:
      return t == 0 ? 0 : -c * t * std::pow(1 - p, gamma) * std::log(p);
    case LossKind::binary_cross_entropy:
      return -c * (weight_of(o.positive_weights, k) * t * log_s + (1 - t) * log_not_s);
    case LossKind::sigmoid_focal: {
      const double p_t = s * t + not_s * (1 - t), ce = -t * log_s - (1 - t) * log_not_s;
      return (alpha < 0 ? 1 : alpha * t + (1 - alpha) * (1 - t)) * ce * std::pow(1 - p_t, gamma);
    }
    case LossKind::mean_squared_error:
      return (x - t) * (x - t);
  }
  return NAN;
}

double divergence(const double* teacher, const double* student, size_t classes, double temperature) {
  std::vector<double> z(teacher, teacher + classes), x(student, student + classes);
  for (double& v : z) v /= temperature;
  for (double& v : x) v /= temperature;
  const auto q = softmax(z, static_cast<int64_t>(classes)), p = softmax(x, static_cast<int64_t>(classes));
  double sum = 0;
  for (size_t k = 0; k < classes; ++k) sum += q[k] * std::log(q[k] / p[k]);
  return sum;
}

}  // namespace

double loss(const LossCase& c, const std::vector<double>& logits) {
  const LossOptions& o = c.options;
  const auto classes = static_cast<size_t>(c.classes);
  const std::vector<double> p = softmax(logits, c.classes);
  const bool by_softmax = o.kind == LossKind::cross_entropy || o.kind == LossKind::focal;
  const bool dense = o.target == LossOptions::Target::dense;
  const auto alpha = static_cast<double>(o.distill_alpha), temperature = static_cast<double>(o.temperature);
  double sum = 0, divisor = 0, taught = 0, total = 0;
  for (size_t n = 0; n < c.weights.size(); ++n) {
    if (c.weights[n] == 0 || (o.ignore_index && c.labels[n] == *o.ignore_index)) continue;
    double row = 0;
    for (size_t k = 0; k < classes; ++k)
      row += class_loss(o, logits[n * classes + k], p[n * classes + k], target_of(c, n, k), k);
    sum += c.weights[n] * (by_softmax ? row : row / static_cast<double>(classes));
    const bool by_class = o.kind == LossKind::cross_entropy && !dense;
    divisor += c.weights[n] * (by_class ? weight_of(o.class_weights, static_cast<size_t>(c.labels[n])) : 1);
    total += c.weights[n];
    if (alpha > 0)
      taught += c.weights[n] * divergence(&c.teacher[n * classes], &logits[n * classes], classes, temperature);
  }
  if (divisor == 0) return 0;
  return (1 - alpha) * sum / divisor + alpha * temperature * temperature * taught / total;
}

std::vector<double> loss_gradient(const LossCase& c, const std::vector<double>& logits) {
  constexpr double kStep = 1e-5;
  std::vector<double> gradient, x = logits;
  for (double& v : x) {
    const double kept = v;
    v = kept + kStep;
    const double above = loss(c, x);
    v = kept - kStep;
    gradient.push_back((above - loss(c, x)) / (2 * kStep));
    v = kept;
  }
  return gradient;
}

}  // namespace convolt::reference
