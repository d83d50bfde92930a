#include "graph/networks.h"

#include <algorithm>

#include <cmath>
#include <numeric>

#include "convolt/layers.h"
#include "convolt/models.h"

namespace convolt::test {
namespace {

void lenet(Graph& g) { build_model(g, "lenet", {.classes = 10, .height = 14, .width = 16, .channels = 1}); }

Value conv_bn(Value x, const std::string& name, int64_t channels, Conv2dOptions options) {
  options.name = name + ".conv";
  return batch_norm(conv2d(x, channels, options), {.name = name + ".bn"});
}

void resnet(Graph& g) {
  Value x = g.input("image", {15, 13, 3});
  x = max_pool(relu(conv_bn(x, "stem", 8, {.kernel = 7, .stride = 2, .padding = 3})),
               {.kernel = 3, .stride = 2, .padding = 1});
  Value y = conv_bn(relu(conv_bn(x, "a1", 8, {.padding = 1})), "a2", 8, {.padding = 1});
  x = relu(add(y, x));
  y = relu(conv_bn(x, "b1", 8, {.kernel = 1}));
  y = relu(conv_bn(y, "b2", 8, {.stride = 2, .padding = 1}));
  y = conv_bn(y, "b3", 16, {.kernel = 1});
  x = relu(add(y, conv_bn(x, "b.down", 16, {.kernel = 1, .stride = 2})));
  g.output(linear(global_avg_pool(x), 7, {.name = "fc"}));
}

void cifar(Graph& g) {
  Value x = g.input("image", {9, 8, 3});
  x = relu(conv_bn(x, "stem", 8, {.padding = 1}));
  Value y = conv_bn(relu(conv_bn(x, "a1", 8, {.padding = 1})), "a2", 8, {.padding = 1});
  x = relu(add(y, x));
  y = conv_bn(relu(conv_bn(x, "b1", 16, {.stride = 2, .padding = 1})), "b2", 16, {.padding = 1});
  x = relu(add(y, slice_pad(x, 2, 16, 4)));
  g.output(linear(global_avg_pool(x), 10, {.name = "linear"}));
}

void mobilenet(Graph& g) {
  Value x = g.input("image", {12, 12, 3});
  x = relu6(conv_bn(x, "stem", 8, {.stride = 2, .padding = 1}));
  Value y = relu6(conv_bn(x, "a1", 24, {.kernel = 1}));
  y = relu6(conv_bn(y, "a2", 24, {.padding = 1, .groups = 24}));
  x = add(x, conv_bn(y, "a3", 8, {.kernel = 1}));
  y = relu6(conv_bn(x, "b1", 16, {.kernel = 1}));
  y = relu6(conv_bn(y, "b2", 16, {.stride = 2, .padding = 1, .groups = 16}));
  x = conv_bn(y, "b3", 12, {.kernel = 1});
  g.output(linear(dropout(global_avg_pool(x), 0.2F), 10, {.name = "classifier"}));
}

void mixed(Graph& g) {
  Value x = g.input("image", {11, 10, 3});
  x = conv2d(x, 6,
             {.name = "c1",
              .kernel = 3,
              .padding = 2,
              .dilation = 2,
              .bias = true,
              .init = Init::uniform_fan_in(),
              .bias_init = Init::uniform_fan_in()});
  x = relu6(batch_norm(x, {.name = "bn"}));
  x = dropout(avg_pool(x, {.kernel = 3, .stride = 2, .padding = 1}), 0.3F);
  const Value z = conv2d(x, 10, {.name = "c2", .groups = 2});
  x = add(batch_norm(z, {.name = "bn1", .momentum = 0.3F}), z);  // z has two readers
  x = relu(add(x, x));
  x = dropout(flatten(slice_pad(x, 2, 13, 2)), 0.25F);
  x = relu(batch_norm(linear(x, 12, {.name = "fc1", .bias = false}), {.name = "bn2", .eps = 1e-3F}));
  g.output(linear(x, 6, {.name = "fc2"}));
}

// Each activation where it fuses with a batch norm, where it may not (behind a residual, when its gradient needs its
// input), and alone.
void activations(Graph& g) {
  Value x = g.input("image", {8, 9, 3});
  x = silu(conv_bn(x, "stem", 8, {.stride = 2, .padding = 1}));
  x = gelu(add(conv_bn(x, "a", 8, {.padding = 1}), x));
  x = sigmoid(add(conv_bn(x, "b", 8, {.kernel = 1}), x));
  x = hardswish(conv2d(x, 6, {.name = "c", .kernel = 1, .bias = true}));
  x = leaky_relu(conv_bn(x, "d", 6, {.kernel = 1}), 0.2F);
  x = mish(leaky_relu(add(conv_bn(x, "e", 6, {.padding = 1}), x), -0.3F));
  x = hardsigmoid(conv_bn(x, "f", 8, {.stride = 2}));
  x = tanh(conv_bn(x, "g", 8, {.kernel = 1}));
  x = hardswish(linear(global_avg_pool(x), 9, {.name = "fc1"}));
  g.output(linear(gelu(batch_norm(x, {.name = "norm"})), 5, {.name = "fc2"}));
}

// Squeeze-and-excitation, stochastic depth and learnt scales.
void excited(Graph& g) {
  Value x = g.input("image", {9, 10, 3});
  x = relu(conv_bn(x, "stem", 10, {.stride = 2, .padding = 1}));
  Value y = conv_bn(x, "a", 10, {.padding = 1});
  Value s = relu(conv2d(adaptive_avg_pool(y, 1), 4, {.name = "fc1", .kernel = 1, .bias = true}));
  s = conv2d(s, 10, {.name = "fc2", .kernel = 1, .bias = true});
  y = stochastic_depth(layer_scale(mul(y, s), {.name = "a.scale", .init = 0.5F}), 0.4F);
  x = add(x, y);
  x = mul(x, global_avg_pool(x));  // factors from a vector, and two readers
  x = mul(conv2d(x, 10, {.name = "b", .kernel = 1}), x);
  x = adaptive_avg_pool(x, {3, 2});
  x = layer_scale(flatten(x), {.name = "vector.scale", .column = false});
  g.output(linear(stochastic_depth(x, 0.2F), 5, {.name = "fc"}));
}

// Channels split, sliced, shuffled and joined, also of vectors, with a part that nobody reads.
void shuffled(Graph& g) {
  Value x = g.input("image", {8, 9, 3});
  x = relu(conv_bn(x, "stem", 16, {.padding = 1}));
  std::vector<Value> parts = split(x, {8, 5, 3});
  Value y = relu(conv_bn(parts[1], "a", 8, {.padding = 1}));
  x = channel_shuffle(concat({parts[0], y, parts[1]}), 3);
  y = slice_channels(x, 3, 8);
  x = conv_bn(concat({y, x, y}), "b", 12, {.kernel = 1});
  x = channel_shuffle(relu(add(x, slice_channels(x, 0, 12))), 2);
  x = global_avg_pool(x);
  parts = split(x, {4, 8});
  g.output(linear(concat({parts[1], parts[0], x}), 6, {.name = "fc"}));
}

// ConvNeXt's block, and group norms of pictures and vectors.
void normed(Graph& g) {
  Value x = g.input("image", {8, 9, 3});
  x = layer_norm(conv2d(x, 12, {.name = "stem", .kernel = 2, .stride = 2, .bias = true}), {.name = "stem.norm"});
  Value y = conv2d(x, 12, {.name = "dw", .kernel = 3, .padding = 1, .groups = 12, .bias = true});
  y = relu(linear(layer_norm(y, {.name = "ln"}), 20, {.name = "up"}));
  x = add(x, layer_scale(linear(y, 12, {.name = "down", .bias = false}), {.name = "scale", .init = 0.3F}));
  x = relu(group_norm(x, {.name = "gn", .groups = 3}));
  x = group_norm(conv2d(x, 16, {.name = "c", .kernel = 3}), {.name = "gn1", .groups = 1, .eps = 1e-3F});
  x = group_norm(relu(layer_norm(global_avg_pool(x), {.name = "last"})), {.name = "gn2", .groups = 4});
  g.output(linear(x, 5, {.name = "fc"}));
}

// Ends of branches with layer scale, with stochastic depth and with both, and layer norms of whole packets.
void convnext(Graph& g) {
  Value x = g.input("image", {8, 9, 3});
  x = layer_norm(conv2d(x, 16, {.name = "stem", .kernel = 2, .stride = 2, .bias = true}), {.name = "stem.norm"});
  const auto branch = [&](const std::string& name) {
    Value y = conv2d(x, 16, {.name = name + ".dw", .kernel = 3, .padding = 1, .groups = 16, .bias = true});
    y = gelu(linear(layer_norm(y, {.name = name + ".norm"}), 24, {.name = name + ".up"}));
    return linear(y, 16, {.name = name + ".down"});
  };
  x = add(x, layer_scale(branch("a"), {.name = "a.scale", .init = 0.3F}));
  x = add(stochastic_depth(branch("b"), 0.4F), x);
  x = add(stochastic_depth(layer_scale(branch("c"), {.name = "c.scale", .init = 0.5F}), 0.3F), x);
  g.output(linear(global_avg_pool(x), 5, {.name = "fc"}));
}

// ResNet's blocks under stochastic depth, the second one with a projection.
void dropped(Graph& g) {
  Value x = g.input("image", {8, 9, 3});
  x = relu(conv_bn(x, "stem", 16, {.padding = 1}));
  Value y = relu(conv_bn(x, "a.1", 16, {.padding = 1}));
  x = relu(add(stochastic_depth(conv_bn(y, "a.2", 16, {.padding = 1}), 0.4F), x));
  y = relu(conv_bn(x, "b.1", 24, {.stride = 2, .padding = 1}));
  y = stochastic_depth(conv_bn(y, "b.2", 24, {.padding = 1}), 0.3F);
  x = relu(add(y, conv_bn(x, "b.down", 24, {.kernel = 1, .stride = 2})));
  g.output(linear(global_avg_pool(x), 5, {.name = "fc"}));
}

// Pools in ceil mode, of unlike padding and without counted padding.
void pooled(Graph& g) {
  Value x = g.input("image", {10, 9, 3});
  x = relu(conv_bn(x, "stem", 10, {.padding = 1}));
  Value y = max_pool(x, {.kernel = 3, .stride = 2, .ceil_mode = true});
  y = add(y, avg_pool(x, {.kernel = 3, .stride = 2, .ceil_mode = true, .count_include_pad = false}));
  y = avg_pool(y, {.kernel = 3, .stride = 1, .padding = 1, .count_include_pad = false});
  y = max_pool(y, {.kernel = 3, .stride = 2, .padding = {0, 0, 1, 1}});
  y = avg_pool(y, {.kernel = 2, .stride = 2, .padding = {1, 0}, .ceil_mode = true});
  g.output(linear(global_avg_pool(y), 5, {.name = "fc"}));
}

// Down and up again, with borders, and batch norms that do not learn their statistics.
void enlarged(Graph& g) {
  Value x = g.input("image", {9, 8, 3});
  x = pad(x, {1, 0, 0, 2}, 0.5F);
  Value y = batch_norm(conv2d(x, 8, {.name = "c1", .kernel = 3, .stride = 2}), {.name = "bn1", .frozen = true});
  Value z = batch_norm(conv2d(y, 8, {.name = "c2", .padding = 1}), {.name = "bn2", .frozen = true});
  y = relu(add(z, relu(y)));
  z = conv_transpose2d(y, 10, {.name = "up1", .kernel = 3, .padding = 1, .output_padding = {1, 0}, .bias = true});
  z = relu(batch_norm(z, {.name = "bn3"}));
  z = conv_transpose2d(z, 6, {.name = "up2", .kernel = 2, .stride = 1, .dilation = 2, .groups = 2});
  z = add(upsample(z, {11, 7}, Upsampling::bilinear), upsample(pad(z, 1, -1), {11, 7}));
  g.output(linear(global_avg_pool(relu6(batch_norm(z, {.name = "bn4", .frozen = true}))), 5, {.name = "fc"}));
}

}  // namespace

const std::vector<Network>& networks() {
  static const std::vector<Network> all{{"lenet", lenet},         {"resnet", resnet},     {"cifar", cifar},
                                        {"mobilenet", mobilenet}, {"mixed", mixed},       {"activations", activations},
                                        {"excited", excited},     {"shuffled", shuffled}, {"normed", normed},
                                        {"dropped", dropped},     {"convnext", convnext}, {"pooled", pooled},
                                        {"enlarged", enlarged}};
  return all;
}

const Network& network(const std::string& name) {
  const auto found =
      std::find_if(networks().begin(), networks().end(), [&](const Network& n) { return n.name == name; });
  if (found == networks().end()) throw Error("no test network is named '" + name + "'");
  return *found;
}

std::vector<PassSet> pass_sets() {
  return {{"all", {}},
          {"none", {.fold = false, .fuse = false, .in_place = false, .dead_code = false}},
          {"all but fold", {.fold = false}},
          {"all but fuse", {.fuse = false}},
          {"all but in-place", {.in_place = false}},
          {"all but dead code", {.dead_code = false}}};
}

void randomise(Params& params, uint64_t seed, double largest_scale) {
  for (size_t i = 0; i < params.specs().size(); ++i) {
    const ParamSpec& spec = params.specs()[i];
    if (spec.shape.rank() > 1) continue;  // weights have random initial values
    const bool scale = spec.init == Init::constant(1);
    const auto values = random_values(spec.shape.elements(), seed + i, scale ? 0.5 : -0.5, scale ? largest_scale : 0.5);
    params.set_values(static_cast<int>(i), {values.begin(), values.end()});
  }
}

std::vector<reference::Values> values_of(const Params& params) {
  std::vector<reference::Values> all;
  for (size_t i = 0; i < params.specs().size(); ++i) all.push_back(doubles(params.values(static_cast<int>(i))));
  return all;
}

reference::NetworkInput random_input(const Graph& graph, int batch, uint64_t seed, int height, int width) {
  const Shape& declared = graph.layers()[0].shape;
  reference::NetworkInput input;
  input.batch = batch;
  input.height = height > 0 ? height : static_cast<int>(declared[0]);
  input.width = width > 0 ? width : static_cast<int>(declared[1]);
  input.seed = seed;
  input.step = 3;
  input.first_row = 5;
  const int64_t row = int64_t{input.height} * input.width * declared[2];
  for (const double v : random_values(batch * row, seed)) input.images.push_back(rounded(v, DType::f32));
  for (int n = 0; n < batch; ++n) {
    input.labels.push_back(static_cast<int32_t>((static_cast<int64_t>(n) * 5 + 2) % graph.classes()));
    input.weights.push_back(n == 1 ? 0.5 : 1);
  }
  if (batch > 2) input.weights.back() = 0;
  return input;
}

DeviceBatch::DeviceBatch(Context& context, const Graph& graph, const reference::NetworkInput& input)
    : context_(context),
      input_(input),
      images_(context, DType::f32, {input.batch, input.height, input.width, graph.layers()[0].shape[2]}, input.images),
      labels_(context, DType::i32, {input.batch}, {input.labels.begin(), input.labels.end()}),
      weights_(context, DType::f32, {input.batch}, input.weights) {}

DeviceBatch::~DeviceBatch() {
  try {
    context_.compute().record().wait();
  } catch (const std::exception&) {  // synchronize() reports it
  }
}

StepInput DeviceBatch::step_input(int64_t step, float learning_rate) const {
  StepInput s;
  s.step = step;
  s.seed = input_.seed;
  s.first_row = input_.first_row;
  s.learning_rate = learning_rate;
  for (const double w : input_.weights) s.weight_sum += static_cast<float>(w);
  s.images = images_.as<float>();
  s.labels = labels_.as<int32_t>();
  s.weights = weights_.as<float>();
  return s;
}

double norm(const std::vector<double>& v) { return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0)); }

double relative_error(const std::vector<double>& found, const std::vector<double>& expected, double floor) {
  if (found.size() != expected.size()) return INFINITY;
  std::vector<double> difference = found;
  for (size_t i = 0; i < found.size(); ++i) difference[i] -= expected[i];
  return norm(difference) / (norm(expected) + floor);
}

std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

}  // namespace convolt::test
