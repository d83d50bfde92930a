#include "convolt/models.h"

#include "convolt/error.h"
#include "io/names.h"
#include "models/builders.h"

namespace convolt {

const std::vector<ModelInfo>& models() {
  using enum ModelInfo::Recipe;
  static const std::vector<ModelInfo> table{
      {"lenet", "LeNet-5 with ReLU and max pooling", 28, digits, build_lenet, 5},
      {"resnet20", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet, 20},
      {"resnet32", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet, 32},
      {"resnet44", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet, 44},
      {"resnet56", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet, 56},
      {"resnet110", "CIFAR ResNet, shortcut A", 32, cifar, build_cifar_resnet, 110},
      {"resnet18", "ResNet v1.5", 224, imagenet, build_resnet, 18},
      {"resnet34", "ResNet v1.5", 224, imagenet, build_resnet, 34},
      {"resnet50", "ResNet v1.5", 224, imagenet, build_resnet, 50},
      {"resnet101", "ResNet v1.5", 224, imagenet, build_resnet, 101},
      {"resnet152", "ResNet v1.5", 224, imagenet, build_resnet, 152},
      {"mobilenet_v2", "MobileNetV2, width 1.0", 224, imagenet, build_mobilenet_v2, 53},
  };
  return table;
}

const ModelInfo& find_model(std::string_view name) {
  std::vector<std::string> names;
  for (const ModelInfo& m : models()) {
    if (m.name == name) return m;
    names.emplace_back(m.name);
  }
  const std::string near = nearest_name(std::string(name), names);
  std::string known;
  for (const std::string& n : names) known += (known.empty() ? "" : ", ") + n;
  throw UsageError("unknown model '" + std::string(name) + "'" +
                   (near.empty() ? "" : ", did you mean '" + near + "'?") + " (known: " + known + ")");
}

void build_model(Graph& graph, std::string_view name, const ModelOptions& options) {
  const ModelInfo& info = find_model(name);
  ModelOptions o = options;
  if (o.height == 0) o.height = info.size;
  if (o.width == 0) o.width = info.size;
  info.build(graph, info, o);
}

}  // namespace convolt
