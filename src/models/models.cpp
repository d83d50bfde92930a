#include "convolt/models.h"

#include <fmt/format.h>

#include "convolt/error.h"
#include "convolt/network_file.h"
#include "graph/layer.h"
#include "io/names.h"
#include "models/builders.h"

namespace convolt {

namespace {

bool has_stochastic_depth(const Graph& graph) {
  return std::any_of(graph.layers().begin(), graph.layers().end(),
                     [](const Layer& layer) { return layer.def->kind == "stochastic_depth"; });
}

}  // namespace

const std::vector<ModelInfo>& models() {
  using enum ModelInfo::Recipe;
  constexpr std::array<float, 3> kHalf{0.5F, 0.5F, 0.5F}, kMean{0.485F, 0.456F, 0.406F}, kStd{0.229F, 0.224F, 0.225F};
  constexpr auto kBicubic = AugmentOptions::Interpolation::bicubic;
  static const std::vector<ModelInfo> table{
      {"lenet", "LeNet-5 with ReLU and max pooling", 28, digits, build_lenet},
      {"resnet20", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet},
      {"resnet32", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet},
      {"resnet44", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet},
      {"resnet56", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet},
      {"resnet110", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet},
      {"airbench94",
       "CIFAR speed-run network, K. Jordan's airbench94",
       32,
       cifar,
       build_airbench,
       32,
       {0.4914F, 0.4822F, 0.4465F},
       {0.2470F, 0.2435F, 0.2616F}},
      {"alexnet", "AlexNet", 224, imagenet, build_alexnet, 256},
      {"vgg11", "VGG", 224, imagenet, build_vgg, 256},
      {"vgg11_bn", "VGG with batch norms", 224, imagenet, build_vgg, 256},
      {"vgg13", "VGG", 224, imagenet, build_vgg, 256},
      {"vgg13_bn", "VGG with batch norms", 224, imagenet, build_vgg, 256},
      {"vgg16", "VGG", 224, imagenet, build_vgg, 256},
      {"vgg16_bn", "VGG with batch norms", 224, imagenet, build_vgg, 256},
      {"vgg19", "VGG", 224, imagenet, build_vgg, 256},
      {"vgg19_bn", "VGG with batch norms", 224, imagenet, build_vgg, 256},
      {"squeezenet1_0", "SqueezeNet", 224, imagenet, build_squeezenet, 256},
      {"squeezenet1_1", "SqueezeNet", 224, imagenet, build_squeezenet, 256},
      {"resnet18", "ResNet v1.5", 224, imagenet, build_resnet, 256},
      {"resnet34", "ResNet v1.5", 224, imagenet, build_resnet, 256},
      {"resnet50", "ResNet v1.5", 224, imagenet, build_resnet, 256},
      {"resnet101", "ResNet v1.5", 224, imagenet, build_resnet, 256},
      {"resnet152", "ResNet v1.5", 224, imagenet, build_resnet, 256},
      {"wide_resnet50_2", "wide ResNet", 224, imagenet, build_resnet, 256},
      {"wide_resnet101_2", "wide ResNet", 224, imagenet, build_resnet, 256},
      {"resnext50_32x4d", "ResNeXt", 224, imagenet, build_resnet, 256},
      {"resnext101_32x8d", "ResNeXt", 224, imagenet, build_resnet, 256},
      {"resnext101_64x4d", "ResNeXt", 224, imagenet, build_resnet, 232},
      {"se_resnet50", "SE-ResNet, timm's seresnet50", 224, imagenet, build_resnet, 235, kMean, kStd, kBicubic},
      {"densenet121", "DenseNet-BC", 224, imagenet, build_densenet, 256},
      {"densenet161", "DenseNet-BC", 224, imagenet, build_densenet, 256},
      {"densenet169", "DenseNet-BC", 224, imagenet, build_densenet, 256},
      {"densenet201", "DenseNet-BC", 224, imagenet, build_densenet, 256},
      {"mobilenet_v2", "MobileNetV2", 224, imagenet, build_mobilenet_v2, 256},
      {"mobilenet_v3_small", "MobileNetV3", 224, imagenet, build_mobilenet_v3, 256},
      {"mobilenet_v3_large", "MobileNetV3", 224, imagenet, build_mobilenet_v3, 256},
      {"shufflenet_v2_x0_5", "ShuffleNet V2", 224, imagenet, build_shufflenet_v2, 256},
      {"shufflenet_v2_x1_0", "ShuffleNet V2", 224, imagenet, build_shufflenet_v2, 256},
      {"shufflenet_v2_x1_5", "ShuffleNet V2", 224, imagenet, build_shufflenet_v2, 232},
      {"shufflenet_v2_x2_0", "ShuffleNet V2", 224, imagenet, build_shufflenet_v2, 232},
      {"mnasnet0_5", "MnasNet-B1", 224, imagenet, build_mnasnet, 256},
      {"mnasnet0_75", "MnasNet-B1", 224, imagenet, build_mnasnet, 232},
      {"mnasnet1_0", "MnasNet-B1", 224, imagenet, build_mnasnet, 256},
      {"mnasnet1_3", "MnasNet-B1", 224, imagenet, build_mnasnet, 232},
      {"efficientnet_b0", "EfficientNet", 224, imagenet, build_efficientnet, 256, kMean, kStd, kBicubic},
      {"efficientnet_b1", "EfficientNet", 240, imagenet, build_efficientnet, 256, kMean, kStd, kBicubic},
      {"efficientnet_b2", "EfficientNet", 288, imagenet, build_efficientnet, 288, kMean, kStd, kBicubic},
      {"efficientnet_b3", "EfficientNet", 300, imagenet, build_efficientnet, 320, kMean, kStd, kBicubic},
      {"efficientnet_b4", "EfficientNet", 380, imagenet, build_efficientnet, 384, kMean, kStd, kBicubic},
      {"efficientnet_b5", "EfficientNet", 456, imagenet, build_efficientnet, 456, kMean, kStd, kBicubic},
      {"efficientnet_b6", "EfficientNet", 528, imagenet, build_efficientnet, 528, kMean, kStd, kBicubic},
      {"efficientnet_b7", "EfficientNet", 600, imagenet, build_efficientnet, 600, kMean, kStd, kBicubic},
      {"efficientnet_v2_s", "EfficientNetV2", 384, imagenet, build_efficientnet, 384},
      {"efficientnet_v2_m", "EfficientNetV2", 480, imagenet, build_efficientnet, 480},
      {"efficientnet_v2_l", "EfficientNetV2", 480, imagenet, build_efficientnet, 480, kHalf, kHalf, kBicubic},
      {"regnet_x_400mf", "RegNetX", 224, imagenet, build_regnet, 256},
      {"regnet_x_800mf", "RegNetX", 224, imagenet, build_regnet, 256},
      {"regnet_x_1_6gf", "RegNetX", 224, imagenet, build_regnet, 256},
      {"regnet_x_3_2gf", "RegNetX", 224, imagenet, build_regnet, 256},
      {"regnet_x_8gf", "RegNetX", 224, imagenet, build_regnet, 256},
      {"regnet_y_400mf", "RegNetY", 224, imagenet, build_regnet, 256},
      {"regnet_y_800mf", "RegNetY", 224, imagenet, build_regnet, 256},
      {"regnet_y_1_6gf", "RegNetY", 224, imagenet, build_regnet, 256},
      {"regnet_y_3_2gf", "RegNetY", 224, imagenet, build_regnet, 256},
      {"regnet_y_8gf", "RegNetY", 224, imagenet, build_regnet, 256},
      {"convnext_tiny", "ConvNeXt", 224, imagenet, build_convnext, 236},
      {"convnext_small", "ConvNeXt", 224, imagenet, build_convnext, 230},
      {"convnext_base", "ConvNeXt", 224, imagenet, build_convnext, 232},
      {"convnext_large", "ConvNeXt", 224, imagenet, build_convnext, 232},
  };
  return table;
}

ModelInfo find_model(std::string_view name) {
  if (name.ends_with(".json")) {
    ModelInfo info = read_network(std::string(name));
    if (info.width != info.size)
      throw UsageError(
          fmt::format("'{}' is a network for pictures of {} x {} pixels: here they are square, so give its "
                      "'input' one 'size'; read_network() of the library takes both",
                      name, info.size, info.width));
    return info;
  }
  std::vector<std::string> names;
  for (const ModelInfo& m : models()) {
    if (m.name == name) return m;
    names.push_back(m.name);
  }
  const std::string near = nearest_name(std::string(name), names);
  throw UsageError("unknown model '" + std::string(name) + "'" +
                   (near.empty() ? "" : ", did you mean '" + near + "'?") +
                   " (see convolt models; FILE.json is a network file)");
}

void build_model(Graph& graph, const ModelInfo& model, const ModelOptions& options) {
  ModelOptions o = options;
  if (o.height == 0 && model.network.empty()) o.height = model.size;  // a network file has its own
  if (o.width == 0 && model.network.empty()) o.width = model.size;
  if (o.classes == 0) o.classes = model.classes;
  if (o.drop_path && !(*o.drop_path >= 0 && *o.drop_path < 1))
    throw UsageError("drop_path is " + std::to_string(*o.drop_path) + ": expected 0 to below 1");
  if (o.drop_path && !model.network.empty())
    throw UsageError("drop_path is for networks by name; a network file has layers of stochastic_depth of its own");
  model.build(graph, model, o);
  if (o.drop_path > 0 && !has_stochastic_depth(graph))
    throw UsageError("drop_path: '" + model.name + "' has no residual blocks that could be dropped");
}

void build_model(Graph& graph, std::string_view name, const ModelOptions& options) {
  build_model(graph, find_model(name), options);
}

}  // namespace convolt
