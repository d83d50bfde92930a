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

}  // namespace convolt::reference
