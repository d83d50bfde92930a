// What the options of an optimizer come to for each parameter.
#include "convolt/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "convolt/layers.h"
#include "convolt/models.h"
#include "support/device.h"

namespace convolt::test {
namespace {

class OptimizerSettings : public testing::Test {
protected:
  static void SetUpTestSuite() {
    Graph graph;
    build_model(graph, "resnet18", {.classes = 10, .height = 32, .width = 32});
    params_ = new Params(context_of(Device::cpu()), graph, 1);
  }
  static void TearDownTestSuite() { delete params_; }
  Optimizer::Settings of(const OptimizerOptions& options, const char* name) {
    return Optimizer(*params_, options).settings(params_->find(name));
  }
  std::string refused(const OptimizerOptions& options) {
    try {
      const Optimizer optimizer(*params_, options);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "no UsageError";
  }
  static Params* params_;
};
Params* OptimizerSettings::params_ = nullptr;

TEST_F(OptimizerSettings, NormsAndBiasesHaveDecaysOfTheirOwn) {
  const OptimizerOptions o{.weight_decay = 0.5F, .norm_weight_decay = 0, .bias_weight_decay = 0.25F};
  EXPECT_EQ(of(o, "conv1.weight").weight_decay, 0.5F);
  EXPECT_EQ(of(o, "bn1.weight").weight_decay, 0);
  EXPECT_EQ(of(o, "bn1.bias").weight_decay, 0);
  EXPECT_EQ(of(o, "fc.weight").weight_decay, 0.5F);
  EXPECT_EQ(of(o, "fc.bias").weight_decay, 0.25F);
  EXPECT_EQ(of({.weight_decay = 0.5F}, "bn1.bias").weight_decay, 0.5F);
}

// Layers: stem, eight blocks, fc.
TEST_F(OptimizerSettings, LayersFurtherFromTheEndLearnSlower) {
  const OptimizerOptions o{.layer_decay = 0.5F};
  for (const char* name : {"fc.weight", "fc.bias"}) EXPECT_EQ(of(o, name).lr_scale, 1) << name;
  for (const char* name : {"layer4.1.conv1.weight", "layer4.1.bn2.bias"}) EXPECT_EQ(of(o, name).lr_scale, 0.5F) << name;
  EXPECT_EQ(of(o, "layer4.0.downsample.1.weight").lr_scale, 0.25F);
  EXPECT_EQ(of(o, "layer1.0.conv1.weight").lr_scale, std::pow(0.5F, 8.F));
  for (const char* name : {"conv1.weight", "bn1.weight"}) EXPECT_EQ(of(o, name).lr_scale, std::pow(0.5F, 9.F)) << name;
}

// As many layers as timm 1.0 counts (group_parameters), but for what it joins to a neighbour: the layers of DenseNet's
// transitions, of a last convolution, and of ConvNeXt's downsampling.
TEST(LayerDecay, LayersAreTheBlocksOfEveryFamily) {
  const std::pair<const char*, int> models[] = {
      {"resnet18", 10},      {"regnet_x_400mf", 24},     {"densenet121", 63},     {"mobilenet_v2", 20},
      {"mnasnet0_5", 21},    {"mobilenet_v3_small", 15}, {"efficientnet_b0", 19}, {"shufflenet_v2_x0_5", 19},
      {"squeezenet1_1", 10}, {"convnext_tiny", 23}};
  for (const auto& [model, layers] : models) {
    Graph graph;
    build_model(graph, model, {.classes = 10});
    Params params(context_of(Device::cpu()), graph, 1);
    const Optimizer optimizer(params, {.layer_decay = 0.5F});
    EXPECT_EQ(optimizer.settings(0).lr_scale, std::pow(0.5F, static_cast<float>(layers - 1))) << model;
  }
}

TEST_F(OptimizerSettings, GroupsApplyInOrder) {
  const OptimizerOptions o{.weight_decay = 0.5F,
                           .groups = {{.pattern = "^layer", .lr_scale = 0.5F, .weight_decay = 0.125F},
                                      {.pattern = "bn", .lr_scale = 0.5F, .weight_decay = 0},
                                      {.pattern = "^layer1\\.", .frozen = true}}};
  EXPECT_EQ(of(o, "fc.weight").lr_scale, 1);
  EXPECT_EQ(of(o, "layer2.0.conv1.weight").lr_scale, 0.5F);
  EXPECT_EQ(of(o, "layer2.0.conv1.weight").weight_decay, 0.125F);
  EXPECT_EQ(of(o, "layer2.0.bn1.weight").lr_scale, 0.25F);
  EXPECT_EQ(of(o, "layer2.0.bn1.weight").weight_decay, 0);
  EXPECT_TRUE(of(o, "layer1.1.bn2.bias").frozen);
  EXPECT_FALSE(of(o, "layer2.0.bn1.weight").frozen);
}

TEST_F(OptimizerSettings, AdaptiveClippingLeavesTheHeadAlone) {
  const OptimizerOptions o{.clip_adaptive = 0.01F};
  EXPECT_TRUE(of(o, "layer4.1.conv2.weight").clipped);
  EXPECT_FALSE(of(o, "fc.weight").clipped);
  EXPECT_FALSE(of(o, "fc.bias").clipped);
}

// A layer's only parameter may have the layer's name, without a dot.
TEST(OptimizerOfALayerScale, AdaptiveClippingLeavesTheHeadAlone) {
  Graph g;
  const Value x = g.input("image", {8, 8, 3});
  g.output(layer_scale(linear(global_avg_pool(conv2d(x, 4, {.name = "conv", .kernel = 3})), 2, {.name = "fc"}),
                       {.name = "scale"}));
  Params params(context_of(Device::cpu()), g, 1);
  const Optimizer agc(params, {.clip_adaptive = 0.01F});
  const auto clipped = [&](const char* name) { return agc.settings(params.find(name)).clipped; };
  EXPECT_TRUE(clipped("conv.weight"));
  EXPECT_TRUE(clipped("fc.weight"));
  EXPECT_FALSE(clipped("scale"));
}

// Muon's matrices are the convolutions, not the head, though behind flatten() it has four extents in memory.
TEST_F(OptimizerSettings, MatricesAreConvolutions) {
  const Optimizer muon(*params_, {.kind = OptimizerKind::muon}), sgd(*params_);
  EXPECT_TRUE(muon.is_matrix(params_->find("layer1.0.conv1.weight")));
  EXPECT_TRUE(muon.is_matrix(params_->find("layer2.0.downsample.0.weight")));
  EXPECT_FALSE(muon.is_matrix(params_->find("fc.weight")));
  EXPECT_FALSE(muon.is_matrix(params_->find("bn1.bias")));
  EXPECT_FALSE(sgd.is_matrix(params_->find("conv1.weight")));
  Graph graph;
  build_model(graph, "airbench94", {.classes = 10});
  Params params(context_of(Device::cpu()), graph, 1);
  EXPECT_FALSE(Optimizer(params, {.kind = OptimizerKind::muon}).is_matrix(params.find("head.weight")));
}

TEST_F(OptimizerSettings, GroupsThatEndEarlyHaveRatesOfTheirOwn) {
  const OptimizerOptions o{.groups = {{.pattern = "bias$", .epochs = 3},
                                      {.pattern = "^fc", .lr_scale = 2},
                                      {.pattern = "^conv1", .epochs = 0.5},
                                      {.pattern = "^layer1.0.bn1.bias", .epochs = 3}}};
  EXPECT_EQ(Optimizer(*params_, o).own_epochs(), (std::vector<double>{3, 0.5}));
  EXPECT_EQ(of(o, "fc.bias").rate, 1);
  EXPECT_EQ(of(o, "layer1.0.bn1.bias").rate, 1);
  EXPECT_EQ(of(o, "conv1.weight").rate, 2);
  EXPECT_EQ(of(o, "fc.weight").rate, 0);
}

TEST_F(OptimizerSettings, MomentsHaveTorchsNames) {
  const auto moments = [&](const OptimizerOptions& o) { return Optimizer(*params_, o).moments(); };
  using Names = std::vector<std::string>;
  EXPECT_EQ(moments({}), Names{"momentum"});
  EXPECT_EQ(moments({.momentum = 0}), Names{});
  EXPECT_EQ(moments({.kind = OptimizerKind::adamw}), (Names{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(moments({.kind = OptimizerKind::lamb}), (Names{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(moments({.kind = OptimizerKind::rmsprop}), (Names{"square_avg", "momentum"}));
  EXPECT_EQ(moments({.kind = OptimizerKind::lion}), Names{"exp_avg"});
  EXPECT_EQ(Optimizer(*params_, {.momentum = 0}).bytes(), 8);
  EXPECT_EQ(Optimizer(*params_, {.kind = OptimizerKind::adam}).bytes(), 2 * params_->trainable_bytes() + 8);
}

TEST_F(OptimizerSettings, DefaultsAreThoseOfTheKind) {
  const OptimizerOptions adam{.kind = OptimizerKind::adam}, lamb{.kind = OptimizerKind::lamb};
  EXPECT_EQ(eps_of(adam), 1e-8);
  EXPECT_EQ(eps_of(lamb), 1e-6);
  EXPECT_EQ(eps_of({.kind = OptimizerKind::lamb, .eps = 0}), 0);
  EXPECT_EQ(clip_norm_of(adam), 0);
  EXPECT_EQ(clip_norm_of(lamb), 1);
  EXPECT_EQ(clip_norm_of({.kind = OptimizerKind::lamb, .clip_norm = 0}), 0);
  EXPECT_EQ(betas_of(lamb), (std::array{0.9, 0.999}));
  EXPECT_EQ(betas_of({.kind = OptimizerKind::lion}), (std::array{0.9, 0.99}));
}

TEST_F(OptimizerSettings, WhatMakesNoSenseIsRefused) {
  using testing::HasSubstr;
  EXPECT_THAT(refused({.kind = OptimizerKind::adam, .nesterov = true}), HasSubstr("Nesterov momentum is for sgd"));
  EXPECT_THAT(refused({.momentum = 0, .nesterov = true}), HasSubstr("a momentum above 0"));
  EXPECT_THAT(refused({.clip_norm = 1, .clip_adaptive = 0.01F}), HasSubstr("exclude each other"));
  EXPECT_THAT(refused({.kind = OptimizerKind::lars, .clip_adaptive = 0.01F}), HasSubstr("lars"));
  EXPECT_THAT(refused({.kind = OptimizerKind::muon, .clip_adaptive = 0.01F}), HasSubstr("adaptive clipping and muon"));
  EXPECT_THAT(refused({.kind = OptimizerKind::lamb, .clip_adaptive = 0.01F}), HasSubstr("adaptive clipping and lamb"));
  EXPECT_THAT(refused({.kind = OptimizerKind::muon, .nesterov = true}), HasSubstr("Nesterov momentum is for sgd"));
  EXPECT_THAT(refused({.kind = OptimizerKind::muon, .muon_iterations = 0}), HasSubstr("iterations are 0"));
  EXPECT_THAT(refused({.kind = OptimizerKind::muon, .muon_momentum = 1}), HasSubstr("muon's momentum is 1"));
  EXPECT_THAT(refused({.groups = {{.pattern = "bias", .epochs = -1}}}), HasSubstr("trains for -1 epochs"));
  EXPECT_THAT(refused({.groups = {{.pattern = "fc", .epochs = 1},
                                  {.pattern = "fc", .epochs = 2},
                                  {.pattern = "fc", .epochs = 3},
                                  {.pattern = "fc", .epochs = 4}}}),
              HasSubstr("more than 3 different numbers of epochs"));
  EXPECT_THAT(refused({.betas = std::array{0.9, 1.0}}), HasSubstr("beta is 1"));
  EXPECT_THAT(refused({.ema_decay = 1}), HasSubstr("EMA"));
  EXPECT_THAT(refused({.groups = {{.pattern = "nothing"}}}), HasSubstr("no parameter's name has 'nothing'"));
  EXPECT_THAT(refused({.groups = {{.pattern = "("}}}), HasSubstr("'(' is no regular expression"));
}

}  // namespace
}  // namespace convolt::test
