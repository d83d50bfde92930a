// Flags that several subcommands share, and what they resolve to.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config.h"
#include "convolt/convolt.h"
#include "flag_set.h"
#include "policy_flags.h"

namespace convolt::cli {

// How convolutions and linear layers get their kernels.
struct KernelFlags {
  std::optional<std::string> autotune, workspace_limit;
  bool deterministic = false, no_cuda_graph = false;

  void add(FlagSet& flags);
  // Warns of one thing once, whatever number of plans comes upon it.
  KernelOptions options() const;
};

struct DeviceFlags {
  std::string device = "auto";
  std::string dtype = "f32";
  bool amp = false;
  int threads = 0;
  KernelFlags kernels;

  // `described`: devices of conv/described_device.h may be named too. `chooses`: with the flags of kernels.
  void add(FlagSet& flags, bool described = false, bool chooses = true);
  bool is_described() const;
  bool on_cuda() const;  // or on a described device
  std::unique_ptr<Context> make_context() const;
  DType type() const;  // f32 for tf32
  bool tf32() const { return dtype == "tf32"; }
};

struct MemoryFlags {
  std::optional<std::string> budget;

  // `otherwise`: what holds without the flag.
  void add(FlagSet& flags, const std::string& otherwise);
  std::optional<int64_t> bytes() const;
};

struct DecodeFlags {
  void add(FlagSet& flags);
  // What is not given becomes that of the training that left the checkpoint: its validation saw pictures so.
  void follow(const FlagSet& flags, const ModelCard& card);
  DecodeOptions options() const;

private:
  DecodeOptions options_;
  std::vector<float> background_;
};

struct DataParts {
  std::unique_ptr<Dataset> training, validation;  // null where there is none
};

// Which samples an epoch shows.
struct OrderFlags {
  std::string sampler = "shuffle";
  int repeats = 1;

  void add(FlagSet& flags);
  Sampler sampling() const;
};

// What decodes JPEGs.
struct DecoderFlag {
  std::string name = "auto";

  void add(FlagSet& flags);
  Decoder decoder() const;
  // "cpu" or "nvjpeg": what auto means today.
  std::string resolved() const;
};

// What a loader may take of the host's memory.
struct LoaderMemoryFlag {
  std::optional<std::string> size;

  void add(FlagSet& flags);
  int64_t bytes() const;  // 0: any number
};

struct DataFlags {
  std::string path, validation_path, format = "auto";
  int batch = 128;
  int workers = 0;  // 0: as many as cores
  DecodeFlags decode;
  DecoderFlag decoder;
  LoaderMemoryFlag memory;
  bool resident = false;
  double validation_split = 0;  // of the training set; 0: the validation set is the data's own
  uint64_t split_seed = 0;
  int64_t limit = 0;  // pictures, 0: all
  double fraction = 1;
  bool no_index = false;
  OrderFlags order;

  void add(FlagSet& flags, bool training);
  int worker_count() const;
  // As open_dataset(), or a part of the training set by --val-split.
  std::unique_ptr<Dataset> open(Split part) const;
  // What training needs: each data set is looked at once. The validation set may lie elsewhere.
  DataParts open_parts() const;
  // What --limit and --fraction leave of it.
  std::unique_ptr<Dataset> limited(std::unique_ptr<Dataset> data) const;

private:
  std::unique_ptr<Dataset> open_whole(const std::string& from, Split part) const;
  DataParts split() const;
};

// --no-index, and how a data set is opened under it: with a line of progress on a terminal while an index is made.
void add_no_index(FlagSet& flags, bool& no_index);
void add_max_pixels(FlagSet& flags, int64_t& max_pixels);
std::unique_ptr<Dataset> open_indexed(const DatasetOptions& options, bool no_index, int threads);

// How pictures become the network's input; what is not given comes from the model's recipe (training) or the
// checkpoint.
struct PictureFlags {
  std::optional<int> train_crop, val_crop, val_resize;
  std::vector<float> mean, std, fill;
  std::optional<std::string> interpolation, border;

  void add(FlagSet& flags, bool training);
  void apply_to(AugmentOptions& evaluation) const;
};

// How training pictures grow, by FFCV's names.
struct RampFlags {
  std::optional<int> least, start, end, step;

  void add(FlagSet& flags);
  SizeRamp options() const;
};

// --views of evaluation, prediction and validation.
void add_views(FlagSet& flags, int& views);

// A flag that is not given takes its value from the training that left a checkpoint, where that says it. T: bool, int,
// int64_t or std::vector<float>.
template <class T>
void take_from_run(const FlagSet& flags, const ModelCard& card, const std::string& flag, T& value);

// Decoding and views of an evaluation or prediction: as the flags say, else as in the validation of that training.
template <class Options>
void see_as_trained(const FlagSet& flags, const ModelCard& card, DecodeFlags decode, int views, Options& options) {
  decode.follow(flags, card);
  options.decode = decode.options();
  options.views = views;
  take_from_run(flags, card, "views", options.views);
}

// 0 stands for as many as there are cores.
int threads_or_cores(int threads);

struct AugmentFlags {
  bool none = false, alternating_flip = false;
  std::optional<int> crop_padding;
  std::vector<float> scale, ratio, zoom, shear, color_jitter;
  std::optional<float> hflip, vflip, rotate, translate, grayscale, erase;
  PolicyFlags policy;

  void add(FlagSet& flags);
};

// How a training mixes its pictures.
struct MixFlags {
  float mixup = 0, cutmix = 0, prob = 1, switch_prob = 0.5F;
  std::string mode = "batch";
  int off_epoch = 0;

  void add(FlagSet& flags);
  MixOptions options() const;
};

// Height and width that all pictures share, as far as a look at some of them tells; 0 x 0 when they differ.
std::pair<int, int> common_size(const Dataset& data);

// The pictures of evaluation and of training for a model on a data set.
struct Pipeline {
  AugmentOptions training, evaluation;
};
Pipeline make_pipeline(const ModelInfo& model, const Dataset& data, const PictureFlags& pictures,
                       const AugmentFlags& augment);
// How a model's training sees pictures where nothing is said, of that size.
AugmentOptions usual_pictures(const ModelInfo& model, int side, int channels);
// The flags of pictures and augmentation that give the same pipeline whatever the model's recipe.
void resolve(const Pipeline& pipeline, Resolved& resolved);

// A network to evaluate: from --checkpoint, or --model with --weights.
struct NetworkFlags {
  std::string checkpoint, model, weights;
  int64_t classes = 0;

  void add(FlagSet& flags);
  // Throws UsageError unless they name one network.
  void check() const;
};
// `data` (may be null) tells classes and channels where no checkpoint does.
Network load_network(const NetworkFlags& flags, const PictureFlags& pictures, Context& context, const Dataset* data);

// What is minimised.
struct LossFlags {
  std::string kind = "ce", class_weights, teacher;
  float smoothing = 0, focal_gamma = 2, distill_alpha = 0.5F, temperature = 4;
  std::optional<float> target_threshold;

  void add(FlagSet& flags);
  // For `classes` outputs, of which the data set has labels of the first ones. Throws UsageError or FormatError.
  LossOptions options(const Dataset& data, int64_t classes) const;
  // The network of --teacher, none where there is none; warns where it was trained on pictures of another size or
  // normalisation than it will see.
  std::optional<Network> load_teacher(Context& context, const AugmentOptions& pictures) const;
};

// Prints "warning: ..." to stderr.
void warn(const std::string& message);
// Lists samples that could not be used, the first few by name.
void report_bad_samples(const std::vector<BadSample>& bad);

}  // namespace convolt::cli
