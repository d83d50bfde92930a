// A network as a value: layers and what flows between them. A graph holds no numbers and knows no device, batch or
// picture size; shapes leave out the batch: [H, W, C] for pictures, [K] for vectors.
#pragma once

#include <any>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "convolt/shape.h"

namespace convolt {

class Graph;

// The output of a layer. A handle: cheap to copy, valid as long as its graph.
struct Value {
  Graph* graph = nullptr;  // that it belongs to
  int layer = -1;          // in Graph::layers()
  // Without the batch. Throws UsageError for a Value that no layer has made.
  Shape shape() const;  // by value: the graph grows
};

// How a parameter starts: a value, or gain / sqrt(fan) as standard deviation or bound of what is drawn. Formulas as in
// torch.nn.init; fans count kernel positions. The last four are shorthands: torch's default of convolutions, linear
// layers and their biases is uniform_fan_in().
struct Init {
  // truncated_normal: at +-2. identity: of a convolution, each of the first outputs is the input of the same number, as
  // many as there are; the rest as uniform.
  enum class Kind : uint8_t { constant, normal, uniform, truncated_normal, identity } kind = Kind::constant;
  float gain = 0;  // the value, standard deviation or bound, before it is divided
  // What gain is divided by the root of.
  enum class Fan : uint8_t { none, in, out } fan = Fan::none;

  // Named ones.
  static constexpr Init constant(float value) { return {Kind::constant, value, Fan::none}; }
  static constexpr Init normal(float std) { return {Kind::normal, std, Fan::none}; }
  static constexpr Init truncated_normal(float std) { return {Kind::truncated_normal, std, Fan::none}; }
  static constexpr Init kaiming_normal_fan_out() { return {Kind::normal, 1.41421356F, Fan::out}; }
  static constexpr Init kaiming_normal_fan_in() { return {Kind::normal, 1.41421356F, Fan::in}; }
  static constexpr Init kaiming_uniform_fan_in() { return {Kind::uniform, 2.44948974F, Fan::in}; }
  static constexpr Init uniform_fan_in() { return {Kind::uniform, 1, Fan::in}; }
  static constexpr Init identity() { return {Kind::identity, 1, Fan::in}; }
  // All fields.
  friend bool operator==(const Init&, const Init&) = default;
};

// A tensor of the network's state. Weights of convolutions are OHWI in memory and OIHW in files.
struct ParamSpec {
  std::string name;       // as torchvision names it: "layer1.0.conv1.weight"
  Shape shape;            // in memory
  bool trainable = true;  // false: a buffer (running statistics)
  bool decays = true;     // weight decay applies where --norm-weight-decay asks for another value (false for norms)
  Init init;              // how it starts
  int64_t fan_in = 1, fan_out = 1;  // inputs of one output and outputs of one input
  // In files the extents are permuted: [O, H, W, I] <-> [O, I, H, W]. For a linear layer after flatten() the shape in
  // memory is [out, H, W, C] and in the file [out, C * H * W], as torch flattens NCHW pictures.
  // column: [C] in memory, [C, 1, 1] in the file.
  enum class File : uint8_t { as_is, oihw, flattened, column } file = File::as_is;
  Shape file_shape() const;
};

struct LayerDef;  // src/graph/layer.h

// One step of a network.
struct Layer {
  const LayerDef* def = nullptr;  // its kind
  std::string name;               // unique; the prefix of its parameters' names
  std::vector<int> inputs;        // layers
  std::any attributes;            // of the type that its definition expects
  Shape shape;                    // of its output
  std::vector<int> params;        // indices into Graph::params()
};

// The layers of one network, in the order in which they were made, and the parameters that they want.
class Graph {
public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // What the layer of that name makes; throws UsageError where there is none. output(global_avg_pool(find("relu17")))
  // makes features of a network that has its weights already: Params fit as long as no layer with parameters comes on
  // top.
  Value find(const std::string& name);

  // The picture, [H, W, C] with C 1 or 3. One for each graph.
  Value input(std::string name, Shape shape);
  // What eval and predict report: the logits [K]. May be called again.
  void output(Value logits);

  // All layers (the input first), all parameters, and the input's place among the layers.
  const std::vector<Layer>& layers() const { return layers_; }
  const std::vector<ParamSpec>& params() const { return params_; }
  int input_layer() const { return 0; }
  // Throws UsageError when output() was not called.
  int output_layer() const;
  int64_t classes() const { return layers_[static_cast<size_t>(output_layer())].shape[0]; }
  // Elements of all trainable parameters.
  int64_t parameter_count() const;

  // The shape of every layer for pictures of another size; throws ShapeError that names the layer that cannot take it.
  std::vector<Shape> shapes_for(int height, int width) const;

  // For layer functions: appends a layer. An empty name becomes "<kind><n>". Throws ShapeError from the layer's shape
  // rule and UsageError for a name taken twice or kept for other tensors of checkpoints ("ema.", "optim."), and for a
  // value of another graph.
  Value append(const LayerDef& def, std::string name, std::vector<Value> inputs, std::any attributes);

private:
  std::vector<Layer> layers_;
  std::vector<ParamSpec> params_;
  std::set<std::string> param_names_;
  int output_ = -1;
};

}  // namespace convolt
