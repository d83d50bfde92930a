// One function for each family of networks; it finds its member by the name in `info`.
#pragma once

#include <algorithm>

#include "convolt/error.h"
#include "convolt/models.h"

namespace convolt {

void build_airbench(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_alexnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_cifar_resnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_convnext(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_densenet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_efficientnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_lenet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_mnasnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_mobilenet_v2(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_mobilenet_v3(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_regnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_resnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_shufflenet_v2(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_squeezenet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_vgg(Graph& graph, const ModelInfo& info, const ModelOptions& options);

// The row of a family's table with the model's name.
template <class Row, size_t N>
const Row& row_of(const Row (&table)[N], const ModelInfo& info) {
  const Row* row = std::find_if(std::begin(table), std::end(table), [&](const Row& r) { return r.name == info.name; });
  if (row == std::end(table)) throw UsageError("the family of '" + std::string(info.name) + "' has no such member");
  return *row;
}

}  // namespace convolt
