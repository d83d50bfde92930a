// Graphs: shape rules and the sentences that say what does not fit.
#include "convolt/graph.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "convolt/layers.h"
#include "graph/networks.h"

namespace convolt::test {
namespace {

template <class E>
void expect_error(const std::function<void()>& call, const std::string& message) {
  try {
    call();
    FAIL() << "expected: " << message;
  } catch (const E& e) {
    EXPECT_EQ(std::string(e.what()), message);
  }
}

class GraphTest : public testing::Test {
protected:
  Graph graph_;
  Value picture_ = graph_.input("image", {5, 6, 3});
};

TEST_F(GraphTest, ShapesFollowTheFormulas) {
  const Value y = conv2d(picture_, 8, {.kernel = 3, .stride = 2, .padding = 1, .dilation = 2});
  EXPECT_EQ(y.shape(), (Shape{2, 2, 8}));
  EXPECT_EQ(max_pool(picture_, {.kernel = 3, .stride = 2, .padding = 1}).shape(), (Shape{3, 3, 3}));
  EXPECT_EQ(avg_pool(picture_, {}).shape(), (Shape{2, 3, 3}));
  EXPECT_EQ(max_pool(picture_, {.ceil_mode = true}).shape(), (Shape{3, 3, 3}));
  EXPECT_EQ(max_pool(picture_, {.kernel = 6, .ceil_mode = true}).shape(), (Shape{1, 1, 3}));
  EXPECT_EQ(slice_pad(picture_, 2, 9, 4).shape(), (Shape{3, 3, 9}));
  EXPECT_EQ(global_avg_pool(picture_).shape(), (Shape{3}));
  EXPECT_EQ(linear(flatten(picture_), 4).shape(), (Shape{4}));
  EXPECT_EQ(linear(picture_, 4).shape(), (Shape{5, 6, 4}));
}

TEST_F(GraphTest, LayersThatEnlargeFollowTheFormulas) {
  EXPECT_EQ(conv_transpose2d(picture_, 8).shape(), (Shape{10, 12, 8}));
  EXPECT_EQ(conv_transpose2d(picture_, 8, {.kernel = 3, .padding = 1, .output_padding = 1}).shape(),
            (Shape{10, 12, 8}));
  EXPECT_EQ(pad(picture_, {1, 2, 3, 4}).shape(), (Shape{9, 12, 3}));
  EXPECT_EQ(upsample(picture_, {7, 4}).shape(), (Shape{7, 4, 3}));
  expect_error<ShapeError>([&] { conv_transpose2d(picture_, 8, {.name = "up", .output_padding = 2}); },
                           "conv_transpose2d 'up': output padding 2 must be at least 0 and below the stride 2");
  expect_error<ShapeError>([&] { conv_transpose2d(picture_, 8, {.name = "up", .kernel = 1, .padding = 5}); },
                           "conv_transpose2d 'up': padding 5 leaves nothing of 9x11");
  expect_error<ShapeError>([&] { conv_transpose2d(picture_, 8, {.name = "up", .groups = 2}); },
                           "conv_transpose2d 'up': 3 input and 8 output channels do not divide into 2 groups");
  expect_error<ShapeError>([&] { pad(picture_, {-1, 0}); }, "pad 'pad2': padding must not be negative, found -1x0");
  expect_error<ShapeError>(
      [&] {
        upsample(picture_, {0, 4});
      },
      "upsample 'upsample2': expected extents from 1 to 16383, found 5x6 to 0x4");
}

TEST_F(GraphTest, AConvolutionThatDoesNotFitSaysWhy) {
  expect_error<ShapeError>([&] { conv2d(picture_, 8, {.name = "layer1.0.conv1", .kernel = 7}); },
                           "conv2d 'layer1.0.conv1': kernel 7 exceeds padded input 5x6");
  expect_error<ShapeError>([&] { conv2d(picture_, 8, {.name = "c", .kernel = 3, .padding = 1, .dilation = 4}); },
                           "conv2d 'c': kernel 9 exceeds padded input 7x8");
  expect_error<ShapeError>([&] { conv2d(picture_, 8, {.name = "c", .groups = 2}); },
                           "conv2d 'c': 3 input and 8 output channels do not divide into 2 groups");
  expect_error<ShapeError>([&] { conv2d(global_avg_pool(picture_), 8, {.name = "c"}); },
                           "conv2d 'c': expected a picture [H, W, C], found [3]");
  expect_error<ShapeError>(
      [&] { conv2d(picture_, 8, {.name = "c", .stride = 0}); },
      "conv2d 'c': kernel 3, stride 0, dilation 1, groups 1 and channels 8 must be positive, padding 0 not negative");
}

TEST_F(GraphTest, OtherLayersThatDoNotFitSayWhy) {
  expect_error<ShapeError>([&] { linear(picture_, 0, {.name = "fc"}); },
                           "linear 'fc': units must be positive, found 0");
  expect_error<ShapeError>([&] { group_norm(picture_, {.name = "gn", .groups = 2}); },
                           "group_norm 'gn': the channels of [5, 6, 3] do not divide into 2 groups");
  expect_error<ShapeError>([&] { max_pool(picture_, {.name = "p", .kernel = 6}); },
                           "max_pool 'p': kernel 6 exceeds padded input 5x6");
  expect_error<ShapeError>(
      [&] {
        avg_pool(picture_, {.name = "p", .kernel = 2, .padding = {0, 0, 2, 0}});
      },
      "avg_pool 'p': expected a kernel of 1 to 255 pixels, a positive stride and padding of at most half the kernel, "
      "found kernel 2, stride 2, padding 0,0,2,0");
  expect_error<ShapeError>([&] { add(picture_, avg_pool(picture_)); },
                           "add 'add1': expected equal shapes, found [5, 6, 3] and [2, 3, 3]");
  expect_error<ShapeError>(
      [&] { slice_pad(picture_, 2, 4, 2); },
      "slice_pad 'slice_pad1': 3 channels behind 2 zero ones do not fit into 4, or stride 2 is not positive");
  expect_error<ShapeError>([&] { dropout(picture_, 1); },
                           "dropout 'dropout1': the probability must be at least 0 and below 1, found 1");
  expect_error<ShapeError>([&] { graph_.output(picture_); },
                           "the output must be a vector of logits [K], found [5, 6, 3]; flatten() or pool it first");
}

TEST_F(GraphTest, ChannelLayersFollowTheFormulas) {
  const Value x = conv2d(picture_, 12, {.kernel = 1});
  EXPECT_EQ(concat({x, picture_, x}).shape(), (Shape{5, 6, 27}));
  EXPECT_EQ(concat({global_avg_pool(x), global_avg_pool(picture_)}).shape(), (Shape{15}));
  EXPECT_EQ(slice_channels(x, 3, 4).shape(), (Shape{5, 6, 4}));
  const std::vector<Value> parts = split(x, {5, 1, 6});
  EXPECT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[2].shape(), (Shape{5, 6, 6}));
  EXPECT_EQ(channel_shuffle(x, 4).shape(), x.shape());
  EXPECT_EQ(adaptive_avg_pool(x, {7, 2}).shape(), (Shape{7, 2, 12}));
  EXPECT_EQ(mul(x, adaptive_avg_pool(x, 1)).shape(), x.shape());
  EXPECT_EQ(mul(x, global_avg_pool(x)).shape(), x.shape());
}

TEST_F(GraphTest, ChannelLayersThatDoNotFitSayWhy) {
  expect_error<ShapeError>([&] { mul(picture_, avg_pool(picture_)); },
                           "mul 'mul1': expected equal shapes, or [H, W, C] and one factor per channel [1, 1, C] or "
                           "[C], found [5, 6, 3] and [2, 3, 3]");
  expect_error<ShapeError>(
      [&] {
        concat({picture_, avg_pool(picture_, {.name = "p"})});
      },
      "concat 'concat1': expected shapes that are equal but for their channels, found [5, 6, 3] and [2, 3, 3]");
  expect_error<UsageError>([&] { concat({}); }, "concat needs at least one value, found none");
  expect_error<ShapeError>([&] { slice_channels(picture_, 2, 2); },
                           "slice_channels 'slice_channels1': channels 2 to 3 are not all among those of [5, 6, 3]");
  expect_error<ShapeError>(
      [&] {
        split(picture_, {1, 1});
      },
      "split 'split1': expected parts of at least one channel that sum up to the channels of [5, 6, 3], "
      "found 1, 1 that sum up to 2");
  expect_error<ShapeError>([&] { channel_shuffle(picture_, 2); },
                           "channel_shuffle 'channel_shuffle1': the channels of [5, 6, 3] do not divide into 2 groups");
  expect_error<ShapeError>(
      [&] {
        adaptive_avg_pool(picture_, {0, 2});
      },
      "adaptive_avg_pool 'adaptive_avg_pool1': expected a size of at least 1x1, found 0x2");
  expect_error<ShapeError>(
      [&] { stochastic_depth(picture_, -0.5F); },
      "stochastic_depth 'stochastic_depth1': the probability must be at least 0 and below 1, found -0.5");
}

TEST_F(GraphTest, ALayerScaleIsNamedAndShapedAsItsFilesAre) {
  layer_scale(picture_, {.name = "block.layer_scale"});
  layer_scale(picture_, {.name = "block.gamma", .init = 0.1F, .column = false});
  const auto& params = graph_.params();
  EXPECT_EQ(params[0].name, "block.layer_scale");
  EXPECT_EQ(params[0].file_shape(), (Shape{3, 1, 1}));
  EXPECT_EQ(params[0].shape, (Shape{3}));
  EXPECT_FALSE(params[0].decays);
  EXPECT_EQ(params[1].file_shape(), (Shape{3}));
  Params values(context_of(Device::cpu()), graph_, 1);
  EXPECT_EQ(values.values(1), (std::vector<float>{0.1F, 0.1F, 0.1F}));
  values.set_values(0, {1, 2, 3});
  EXPECT_EQ(values.values(0), (std::vector<float>{1, 2, 3}));
}

// Cut at two standard deviations, a normal distribution keeps 0.8796 of its spread.
TEST_F(GraphTest, TruncatedInitialWeightsStayWithinTwoStandardDeviations) {
  conv2d(picture_, 512, {.name = "c", .padding = 1, .init = Init::truncated_normal(0.02F)});
  const Params params(context_of(Device::cpu()), graph_, 1);
  const std::vector<float> weights = params.values(params.find("c.weight"));
  double squares = 0;
  for (const float w : weights) {
    EXPECT_LE(std::abs(w), 0.04F);
    squares += static_cast<double>(w) * static_cast<double>(w);
  }
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(weights.size())), 0.8796 * 0.02, 2e-4);
}

