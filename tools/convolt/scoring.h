// A network measured on a data set, for the commands that show how good it is.
#pragma once

#include "convolt/evaluation.h"
#include "flags.h"

namespace convolt::cli {

struct Scores {
  std::vector<float> logits;    // [samples of the data set, classes]; of skipped pictures meaningless
  std::vector<int32_t> labels;  // -1 for skipped pictures
  EvalResult result;
  Evaluation evaluation;
  std::vector<BadSample> bad_samples;
};

// The validation pictures; those of training where there are no others (then `validation` becomes false).
std::unique_ptr<Dataset> open_for_evaluation(const DataFlags& data, bool* validation = nullptr);

// Whether `data` is what the network was trained on; then its validation part is that of the training, where no flag
// says otherwise.
bool split_as_trained(const FlagSet& flags, const ModelCard& card, DataFlags& data);

// Runs the network over all samples, with a count on stderr where that is a terminal and `quiet` does not forbid it.
// Throws DataError when the data set has more classes than the network, or no picture that can be read.
Scores score(const Network& network, const Dataset& data, const std::string& path, const EvalOptions& options,
             int top_k, bool quiet);

// Pictures are decoded and viewed as in the validation of the training that left the checkpoint, where no flag says
// otherwise.
EvalOptions eval_options(const FlagSet& flags, const DeviceFlags& device, const DataFlags& data, int views,
                         const Network& network);

// The name of a class; its number where it has none.
std::string class_name(const ModelCard& card, int64_t index);
// Those of all classes, for people to read.
std::vector<std::string> printable_names(const ModelCard& card);

}  // namespace convolt::cli
