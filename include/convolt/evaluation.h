// What the logits of a data set say about a network: accuracy with its uncertainty, scores of each class, confusions,
// calibration. Pure functions on the host, in double; the same bits for any number of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace convolt {

// A range of fractions.
struct Interval {
  double low = 0, high = 1;  // ends, both inside
};

// `hits` of `of` samples.
struct Proportion {
  int64_t hits = 0, of = 0;  // counts
  // hits / of; 0 of nothing.
  double value() const { return of == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(of); }
  // Wilson's score interval at 95 % (E. B. Wilson, JASA 22(158), 1927): unlike value +- 1.96 sigma it stays inside 0..1
  // and is not empty where every sample hits. 0 to 1 of nothing.
  Interval interval() const;
};

// How one class fared.
struct ClassScores {
  int64_t support = 0;    // samples of the class
  int64_t predicted = 0;  // samples taken for it
  int64_t correct = 0;    // both
  // correct / predicted; none where nothing was taken for the class.
  std::optional<double> precision() const;
  // correct / support; none without a sample.
  std::optional<double> recall() const;
  // Their harmonic mean, 2 correct / (support + predicted); none where both are 0.
  std::optional<double> f1() const;
};

// Means over the classes that some sample has or was taken for, none counting as 0: scikit-learn's macro average with
// zero_division=0.
struct MacroScores {
  double precision = 0, recall = 0, f1 = 0;  // 0 to 1
};

// The samples of one range of confidence.
struct CalibrationBin {
  int64_t count = 0;                    // samples
  double confidence = 0, accuracy = 0;  // means over its samples; 0 without any
};

// Of the probabilities softmax(logits / temperature).
struct Calibration {
  double loss = 0;  // mean cross-entropy in nats
  // Expected calibration error: the mean over the samples of |accuracy - confidence| of their bin (C. Guo et al., "On
  // calibration of modern neural networks", ICML 2017). Confidence is the largest probability; bin m of M holds
  // confidences in (m/M, (m+1)/M].
  double ece = 0;
  std::vector<CalibrationBin> bins;  // by confidence, ascending
};

// What evaluate() looks at.
struct EvaluationOptions {
  int top_k = 5;    // at least 1; more than there are classes means all of them
  int bins = 15;    // of calibration
  int threads = 1;  // of the host; the same bits for any number
};

// What logits and labels tell of a network.
struct Evaluation {
  int64_t classes = 0;  // outputs
  int64_t samples = 0;  // rows that counted
  int top_k = 0;        // at most `classes`
  // The label counts when fewer than k classes have a larger logit, or an equal one and a smaller index.
  Proportion top1, topk;
  std::vector<ClassScores> per_class;  // [classes]
  MacroScores macro;
  Calibration plain;  // at temperature 1
  // The temperature that minimises the loss on these very samples (Guo et al.), within 0.01 to 100: below 1 for a
  // network that is less sure than it could be. Fitted where it is measured, so `scaled` flatters a little.
  double temperature = 1;
  Calibration scaled;  // at that temperature
  // Of each row; -1 and 0 for rows that do not count.
  std::vector<int32_t> predicted;
  std::vector<double> loss;
};

// Logits f32 [N, K] and labels [N]; rows with a negative label do not count. Throws UsageError where sizes or labels do
// not fit, and NonFiniteError, with the row, for logits that are not finite.
Evaluation evaluate(std::span<const float> logits, std::span<const int32_t> labels, int64_t classes,
                    const EvaluationOptions& options = {});

// [K, K], row: label, column: prediction. Rows with a negative label do not count. Throws UsageError where sizes differ
// or a label or prediction is no class.
std::vector<int64_t> confusion_matrix(std::span<const int32_t> labels, std::span<const int32_t> predicted,
                                      int64_t classes);

// Probabilities of one row of logits; none of none.
std::vector<double> softmax(std::span<const float> logits);

}  // namespace convolt
