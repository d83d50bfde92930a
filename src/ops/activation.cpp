// Activations, addition and dropout.
#include "activation.h"

#include <fmt/format.h>

#include "convolt/layers.h"
#include "graph/layer.h"
#include "ops/shared.h"

namespace convolt {
namespace {

Shape same_shape(const Layer&, const std::vector<Shape>& inputs) { return inputs[0]; }

ValueId lower_activation(LoweringContext& c) {
  return c.emit(ops::activation, {c.inputs[0]}, ActAttrs{std::any_cast<Act>(c.layer.attributes)})[0];
}
template <Activation A>
Attributes act_attributes(std::any& any) {
  if (!any.has_value()) any = Act(A);
  if (A != Activation::leaky_relu) return {};
  return {{"slope", &std::any_cast<Act&>(any).slope}};
}
template <Activation A>
LayerDef kind() {
  return {.kind = name_of(A),
          .shape = same_shape,
          .lower = lower_activation,
          .elementwise = true,
          .attributes = act_attributes<A>};
}
// A kind of layer for each activation, named as it and in their order.
const std::vector<LayerDef>& activation_kinds() {
  using enum Activation;
  static const std::vector<LayerDef> kinds{kind<none>(), kind<relu>(),    kind<relu6>(),     kind<leaky_relu>(),
                                           kind<silu>(), kind<gelu>(),    kind<hardswish>(), kind<hardsigmoid>(),
                                           kind<mish>(), kind<sigmoid>(), kind<tanh>()};
  return kinds;
}
const LayerDef& kind_of(Activation a) { return activation_kinds()[static_cast<size_t>(a)]; }

Shape add_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  if (!(inputs[0] == inputs[1]))
    layer_error(layer, "expected equal shapes, found " + inputs[0].to_string() + " and " + inputs[1].to_string());
  return inputs[0];
}
const LayerDef kAdd{.kind = "add",
                    .shape = add_shape,
                    .lower = [](LoweringContext& c) { return c.emit(ops::add, c.inputs, {})[0]; },
                    .inputs = 2};

ValueId lower_dropout(LoweringContext& c) {
  const auto p = std::any_cast<float>(c.layer.attributes);
  if (!c.training || p == 0) return c.inputs[0];
  return c.emit(ops::dropout, {c.inputs[0]}, DropoutAttrs{p, static_cast<uint32_t>(c.index)})[0];
}
Shape dropout_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  if (const auto p = std::any_cast<float>(layer.attributes); !(p >= 0 && p < 1))
    layer_error(layer, fmt::format("the probability must be at least 0 and below 1, found {}", p));
  return inputs[0];
}
Attributes dropout_attributes(std::any& any) { return {{"p", &attributes_as<float>(any)}}; }
const LayerDef kDropout{.kind = "dropout",
                        .shape = dropout_shape,
                        .lower = lower_dropout,
                        .elementwise = true,
                        .attributes = dropout_attributes};

Act act(const Op& op) { return std::get<ActAttrs>(op.attrs).act; }

Launch bind_dropout(const Op& op, const Binding& b) {
  return [x = b.in(op, 0), y = b.out(op, 0), a = std::get<DropoutAttrs>(op.attrs), input = b.input](Stream s) {
    convolt::dropout(s, x, y, a.p, a.layer, input);
  };
}

}  // namespace

Value activation(Value x, Activation a, float slope) {
  if (a == Activation::none) return x;
  if (static_cast<size_t>(a) >= activation_kinds().size())
    throw UsageError("there is no activation " + std::to_string(static_cast<int>(a)));
  return graph_of(x).append(kind_of(a), "", {x}, Act(a, slope));
}
Value relu(Value x) { return activation(x, Activation::relu); }
Value relu6(Value x) { return activation(x, Activation::relu6); }
Value leaky_relu(Value x, float slope) { return activation(x, Activation::leaky_relu, slope); }
Value silu(Value x) { return activation(x, Activation::silu); }
Value gelu(Value x) { return activation(x, Activation::gelu); }
Value hardswish(Value x) { return activation(x, Activation::hardswish); }
Value hardsigmoid(Value x) { return activation(x, Activation::hardsigmoid); }
Value mish(Value x) { return activation(x, Activation::mish); }
Value sigmoid(Value x) { return activation(x, Activation::sigmoid); }
Value tanh(Value x) { return activation(x, Activation::tanh); }
Value add(Value a, Value b) { return graph_of(a).append(kAdd, "", {a, b}, {}); }
Value dropout(Value x, float p) { return graph_of(x).append(kDropout, "", {x}, p); }

std::vector<const LayerDef*> elementwise_kinds() {
  std::vector<const LayerDef*> kinds{&kAdd, &kDropout};
  for (size_t i = 1; i < activation_kinds().size(); ++i) kinds.push_back(&activation_kinds()[i]);  // none is no layer
  return kinds;
}

namespace ops {

const OpDef activation{
    .name = "activation",
    .infer = as_first,
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [x = b.in(op, 0), y = b.out(op, 0), a = act(op)](Stream s) { convolt::activation(s, x, y, a); };
    },
    .gradient =
        [](const Op& op, GradientBuilder& b) {
          // Reading x here keeps it alive, so that the forward op is not given its memory for y.
          const ValueId dy = b.gradient_of(op.out[0]);
          const ValueId kept = gradient_from_output(act(op)) ? op.out[0] : op.in[0];
          b.flow(op.in[0],
                 b.emit({.def = &ops::activation_backward, .in = {dy, kept}, .attrs = op.attrs, .layer = op.layer},
                        "dx")[0]);
        },
    .in_place = {{0, 0}}};
const OpDef activation_backward{.name = "activation_backward",
                                .infer = as_first,
                                .bind = [](const Op& op, const Binding& b) -> Launch {
                                  return [dy = b.in(op, 0), kept = b.in(op, 1), dx = b.out(op, 0),
                                          a = act(op)](Stream s) { convolt::activation_backward(s, dy, kept, dx, a); };
                                },
                                .in_place = {{0, 0}, {1, 0}}};
const OpDef add{.name = "add",
                .infer = as_first,
                .bind = [](const Op& op, const Binding& b) -> Launch {
                  return [x = b.in(op, 0), z = b.in(op, 1), y = b.out(op, 0)](Stream s) { convolt::add(s, x, z, y); };
                },
                .gradient =
                    [](const Op& op, GradientBuilder& b) {
                      for (const ValueId v : op.in)
                        if (b.wanted(v)) b.flow(v, b.gradient_of(op.out[0]));
                    },
                .in_place = {{0, 0}, {1, 0}}};
const OpDef dropout{.name = "dropout",
                    .infer = as_first,
                    .bind = bind_dropout,
                    .gradient =
                        [](const Op& op, GradientBuilder& b) {
                          b.flow(op.in[0], b.emit({.def = &ops::dropout_backward,
                                                   .in = {b.gradient_of(op.out[0])},
                                                   .attrs = op.attrs,
                                                   .layer = op.layer},
                                                  "dx")[0]);
                        },
                    .in_place = {{0, 0}}};
// The same mask and scale, drawn again.
const OpDef dropout_backward{.name = "dropout_backward", .infer = as_first, .bind = bind_dropout, .in_place = {{0, 0}}};

}  // namespace ops
}  // namespace convolt
