// Checkpoints are safetensors files: weights under torchvision's names in torchvision's layout, so that others can load
// them, and everything needed to go on, as metadata and under "optim.".
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convolt/augment.h"
#include "convolt/autotune.h"
#include "convolt/models.h"
#include "convolt/optimizer.h"
#include "convolt/params.h"
#include "convolt/plan.h"
#include "convolt/schedule.h"

namespace convolt {

// What a network needs to be used again.
struct ModelCard {
  std::string model;                     // a name of models(), or what the network file was called
  std::string network;                   // the text of the network file; empty for a name of models()
  int64_t classes = 0;                   // outputs
  int channels = 3;                      // of the network's input
  int height = 0, width = 0;             // of training; linear layers after flatten() are tied to it
  std::vector<std::string> class_names;  // by index; may be fewer than `classes`
  AugmentOptions preprocessing;          // of evaluation: geometry none or resize_centre_crop
  std::string configuration;             // JSON: the options of the run
};

// Of a network of one's own, which its checkpoints then hold (write_network()): sizes and outputs are the graph's. The
// names may be fewer than the classes. Throws UsageError for a layer that has no description, and where preprocessing
// and graph do not fit.
ModelCard card_of(const Graph& graph, const AugmentOptions& preprocessing, std::vector<std::string> class_names = {});
// Throws UsageError where a card says other classes or channels than the graph has, or has more names than classes;
// classes of 0 become the graph's.
void fit_card(ModelCard& card, const Graph& graph);

// The model of a card, without the file that it may have come from. Throws UsageError for an unknown name.
ModelInfo model_of(const ModelCard& card);

// A checkpoint that is kept since it was among the best.
struct KeptCheckpoint {
  int64_t step = 0;  // at the end of its epoch
  double value = 0;  // of the metric
  // All of it equal.
  friend bool operator==(const KeptCheckpoint&, const KeptCheckpoint&) = default;
};

// Where a training stands.
struct TrainingState {
  int64_t step = 0;         // updates done (or skipped)
  bool epoch_open = false;  // the epoch that ends with this step is not validated yet
  // Of the best epoch so far: its top-1 (-1 without validation), its step (-1 before the first), and its value of the
  // metric that decides, if that is finite.
  double best_top1 = -1;
  int64_t best_step = -1;
  std::optional<double> best_value;
  std::string best_metric = "top1";
  int64_t epochs_since_best = 0;
  std::vector<KeptCheckpoint> kept;  // the best first
  // Params::batches_tracked, StepStatus and the plateau schedule.
  int64_t batches_tracked = 0;
  float loss_scale = 1;
  int32_t good_steps = 0, skipped_steps = 0;
  // Steps that were skipped since their loss was not finite: in all, and just now; what they made of the rate.
  int32_t bad_steps = 0, bad_in_a_row = 0;
  float rate_factor = 1;
  PlateauState plateau;
  // The training plan's sums: now, at the last line of metrics, and at the start of the epoch.
  MeterValues meters, reported, epoch_base;
  // Bits repeat for one instruction set and number of compute threads, and one decoder.
  std::string device;  // "cpu avx512, 2 threads"
  // What convolutions and linear layers are computed by, of training, validation and teacher: bits repeat for the same
  // kernels.
  KernelChoices kernels;
};

// Weights and card; with an optimizer also its moments ("optim.<moment>.<parameter>"), its average ("ema.<parameter>")
// and the state. Written to a temporary file, then renamed. Synchronises. Throws NonFiniteError for weights or an
// average that are not finite, UsageError for a card without a network or a state without an optimizer, and Error
// where the file cannot be written. Class names that are not UTF-8 are kept as far as they are.
void save_checkpoint(const std::string& path, const Params& params, const ModelCard& card,
                     const Optimizer* optimizer = nullptr, const TrainingState* state = nullptr);

// Throws FormatError when the file is no checkpoint of Convolt.
ModelCard read_card(const std::string& path);

// What load_weights() lets pass.
struct LoadOptions {
  bool strict = true;     // else missing parameters keep their values and unexpected tensors are passed over
  bool finetune = false;  // the head (the last layer with parameters) keeps its values where its outputs differ
};
// What load_weights() let pass.
struct LoadReport {
  std::vector<std::string> missing, unexpected;  // strict: both are empty
  std::vector<std::string> kept;                 // of the head
};
// Reads the weights of any safetensors file by name (f32, f16, bf16, f64). Throws FormatError that lists missing,
// unexpected and mis-shaped names, or names a tensor that is not finite; "num_batches_tracked", "optim.", "ema." and
// what the options say is optional. Parameters are set when all has been looked at.
LoadReport load_weights(const std::string& path, Params& params, const LoadOptions& options = {});

// A network with its weights, ready to be compiled into plans.
struct Network {
  ModelCard card;                  // what it is
  std::unique_ptr<Graph> graph;    // its layers
  std::unique_ptr<Params> params;  // its weights
};
// The network of a card with the weights of a safetensors file, and that of a checkpoint. The context must outlive it.
// Throws what model_of(), read_card() and load_weights() throw.
Network load_network(Context& context, const ModelCard& card, const std::string& weights);
Network load_network(Context& context, const std::string& checkpoint);

// Weights, moments, average and state of a checkpoint that has them. Throws FormatError where it lacks what the
// optimizer keeps, or was made with another kind of optimizer, or with an average that this one does not keep.
TrainingState load_training(const std::string& path, Params& params, Optimizer& optimizer);

}  // namespace convolt
