// The losses in double.
#pragma once

#include <cstdint>
#include <vector>

#include "convolt/loss.h"

namespace convolt::reference {

// Probabilities of logits [rows, classes].
std::vector<double> softmax(const std::vector<double>& logits, int64_t classes);

struct XentResult {
  double loss = 0;                 // sum_n weight_n * row_loss_n / sum of weights; 0 where no row counts
  std::vector<double> row_losses;  // -sum_k target_k log p_k, 0 in rows of weight 0
  std::vector<double> dlogits;     // of `loss`
  double top1 = 0, top5 = 0;       // weighted counts
};
// target = (1 - smoothing) * onehot(label) + smoothing / classes.
XentResult softmax_xent(const std::vector<double>& logits, int64_t classes, const std::vector<int32_t>& labels,
                        const std::vector<double>& weights, double smoothing);

// A batch of any loss.
struct LossCase {
  LossOptions options;
  int64_t classes = 0;
  std::vector<double> weights;
  std::vector<int32_t> labels;
  std::vector<double> targets;  // dense
  std::vector<double> teacher;  // logits
};
// By the formulas of convolt/loss.h, one row and one class after the other.
double loss(const LossCase& c, const std::vector<double>& logits);
// Its gradient, by central differences of it.
std::vector<double> loss_gradient(const LossCase& c, const std::vector<double>& logits);

}  // namespace convolt::reference
