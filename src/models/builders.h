// One function for each family of networks.
#pragma once

#include "convolt/models.h"

namespace convolt {

void build_lenet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_resnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_cifar_resnet(Graph& graph, const ModelInfo& info, const ModelOptions& options);
void build_mobilenet_v2(Graph& graph, const ModelInfo& info, const ModelOptions& options);

}  // namespace convolt
