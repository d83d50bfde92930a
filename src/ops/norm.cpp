// Group and layer normalisation: one op, for other sets of elements.
#include "norm.h"

#include <fmt/format.h>

#include "convolt/layers.h"
#include "graph/cost.h"
#include "graph/layer.h"

namespace convolt {
namespace {

std::vector<ParamSpec> norm_params(const Layer&, const std::vector<Shape>& inputs, const Graph&) {
  const int64_t c = inputs[0][-1];
  return {{.name = "weight", .shape = {c}, .decays = false, .init = Init::constant(1)},
          {.name = "bias", .shape = {c}, .decays = false, .init = Init::constant(0)}};
}
ValueId emit_norm(LoweringContext& c, const NormAttrs& attrs) {
  return c.emit(ops::norm, {c.inputs[0], c.params[0], c.params[1]}, attrs)[0];
}

Shape group_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& o = std::any_cast<const GroupNormOptions&>(layer.attributes);
  check_eps(layer, o.eps);
  if (o.groups < 1 || inputs[0][-1] % o.groups != 0)
    layer_error(layer, fmt::format("the channels of {} do not divide into {} groups", inputs[0].to_string(), o.groups));
  return inputs[0];
}
ValueId lower_group(LoweringContext& c) {
  const auto& o = std::any_cast<const GroupNormOptions&>(c.layer.attributes);
  const Shape& x = c.program[c.inputs[0]].shape;
  return emit_norm(c, {.sets = {.pixels = x.elements() / x[0] / x[-1], .groups = o.groups}, .eps = o.eps});
}
Attributes group_attributes(std::any& any) {
  auto& o = attributes_as<GroupNormOptions>(any);
  return {{"groups", &o.groups}, {"eps", &o.eps}};
}
const LayerDef kGroupNorm{.kind = "group_norm",
                          .shape = group_shape,
                          .params = norm_params,
                          .lower = lower_group,
                          .attributes = group_attributes};

ValueId lower_layer_norm(LoweringContext& c) {
  return emit_norm(c, {.eps = std::any_cast<const LayerNormOptions&>(c.layer.attributes).eps});
}
const LayerDef kLayerNorm{.kind = "layer_norm",
                          .shape =
                              [](const Layer& layer, const std::vector<Shape>& inputs) {
                                check_eps(layer, std::any_cast<const LayerNormOptions&>(layer.attributes).eps);
                                return inputs[0];
                              },
                          .params = norm_params,
                          .lower = lower_layer_norm,
                          .attributes = [](std::any& any) -> Attributes {
                            return {{"eps", &attributes_as<LayerNormOptions>(any).eps}};
                          }};

const NormAttrs& norm_of(const Op& op) { return std::get<NormAttrs>(op.attrs); }

Launch bind_norm(const Op& op, const Binding& b) {
  return [x = b.in(op, 0), gamma = b.in(op, 1).as<const float>(), beta = b.in(op, 2).as<const float>(),
          y = b.out(op, 0), stats = b.out(op, 1).as<float>(), a = norm_of(op)](Stream s) {
    norm_stats(s, x, a.sets, a.eps, stats);
    norm_apply(s, x, a.sets, stats, gamma, beta, y);
  };
}

void norm_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]), x = op.in[0], stats = op.out[1];
  const auto sums = b.emit(
      {.def = &ops::norm_backward_params, .in = {dy, x, stats}, .attrs = op.attrs, .layer = op.layer}, "dparams");
  b.flow_to_param(op.in[1], sums[0]);
  b.flow_to_param(op.in[2], sums[1]);
  if (!b.wanted(x)) return;
  Op g{.def = &ops::norm_backward, .in = {dy, x, stats, op.in[1]}, .attrs = op.attrs, .layer = op.layer};
  b.flow(x, b.emit(std::move(g), "dx")[0]);
}

int two_launches(const Op&) { return 2; }
// The first launch sums, the second goes over the same operands and reads what the first made of them.
int64_t norm_bytes(const Op& op, const Program& p) {
  return 2 * bytes_of({op.in[0], op.out[1]}, p) + bytes_of({op.in[1], op.in[2], op.out[0]}, p);
}
int64_t norm_backward_bytes(const Op& op, const Program& p) { return 2 * bytes_of(op.in, p) + bytes_of(op.out, p); }

}  // namespace

Value group_norm(Value x, GroupNormOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kGroupNorm, std::move(name), {x}, std::move(options));
}
Value layer_norm(Value x, LayerNormOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kLayerNorm, std::move(name), {x}, std::move(options));
}

std::vector<const LayerDef*> norm_kinds() { return {&kGroupNorm, &kLayerNorm}; }

namespace ops {

// (x, gamma, beta) -> (y, stats f32 [sets, 2])
const OpDef norm{.name = "norm",
                 .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                   const Shape& x = p[op.in[0]].shape;
                   return {{p[op.in[0]].dtype, x}, {DType::f32, {norm_of(op).sets.sets_of(x), 2}}};
                 },
                 .bind = bind_norm,
                 .gradient = norm_gradient,
                 .bytes = norm_bytes,
                 .launches = two_launches,
                 .in_place = {{0, 0}}};

// (dy, x, stats) -> (dgamma, dbeta)
const OpDef norm_backward_params{
    .name = "norm_backward_params",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
      const int64_t c = p[op.in[0]].shape[-1];
      return {{DType::f32, {c}}, {DType::f32, {c}}};
    },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), x = b.in(op, 1), stats = b.in(op, 2).as<const float>(),
              scratch = static_cast<float*>(b.scratch(op)), dgamma = b.out(op, 0).as<float>(),
              dbeta = b.out(op, 1).as<float>(), sets = norm_of(op).sets](Stream s) {
        convolt::norm_backward_params(s, dy, x, sets, stats, scratch, dgamma, dbeta);
      };
    },
    .scratch = [](const Op& op, const Program& p) { return norm_backward_params_scratch(p[op.in[0]].shape); }};

// (dy, x, stats, gamma) -> dx
const OpDef norm_backward{
    .name = "norm_backward",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
      return {{p[op.in[0]].dtype, p[op.in[0]].shape}};
    },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), x = b.in(op, 1), stats = b.in(op, 2).as<const float>(),
              gamma = b.in(op, 3).as<const float>(), means = static_cast<float*>(b.scratch(op)), dx = b.out(op, 0),
              sets = norm_of(op).sets](Stream s) { convolt::norm_backward(s, dy, x, sets, stats, gamma, means, dx); };
    },
    .bytes = norm_backward_bytes,
    .scratch = [](const Op& op, const Program& p) { return norm_of(op).sets.sets_of(p[op.in[0]].shape) * 8; },
    .launches = two_launches,
    .in_place = {{0, 0}}};

}  // namespace ops
}  // namespace convolt
