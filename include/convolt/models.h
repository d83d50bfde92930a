// Networks by name. Parameter names are torchvision's (CIFAR's resnets: those of Y. Idelbayev's reference
// implementation; se_resnet50: timm's), so that weights move both ways.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convolt/augment.h"
#include "convolt/graph.h"

namespace convolt {

// What is asked of a model.
struct ModelOptions {
  int64_t classes = 1000;     // 0: the model's usual number
  int height = 0, width = 0;  // 0: the model's usual size
  int channels = 3;           // of the pictures: 3, or 1
  // Stochastic depth (G. Huang et al., arXiv 1603.09382): the chance with which the last residual block is dropped for
  // a picture, 0 to below 1; it rises in equal steps from 0 at the first (EfficientNet would reach it a block after the
  // last). Without it the model's own.
  std::optional<double> drop_path;
};

// A network that can be built.
struct ModelInfo {
  std::string name;     // as --model takes it
  std::string summary;  // one line for people
  int size = 224;       // usual height of its pictures; also the width, where `width` says no other
  // What `train` does to pictures where nothing is said: nothing, crop with 4 pixels of padding and flip, or
  // random-resized-crop and flip.
  enum class Recipe : uint8_t { digits, cifar, imagenet } recipe = Recipe::imagenet;
  std::function<void(Graph& graph, const ModelInfo& info, const ModelOptions& options)> build;  // fills an empty graph
  // Evaluation: the shorter side before the centre crop of `size`, the normalisation and the filter; those of
  // torchvision's first weights.
  int resize = size;
  std::array<float, 3> mean{0.485F, 0.456F, 0.406F}, std{0.229F, 0.224F, 0.225F};
  AugmentOptions::Interpolation interpolation = AugmentOptions::Interpolation::bilinear;
  // Usual numbers of outputs and of channels of the pictures.
  int64_t classes = recipe == Recipe::imagenet ? 1000 : 10;
  int channels = recipe == Recipe::digits ? 1 : 3;
  std::string network = {};  // of a network file its text, else empty
  int width = size;          // of a network file's pictures, which need not be square
};

// All networks known by name.
const std::vector<ModelInfo>& models();
// A name that ends in ".json" is a network file's (convolt/network_file.h). Throws UsageError that offers the nearest
// name, and for a file of pictures that are not square, which read_network() takes.
ModelInfo find_model(std::string_view name);
// Fills an empty graph. Throws ShapeError where the picture size does not fit, UsageError for a drop_path of a model
// that has no blocks to drop, or that is a network file.
void build_model(Graph& graph, const ModelInfo& model, const ModelOptions& options);
void build_model(Graph& graph, std::string_view name, const ModelOptions& options);

}  // namespace convolt