TEST_F(GraphTest, MisuseIsRefused) {
  Graph other;
  const Value stranger = other.input("image", {5, 6, 3});
  expect_error<UsageError>([&] { graph_.input("second", {5, 6, 3}); }, "a graph has one input, and it comes first");
  expect_error<UsageError>([&] { add(picture_, stranger); }, "layer 'add1' takes a value of another graph");
  expect_error<UsageError>([&] { graph_.output(stranger); }, "output() got a value of another graph");
  expect_error<UsageError>([&] { static_cast<void>(graph_.output_layer()); },
                           "the graph has no output: call Graph::output(logits)");
  conv2d(picture_, 4, {.name = "c", .padding = 1});
  expect_error<UsageError>([&] { conv2d(picture_, 4, {.name = "c", .padding = 1}); }, "two layers are named 'c'");
  Graph grey;
  expect_error<ShapeError>(
      [&] {
        grey.input("image", {5, 6, 2});
      },
      "input 'image': expected [height, width, 1 or 3], found [5, 6, 2]");
}

TEST_F(GraphTest, AnotherPictureSizeNamesTheLayerThatCannotTakeIt) {
  Value x = conv2d(picture_, 4, {.name = "c", .kernel = 5});
  graph_.output(linear(flatten(x), 3, {.name = "fc"}));
  EXPECT_EQ(graph_.shapes_for(5, 6)[1], (Shape{1, 2, 4}));
  expect_error<ShapeError>([&] { graph_.shapes_for(4, 6); }, "conv2d 'c': kernel 5 exceeds padded input 4x6");
  expect_error<ShapeError>(
      [&] { graph_.shapes_for(5, 7); },
      "linear 'fc': its weights take 8 features, found 12: this network is tied to one picture size");
}

