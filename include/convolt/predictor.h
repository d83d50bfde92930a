// A trained network that answers pictures: it decodes them, prepares them as its card says and runs them in batches.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "convolt/autotune.h"
#include "convolt/checkpoint.h"
#include "convolt/context.h"
#include "convolt/dataset.h"
#include "convolt/graph.h"
#include "convolt/params.h"

namespace convolt {

// How pictures are computed.
struct PredictorOptions {
  int batch = 16;            // pictures that pass through the network together, at least 1; any number may be asked for
  int workers = 2;           // decode threads, at least 1
  DType dtype = DType::f32;  // of activations: f32, bf16 or f16
  bool tf32 = false;         // f32 on CUDA may multiply in tf32
  DecodeOptions decode;      // how files become pixels
  int views = 1;             // of which each picture's logits are the mean, as EvalOptions'
  KernelOptions kernels;     // how convolutions and linear layers get theirs
};

// What the network says about one picture.
struct Prediction {
  std::vector<float> logits;  // [classes]; empty where the picture could not be read
  std::string error;          // then why, without the picture's name

  // Softmax of the logits, computed in double.
  std::vector<double> probabilities() const;
  // The classes with the `count` largest logits, or all if there are fewer: largest first, equal ones by index.
  std::vector<int> top(int count = 1) const;
};

// All methods are thread-safe; calls take turns. Device memory is allocated by the constructor, and for pictures by the
// first batches that need more than any before.
class Predictor {
public:
  // A checkpoint of training: network, weights, classes and preprocessing. The context must outlive it. Throws
  // DataError or FormatError for the file, UsageError for options out of range.
  Predictor(Context& context, const std::string& checkpoint, const PredictorOptions& options = {});
  // A network in memory, such as one that is being trained: its weights are shared, not copied. Params must outlive it,
  // and must not be trained while predict() runs. UsageError where the card has other classes or channels than the
  // graph; classes of 0 are the graph's. The card's preprocessing must be what the network was trained with: nothing
  // else can tell.
  Predictor(const Graph& graph, Params& params, const ModelCard& card, const PredictorOptions& options = {});
  ~Predictor();
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;
  // Not while predict() runs; one that was moved from can be destroyed or assigned to, no more.
  Predictor(Predictor&&) noexcept;
  Predictor& operator=(Predictor&&) noexcept;

  // Classes, their names and the size of the network's input.
  const ModelCard& card() const;

  // Called on the thread of predict(), in the order of the pictures; must not ask this predictor again (UsageError).
  using Answer = std::function<void(int64_t i, const Prediction& prediction)>;
  // Answers all samples of a data set; labels are not looked at. A sample whose read() or decoding throws DataError
  // gets an error in place of logits and keeps no other from its answer.
  void predict(const Dataset& pictures, const Answer& answer);
  // The same for pictures in memory, files or raw pixels.
  std::vector<Prediction> predict(std::span<const RawSample> pictures);
  // The same for picture files.
  std::vector<Prediction> predict_files(const std::vector<std::string>& paths);

private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace convolt
