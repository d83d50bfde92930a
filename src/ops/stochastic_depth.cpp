// Stochastic depth.
#include "stochastic_depth.h"

#include <fmt/format.h>

#include "convolt/layers.h"
#include "graph/layer.h"

namespace convolt {
namespace {

Shape shape_of(const Layer& layer, const std::vector<Shape>& inputs) {
  if (const auto p = std::any_cast<float>(layer.attributes); !(p >= 0 && p < 1))
    layer_error(layer, fmt::format("the probability must be at least 0 and below 1, found {}", p));
  return inputs[0];
}
ValueId lower(LoweringContext& c) {
  const auto p = std::any_cast<float>(c.layer.attributes);
  if (!c.training || p == 0) return c.inputs[0];
  return c.emit(ops::stochastic_depth, {c.inputs[0]}, DropoutAttrs{p, static_cast<uint32_t>(c.index)})[0];
}
Attributes attributes(std::any& any) { return {{"p", &attributes_as<float>(any)}}; }
const LayerDef kStochasticDepth{
    .kind = "stochastic_depth", .shape = shape_of, .lower = lower, .elementwise = true, .attributes = attributes};

}  // namespace

Value stochastic_depth(Value x, float p) { return graph_of(x).append(kStochasticDepth, "", {x}, p); }

std::vector<const LayerDef*> stochastic_depth_kinds() { return {&kStochasticDepth}; }

namespace ops {

// Its gradient is itself on dy: the same rows and scale, drawn again.
const OpDef stochastic_depth{
    .name = "stochastic_depth",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
      return {{p[op.in[0]].dtype, p[op.in[0]].shape}};
    },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [x = b.in(op, 0), y = b.out(op, 0), a = std::get<DropoutAttrs>(op.attrs), input = b.input](Stream s) {
        convolt::stochastic_depth(s, x, y, a.p, a.layer, input);
      };
    },
    .gradient =
        [](const Op& op, GradientBuilder& b) {
          Op g{.def = &ops::stochastic_depth, .in = {b.gradient_of(op.out[0])}, .attrs = op.attrs, .layer = op.layer};
          b.flow(op.in[0], b.emit(std::move(g), "dx")[0]);
        },
    .in_place = {{0, 0}}};

}  // namespace ops
}  // namespace convolt
