// Softmax cross-entropy in double.
#pragma once

#include <cstdint>
#include <vector>

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

}  // namespace convolt::reference
