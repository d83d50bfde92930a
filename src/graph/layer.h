// A kind of layer: its shape rule, its parameters and how it becomes ops.
#pragma once

#include <any>
#include <string>
#include <string_view>
#include <vector>

#include "convolt/graph.h"
#include "graph/attributes.h"
#include "graph/op.h"

namespace convolt {

// The graph of a layer's operand; throws UsageError where it has none.
Graph& graph_of(const Value& value);

// What lowering offers to a layer.
struct LoweringContext {
  Program& program;
  const Layer& layer;
  int index;                        // of the layer in the graph
  std::vector<ValueId> inputs;      // values of the layer's inputs
  std::vector<ValueId> params;      // f32 values of its parameters, in the order that `params` declared
  std::vector<ValueId> low_params;  // the same in the plan's dtype (equal to params for f32)
  DType dtype;
  bool tf32;
  bool training;

  // Appends to the step; the op's layer is set. Returns the outputs.
  std::vector<ValueId> emit(const OpDef& def, std::vector<ValueId> in, Attrs attrs, const std::string& suffix = "");
  // The same for `prepare`; outputs are persistent.
  std::vector<ValueId> emit_prepare(const OpDef& def, std::vector<ValueId> in, Attrs attrs,
                                    const std::string& suffix = "");
};

struct LayerDef {
  std::string_view kind;
  // Shape of the output for input shapes (without batch). Throws ShapeError with layer_error().
  Shape (*shape)(const Layer& layer, const std::vector<Shape>& inputs) = nullptr;
  // Parameters (names without the layer's prefix; an empty name: the layer's own); null: none.
  std::vector<ParamSpec> (*params)(const Layer& layer, const std::vector<Shape>& inputs, const Graph& graph) = nullptr;
  ValueId (*lower)(LoweringContext& context) = nullptr;
  // Each element of the output depends on that one element of the input alone: shape and order stay.
  bool elementwise = false;
  int inputs = 1;  // 0: one or more
  // What Layer::attributes holds, made anew in an empty `any`; null: nothing.
  Attributes (*attributes)(std::any& any) = nullptr;
  // Sets the attributes that follow from the inputs, when the layer is appended.
  void (*complete)(Layer& layer, const std::vector<Shape>& inputs, const Graph& graph) = nullptr;
};

// The kinds that each file of src/ops/ defines.
std::vector<const LayerDef*> elementwise_kinds();
std::vector<const LayerDef*> batch_norm_kinds();
std::vector<const LayerDef*> channel_kinds();
std::vector<const LayerDef*> convolution_kinds();
std::vector<const LayerDef*> norm_kinds();
std::vector<const LayerDef*> pooling_kinds();
std::vector<const LayerDef*> resample_kinds();
std::vector<const LayerDef*> stochastic_depth_kinds();

// All of them: what a network file may name.
const std::vector<const LayerDef*>& all_layer_kinds();
// Null for an unknown kind.
const LayerDef* find_layer_kind(std::string_view kind);

// "conv2d 'layer1.0.conv1': kernel 7 exceeds padded input 5x5"
[[noreturn]] void layer_error(const Layer& layer, const std::string& message);
// Throws so where a norm's eps is negative or not finite.
void check_eps(const Layer& layer, float eps);

}  // namespace convolt
