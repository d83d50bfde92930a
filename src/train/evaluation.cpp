#include "convolt/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "convolt/error.h"
#include "core/finite.h"
#include "data/parallel_for.h"

namespace convolt {
namespace {

double ratio(int64_t a, int64_t b) { return static_cast<double>(a) / static_cast<double>(b); }

std::optional<double> ratio_or_none(int64_t a, int64_t b) { return b == 0 ? std::nullopt : std::optional(ratio(a, b)); }

// The rows that count.
struct Rows {
  std::span<const float> logits;
  std::span<const int32_t> labels;
  int64_t classes;
  int threads;

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  bool counts(int64_t i) const { return labels[static_cast<size_t>(i)] >= 0; }
  int32_t label(int64_t i) const { return labels[static_cast<size_t>(i)]; }
  std::span<const float> row(int64_t i) const {
    return logits.subspan(static_cast<size_t>(i * classes), static_cast<size_t>(classes));
  }
  template <class Body>
  void for_each(const Body& body) const {
    parallel_for(size(), threads, [&](int64_t i) {
      if (counts(i)) body(i);
    });
  }
};

void check(const Rows& rows, const EvaluationOptions& o) {
  if (rows.classes < 1 || static_cast<int64_t>(rows.logits.size()) != rows.size() * rows.classes)
    throw UsageError(fmt::format("evaluate() expects {} x {} logits for so many labels and classes, found {}",
                                 rows.size(), rows.classes, rows.logits.size()));
  if (o.top_k < 1 || o.bins < 1 || o.threads < 1)
    throw UsageError(fmt::format("evaluate() expects top_k, bins and threads of at least 1, found {}, {} and {}",
                                 o.top_k, o.bins, o.threads));
  for (int64_t i = 0; i < rows.size(); ++i) {
    if (rows.label(i) >= rows.classes)
      throw UsageError(fmt::format("row {}: label {} is none of {} classes", i, rows.label(i), rows.classes));
    if (rows.counts(i) && !all_finite(rows.row(i)))
      throw NonFiniteError(fmt::format(
          "the logits of sample {} are not finite; the weights are damaged, or the type overflows: try --dtype f32",
          i));
  }
}

// One row at softmax(b z), b = 1 / temperature.
struct Softened {
  double loss;        // log sum exp(b z) - b z_label
  double confidence;  // the largest probability
  double slope;       // d loss / d b: the mean of z, less z_label
  double curvature;   // d2 loss / d b2: the variance of z
};

Softened soften(std::span<const float> z, int32_t label, double b) {
  const double top = *std::ranges::max_element(z);
  double sum = 0, first = 0, second = 0;
  for (const float value : z) {
    const double below = static_cast<double>(value) - top, weight = std::exp(b * below);
    sum += weight;
    first += weight * below;
    second += weight * below * below;
  }
  const double mean = first / sum, own = static_cast<double>(z[static_cast<size_t>(label)]) - top;
  return {std::log(sum) - b * own, 1 / sum, mean - own, second / sum - mean * mean};
}

struct Slope {
  double value = 0, derivative = 0;
};

// Of the mean loss by b.
Slope slope_at(const Rows& rows, double b) {
  std::vector<Slope> each(rows.labels.size());
  rows.for_each([&](int64_t i) {
    const Softened s = soften(rows.row(i), rows.label(i), b);
    each[static_cast<size_t>(i)] = {s.slope, s.curvature};
  });
  Slope sum;  // in the order of the rows, whoever computed them
  for (const Slope& s : each) {
    sum.value += s.value;
    sum.derivative += s.derivative;
  }
  return sum;
}

// The loss is convex in b, so its slope has one zero at most: Newton's steps on log b, by bisection where they leave
// the bracket or hardly shrink it.
double best_temperature(const Rows& rows) {
  constexpr double kLargest = 4.605170185988091;  // log 100
  constexpr double kPrecision = 1e-6;
  double low = -kLargest, high = kLargest;
  if (const Slope s = slope_at(rows, 1); s.value == 0 && s.derivative == 0)
    return 1;  // no temperature changes anything
  if (slope_at(rows, std::exp(high)).value <= 0) return std::exp(-high);
  if (slope_at(rows, std::exp(low)).value >= 0) return std::exp(-low);
  double u = 0, last_step = high - low;
  constexpr int kMostSteps = 100;
  for (int i = 0; i < kMostSteps; ++i) {
    const double b = std::exp(u);
    const Slope s = slope_at(rows, b);
    if (s.value == 0) break;
    (s.value > 0 ? high : low) = u;
    double next = u - s.value / (s.derivative * b);
    if (!(next > low && next < high) || std::abs(next - u) > last_step / 2) next = (low + high) / 2;
    last_step = std::abs(next - u);
    u = next;
    if (last_step < kPrecision) break;
  }
  return std::exp(-u);
}

// Where each prediction went, with the losses at temperature 1 if `losses` is given.
Calibration calibration_of(const Rows& rows, const Evaluation& e, double temperature, int bins,
                           std::vector<double>* losses = nullptr) {
  std::vector<Softened> each(rows.labels.size(), Softened{});
  rows.for_each([&](int64_t i) { each[static_cast<size_t>(i)] = soften(rows.row(i), rows.label(i), 1 / temperature); });
  Calibration c;
  c.bins.resize(static_cast<size_t>(bins));
  for (int64_t i = 0; i < rows.size(); ++i) {
    if (!rows.counts(i)) continue;
    const Softened& s = each[static_cast<size_t>(i)];
    const int at = std::clamp(static_cast<int>(std::ceil(s.confidence * bins)) - 1, 0, bins - 1);
    CalibrationBin& bin = c.bins[static_cast<size_t>(at)];
    ++bin.count;
    bin.confidence += s.confidence;
    bin.accuracy += e.predicted[static_cast<size_t>(i)] == rows.label(i) ? 1 : 0;
    c.loss += s.loss;
    if (losses != nullptr) (*losses)[static_cast<size_t>(i)] = s.loss;
  }
  const auto samples = static_cast<double>(std::max<int64_t>(e.samples, 1));
  c.loss /= samples;
  for (CalibrationBin& bin : c.bins) {
    c.ece += std::abs(bin.accuracy - bin.confidence) / samples;
    const auto count = static_cast<double>(std::max<int64_t>(bin.count, 1));
    bin.confidence /= count;
    bin.accuracy /= count;
  }
  return c;
}

// How many classes come before the label.
int64_t rank_of(std::span<const float> z, int32_t label) {
  const auto own = static_cast<size_t>(label);
  int64_t rank = 0;
  for (size_t k = 0; k < z.size(); ++k) rank += z[k] > z[own] || (z[k] == z[own] && k < own) ? 1 : 0;
  return rank;
}

void count_predictions(const Rows& rows, Evaluation& e) {
  std::vector<int64_t> ranks(rows.labels.size());
  rows.for_each([&](int64_t i) {
    const auto z = rows.row(i);
    e.predicted[static_cast<size_t>(i)] = static_cast<int32_t>(std::ranges::max_element(z) - z.begin());
    ranks[static_cast<size_t>(i)] = rank_of(z, rows.label(i));
  });
  for (int64_t i = 0; i < rows.size(); ++i) {
    if (!rows.counts(i)) continue;
    const int64_t rank = ranks[static_cast<size_t>(i)];
    ++e.samples;
    e.top1.hits += rank == 0 ? 1 : 0;
    e.topk.hits += rank < e.top_k ? 1 : 0;
    ClassScores& own = e.per_class[static_cast<size_t>(rows.label(i))];
    ++own.support;
    own.correct += rank == 0 ? 1 : 0;
    ++e.per_class[static_cast<size_t>(e.predicted[static_cast<size_t>(i)])].predicted;
  }
  e.top1.of = e.topk.of = e.samples;
}

MacroScores macro_of(const std::vector<ClassScores>& classes) {
  MacroScores m;
  double seen = 0;
  for (const ClassScores& c : classes) {
    if (!c.f1()) continue;
    ++seen;
    m.precision += c.precision().value_or(0);
    m.recall += c.recall().value_or(0);
    m.f1 += *c.f1();
  }
  if (seen == 0) return m;
  return {m.precision / seen, m.recall / seen, m.f1 / seen};
}

}  // namespace

Interval Proportion::interval() const {
  if (of == 0) return {};
  constexpr double z = 1.959963984540054;  // the normal distribution's 97.5 % quantile
  const auto n = static_cast<double>(of);
  const double p = value(), scale = 1 + z * z / n, centre = (p + z * z / (2 * n)) / scale;
  const double half = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale;
  return {hits == 0 ? 0 : centre - half, hits == of ? 1 : centre + half};
}

std::optional<double> ClassScores::precision() const { return ratio_or_none(correct, predicted); }
std::optional<double> ClassScores::recall() const { return ratio_or_none(correct, support); }
std::optional<double> ClassScores::f1() const { return ratio_or_none(2 * correct, support + predicted); }

Evaluation evaluate(std::span<const float> logits, std::span<const int32_t> labels, int64_t classes,
                    const EvaluationOptions& options) {
  const Rows rows{logits, labels, classes, options.threads};
  check(rows, options);
  Evaluation e;
  e.classes = classes;
  e.top_k = static_cast<int>(std::min<int64_t>(options.top_k, classes));
  e.per_class.resize(static_cast<size_t>(classes));
  e.predicted.assign(labels.size(), -1);
  e.loss.assign(labels.size(), 0);
  count_predictions(rows, e);
  e.macro = macro_of(e.per_class);
  e.plain = calibration_of(rows, e, 1, options.bins, &e.loss);
  e.temperature = best_temperature(rows);
  e.scaled = calibration_of(rows, e, e.temperature, options.bins);
  return e;
}

std::vector<int64_t> confusion_matrix(std::span<const int32_t> labels, std::span<const int32_t> predicted,
                                      int64_t classes) {
  constexpr int64_t kMostClasses = 1 << 20;
  if (classes < 1 || classes > kMostClasses || labels.size() != predicted.size())
    throw UsageError("a confusion matrix is of 1 to 2^20 classes and as many labels as predictions, found " +
                     std::to_string(classes) + ", " + std::to_string(labels.size()) + " and " +
                     std::to_string(predicted.size()));
  std::vector<int64_t> matrix(static_cast<size_t>(classes * classes));
  for (size_t i = 0; i < labels.size(); ++i)
    if (labels[i] >= classes || (labels[i] >= 0 && (predicted[i] < 0 || predicted[i] >= classes)))
      throw UsageError("row " + std::to_string(i) + " of a confusion matrix has label " + std::to_string(labels[i]) +
                       " and prediction " + std::to_string(predicted[i]) + ", but there are " +
                       std::to_string(classes) + " classes");
  for (size_t i = 0; i < labels.size(); ++i)
    if (labels[i] >= 0) ++matrix[static_cast<size_t>(labels[i] * classes + predicted[i])];
  return matrix;
}

std::vector<double> softmax(std::span<const float> logits) {
  std::vector<double> p(logits.begin(), logits.end());
  if (p.empty()) return p;
  const double top = *std::ranges::max_element(p);
  for (double& x : p) x = std::exp(x - top);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

}  // namespace convolt