TEST_F(GraphTest, ABatchOfOneValuePerChannelCannotTrain) {
  graph_.output(linear(relu(batch_norm(global_avg_pool(picture_), {.name = "bn"})), 3));
  Params params(context_of(Device::cpu()), graph_, 1);
  expect_error<ShapeError>(
      [&] { Plan(graph_, params, {.batch = 1, .training = true}); },
      "batch_norm 'bn': training needs more than one value per channel, found 1; use a larger batch or picture");
  EXPECT_NO_THROW(Plan(graph_, params, {.batch = 1}));
}

// torch flattens [C, H, W]: element (c, h, w) of the picture meets column c * H * W + h * W + w of the file's weights,
// also behind layers that keep the order.
TEST_F(GraphTest, WeightsBehindFlattenLieInFilesAsTorchFlattens) {
  graph_.output(linear(relu(dropout(flatten(picture_), 0.5F)), 1, {.name = "fc", .bias = false}));
  Context& context = context_of(Device::cpu());
  Params params(context, graph_, 1);
  EXPECT_EQ(params.specs()[0].file_shape(), (Shape{1, 90}));
  Plan plan(graph_, params, {});
  std::vector<float> picture(90), weights(90);
  for (int c = 0; c < 3; ++c)
    for (int h = 0; h < 5; ++h)
      for (int w = 0; w < 6; ++w) {
        const auto nhwc = static_cast<size_t>((h * 6 + w) * 3 + c), nchw = static_cast<size_t>(c * 30 + h * 6 + w);
        picture[nhwc] = static_cast<float>(nhwc + 1);
        weights[nchw] = nchw % 7 == 0 ? static_cast<float>(nhwc) : 0;
      }
  params.set_values(0, weights);
  EXPECT_EQ(params.values(0), weights);
  plan.run(picture.data(), nullptr, 1);
  double expected = 0;
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < 30; ++i)
      if ((c * 30 + i) % 7 == 0) expected += (i * 3 + c) * (i * 3 + c + 1);
  EXPECT_EQ(static_cast<double>(plan.logits()[0]), expected);
}

