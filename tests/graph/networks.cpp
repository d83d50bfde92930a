#include "graph/networks.h"

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
             {.name = "c1", .kernel = 3, .padding = 2, .dilation = 2, .bias = true, .init = Init::uniform_fan_in});
  x = relu6(batch_norm(x, {.name = "bn"}));
  x = dropout(avg_pool(x, {.kernel = 3, .stride = 2, .padding = 1}), 0.3F);
  const Value z = conv2d(x, 10, {.name = "c2", .groups = 2});
  x = add(batch_norm(z, {.name = "bn1", .momentum = 0.3F}), z);  // z has two readers
  x = relu(add(x, x));
  x = dropout(flatten(slice_pad(x, 2, 13, 2)), 0.25F);
  x = relu(batch_norm(linear(x, 12, {.name = "fc1", .bias = false}), {.name = "bn2", .eps = 1e-3F}));
  g.output(linear(x, 6, {.name = "fc2"}));
}

}  // namespace

const std::vector<Network>& networks() {
  static const std::vector<Network> all{
      {"lenet", lenet}, {"resnet", resnet}, {"cifar", cifar}, {"mobilenet", mobilenet}, {"mixed", mixed}};
  return all;
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
    const bool scale = spec.init == Init::ones;
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
