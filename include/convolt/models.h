// Networks by name. Parameter names are torchvision's (CIFAR's resnets: those of Y. Idelbayev's reference
// implementation), so that weights move both ways.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "convolt/graph.h"

namespace convolt {

struct ModelOptions {
  int64_t classes = 1000;
  int height = 0, width = 0;  // 0: the model's usual size
  int channels = 3;
};

struct ModelInfo {
  std::string_view name;
  std::string_view summary;
  int size;  // usual height and width of its pictures
  // What `train` does to pictures where nothing is said: nothing, crop with 4 pixels of padding and flip, or
  // random-resized-crop and flip.
  enum class Recipe : uint8_t { digits, cifar, imagenet } recipe;
  void (*build)(Graph& graph, const ModelInfo& info, const ModelOptions& options);
  int depth;  // of the family's members
};

const std::vector<ModelInfo>& models();
// Throws UsageError that offers the nearest name.
const ModelInfo& find_model(std::string_view name);
// Fills an empty graph. Throws ShapeError where the picture size does not fit.
void build_model(Graph& graph, std::string_view name, const ModelOptions& options);

}  // namespace convolt