// torch.nn.functional.conv_transpose2d with three groups, on small whole numbers.
TEST_F(GraphTest, ATransposedConvolutionTakesTorchsWeights) {
  Graph graph;
  Value x = graph.input("image", {2, 2, 3});
  x = conv_transpose2d(x, 6,
                       {.name = "up",
                        .kernel = 2,
                        .stride = {2, 1},
                        .padding = {1, 0},
                        .output_padding = {1, 0},
                        .dilation = {1, 2},
                        .groups = 3});
  EXPECT_EQ(x.shape(), (Shape{3, 4, 6}));
  graph.output(flatten(x));
  Params params(context_of(Device::cpu()), graph, 1);
  EXPECT_EQ(params.specs()[0].file_shape(), (Shape{3, 2, 2, 2}));
  std::vector<float> picture, weights;
  for (int i = 0; i < 12; ++i) picture.push_back(static_cast<float>(i % 7 - 3));
  for (int i = 0; i < 24; ++i) weights.push_back(static_cast<float>(i % 5 - 2));
  params.set_values(0, weights);
  Plan plan(graph, params, {});
  plan.run(picture.data(), nullptr, 1);
  EXPECT_EQ(plan.logits(), (std::vector<float>{0,  3,  4,  -4, -1, 0, 0,  0, -2, 2, 2,  0,  -3, 0,  2, 4,  -2, -1,
                                               0,  0,  -1, -2, 4,  2, -6, 6, -3, 0, 2,  4,  2,  -2, 0, 0,  -1, -2,
                                               -3, -6, -6, -3, 0,  2, 1,  2, 0,  0, 0,  -1, 0,  -3, 6, -6, -2, 0,
                                               0,  1,  0,  0,  1,  0, 3,  0, 3,  6, -4, -2, -1, 0,  0, 0,  2,  1}));
}

TEST_F(GraphTest, SetValuesNamesTheParameterAndBothSizes) {
  graph_.output(linear(flatten(conv2d(picture_, 2, {.name = "c"})), 3));
  Params params(context_of(Device::cpu()), graph_, 1);
  expect_error<ShapeError>(
      [&] {
        params.set_values(0, {1, 2});
      },
      "parameter 'c.weight' has 54 elements [2, 3, 3, 3], found 2");
  EXPECT_EQ(params.find("c.weight"), 0);
  EXPECT_EQ(params.find("nothing"), -1);
}

}  // namespace
}  // namespace convolt::test
