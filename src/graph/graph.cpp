#include "convolt/graph.h"

#include <algorithm>
#include <cmath>

#include "graph/checkpoint_names.h"
#include "graph/layer.h"

namespace convolt {

Shape Value::shape() const {
  if (graph == nullptr || layer < 0 || static_cast<size_t>(layer) >= graph->layers().size())
    throw UsageError("a Value that no layer has made");
  return graph->layers()[static_cast<size_t>(layer)].shape;
}

Shape ParamSpec::file_shape() const {
  if (file == File::oihw) return {shape[0], shape[3], shape[1], shape[2]};
  if (file == File::flattened) return {shape[0], shape.elements() / shape[0]};
  if (file == File::column) return {shape[0], 1, 1};
  return shape;
}

void layer_error(const Layer& layer, const std::string& message) {
  throw ShapeError(std::string(layer.def->kind) + " '" + layer.name + "': " + message);
}

Graph& graph_of(const Value& value) {
  if (value.graph == nullptr) throw UsageError("a layer takes a Value that no layer has made");
  return *value.graph;
}

void check_eps(const Layer& layer, float eps) {
  if (!(eps >= 0) || std::isinf(eps)) layer_error(layer, "eps must be at least 0, found " + std::to_string(eps));
}

namespace {
const LayerDef kInput{"input", [](const Layer& layer, const std::vector<Shape>&) { return layer.shape; }, nullptr,
                      [](LoweringContext&) -> ValueId { throw Error("the input layer is lowered by the plan"); }};
}

Value Graph::input(std::string name, Shape shape) {
  if (!layers_.empty()) throw UsageError("a graph has one input, and it comes first");
  if (shape.rank() != 3 || (shape[2] != 1 && shape[2] != 3) || shape[0] < 1 || shape[1] < 1)
    throw ShapeError("input '" + name + "': expected [height, width, 1 or 3], found " + shape.to_string());
  layers_.push_back({&kInput, std::move(name), {}, {}, shape, {}});
  return {this, 0};
}

Value Graph::find(const std::string& name) {
  for (size_t i = 0; i < layers_.size(); ++i)
    if (layers_[i].name == name) return {this, static_cast<int>(i)};
  throw UsageError("the graph has no layer '" + name + "'" +
                   (layers_.empty() ? "" : "; the last one is '" + layers_.back().name + "'"));
}

void Graph::output(Value logits) {
  if (logits.graph != this) throw UsageError("output() got a value of another graph");
  if (logits.shape().rank() != 1)
    throw ShapeError("the output must be a vector of logits [K], found " + logits.shape().to_string() +
                     "; flatten() or pool it first");
  output_ = logits.layer;
}

int Graph::output_layer() const {
  if (output_ < 0) throw UsageError("the graph has no output: call Graph::output(logits)");
  return output_;
}

int64_t Graph::parameter_count() const {
  int64_t n = 0;
  for (const ParamSpec& p : params_)
    if (p.trainable) n += p.shape.elements();
  return n;
}

std::vector<Shape> Graph::shapes_for(int height, int width) const {
  std::vector<Shape> shapes;
  for (const Layer& layer : layers_) {
    if (shapes.empty()) {
      shapes.push_back({height, width, layer.shape[2]});
      continue;
    }
    std::vector<Shape> inputs;
    for (int i : layer.inputs) inputs.push_back(shapes[static_cast<size_t>(i)]);
    shapes.push_back(layer.def->shape(layer, inputs));
  }
  return shapes;
}

Value Graph::append(const LayerDef& def, std::string name, std::vector<Value> inputs, std::any attributes) {
  if (name.empty()) {
    const auto same = std::count_if(layers_.begin(), layers_.end(), [&](const Layer& l) { return l.def == &def; });
    name = std::string(def.kind) + std::to_string(same + 1);
  }
  for (const Layer& l : layers_)
    if (l.name == name) throw UsageError("two layers are named '" + name + "'");
  Layer layer{&def, std::move(name), {}, std::move(attributes), {}, {}};
  std::vector<Shape> shapes;
  for (const Value& v : inputs) {
    if (v.graph != this) throw UsageError("layer '" + layer.name + "' takes a value of another graph");
    layer.inputs.push_back(v.layer);
    shapes.push_back(v.shape());
  }
  const int count = static_cast<int>(inputs.size());
  if (def.inputs > 0 ? count != def.inputs : count == 0)
    layer_error(layer, "expected " + (def.inputs > 0 ? std::to_string(def.inputs) : "at least 1") + " inputs, found " +
                           std::to_string(count));
  if (def.complete != nullptr) def.complete(layer, shapes, *this);
  layer.shape = def.shape(layer, shapes);
  if (def.params != nullptr) {
    std::vector<ParamSpec> wanted = def.params(layer, shapes, *this);
    std::set<std::string> names;
    for (ParamSpec& p : wanted) {
      p.name = p.name.empty() ? layer.name : layer.name + "." + p.name;
      if (!std::isfinite(p.init.gain)) layer_error(layer, "the gain of '" + p.name + "' is not finite");
      if (is_reserved(p.name))
        throw UsageError("a parameter cannot be called '" + p.name + "': checkpoints mean something else by that name");
      if (param_names_.contains(p.name) || !names.insert(p.name).second)
        throw UsageError("two parameters are called '" + p.name + "': give layer '" + layer.name + "' another name");
    }
    param_names_.merge(names);
    for (ParamSpec& p : wanted) {
      layer.params.push_back(static_cast<int>(params_.size()));
      params_.push_back(std::move(p));
    }
  }
  layers_.push_back(std::move(layer));
  return {this, static_cast<int>(layers_.size()) - 1};
}

}  // namespace convolt
