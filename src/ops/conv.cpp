// Convolution and fully connected layers.
#include <fmt/format.h>

#include "batch_norm.h"
#include "graph/layer.h"
#include "graph/layer_attributes.h"

namespace convolt {
namespace {

ConvGeometry geometry_of(const Conv2dOptions& o, const Shape& in, int64_t channels) {
  ConvGeometry g;
  g.in_h = in[0];
  g.in_w = in[1];
  g.in_c = in[2];
  g.out_c = channels;
  g.kernel_h = g.kernel_w = o.kernel;
  g.stride_h = g.stride_w = o.stride;
  g.pad_h = g.pad_w = o.padding;
  g.dilation_h = g.dilation_w = o.dilation;
  g.groups = o.groups;
  return g;
}

Shape conv_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& [o, channels] = std::any_cast<const ConvLayer&>(layer.attributes);
  const Shape& in = inputs[0];
  if (in.rank() != 3) layer_error(layer, "expected a picture [H, W, C], found " + in.to_string());
  if (o.kernel < 1 || o.stride < 1 || o.padding < 0 || o.dilation < 1 || o.groups < 1 || channels < 1)
    layer_error(
        layer,
        fmt::format(
            "kernel {}, stride {}, dilation {}, groups {} and channels {} must be positive, padding {} not negative",
            o.kernel, o.stride, o.dilation, o.groups, channels, o.padding));
  if (in[2] % o.groups != 0 || channels % o.groups != 0)
    layer_error(layer,
                fmt::format("{} input and {} output channels do not divide into {} groups", in[2], channels, o.groups));
  const int64_t reach = int64_t{o.dilation} * (o.kernel - 1) + 1;
  if (reach > in[0] + 2 * o.padding || reach > in[1] + 2 * o.padding)
    layer_error(layer, fmt::format("kernel {} exceeds padded input {}x{}", reach, in[0] + 2 * o.padding,
                                   in[1] + 2 * o.padding));
  const ConvGeometry g = geometry_of(o, in, channels);
  return {g.out_h(), g.out_w(), channels};
}

std::vector<ParamSpec> conv_params(const Layer& layer, const std::vector<Shape>& inputs, const Graph&) {
  const auto& [o, channels] = std::any_cast<const ConvLayer&>(layer.attributes);
  const int64_t in = inputs[0][2] / o.groups, window = int64_t{o.kernel} * o.kernel;
  std::vector<ParamSpec> params{{.name = "weight",
                                 .shape = {channels, o.kernel, o.kernel, in},
                                 .init = o.init,
                                 .fan_in = in * window,
                                 .fan_out = channels * window,  // as torch counts it, whatever the groups
                                 .file = ParamSpec::File::oihw}};
  if (o.bias)
    params.push_back({.name = "bias",
                      .shape = {channels},
                      .init = o.init == Init::uniform_fan_in ? Init::uniform_fan_in : Init::zeros,
                      .fan_in = in * window});
  return params;
}

ValueId lower_conv(LoweringContext& c) {
  const auto& [o, channels] = std::any_cast<const ConvLayer&>(c.layer.attributes);
  const Shape& x = c.program[c.inputs[0]].shape;
  ConvAttrs attrs{{ConvPass::fprop, geometry_of(o, {x[1], x[2], x[3]}, channels), c.dtype, c.tf32, {}, {}}};
  attrs.desc.geometry.n = x[0];
  const ValueId y = c.emit(ops::conv_fprop, {c.inputs[0], c.low_params[0]}, attrs)[0];
  return o.bias ? c.emit(ops::add_bias, {y, c.params[1]}, {}, "+bias")[0] : y;
}

const LayerDef kConv2d{"conv2d", conv_shape, conv_params, lower_conv};

Shape linear_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& [o, units, features] = std::any_cast<const LinearLayer&>(layer.attributes);
  if (inputs[0].rank() != 1)
    layer_error(layer, "expected a vector [K], found " + inputs[0].to_string() + "; flatten() it first");
  if (units < 1) layer_error(layer, fmt::format("units must be positive, found {}", units));
  if (inputs[0][0] != features)
    layer_error(layer, fmt::format("its weights take {} features, found {}: this network is tied to one picture size",
                                   features, inputs[0][0]));
  return {units};
}

// The flatten layer that the input of `layer` comes from, through layers that keep the order of elements; null where
// there is none.
const Layer* flattened_before(const Layer& layer, const Graph& graph) {
  const Layer* before = &graph.layers()[static_cast<size_t>(layer.inputs[0])];
  while (before->def->kind == "relu" || before->def->kind == "relu6" || before->def->kind == "dropout")
    before = &graph.layers()[static_cast<size_t>(before->inputs[0])];
  return before->def->kind == "flatten" ? before : nullptr;
}

std::vector<ParamSpec> linear_params(const Layer& layer, const std::vector<Shape>&, const Graph& graph) {
  const auto& [o, units, in] = std::any_cast<const LinearLayer&>(layer.attributes);
  std::vector<ParamSpec> params{
      {.name = "weight", .shape = {units, in}, .init = o.init, .fan_in = in, .fan_out = units}};
  if (const Layer* before = flattened_before(layer, graph)) {
    const Shape& picture = graph.layers()[static_cast<size_t>(before->inputs[0])].shape;
    if (picture.rank() == 3) {
      params[0].shape = {units, picture[0], picture[1], picture[2]};
      params[0].file = ParamSpec::File::flattened;
    }
  }
  if (o.bias) params.push_back({.name = "bias", .shape = {units}, .init = o.bias_init, .fan_in = in});
  return params;
}

ValueId lower_linear(LoweringContext& c) {
  const auto& [o, units, in] = std::any_cast<const LinearLayer&>(c.layer.attributes);
  const Shape& x = c.program[c.inputs[0]].shape;
  const ValueId y = c.emit(ops::linear_fprop, {c.inputs[0], c.low_params[0]},
                           LinearAttrs{{ConvPass::fprop, x[0], in, units, c.dtype, c.tf32, {}}})[0];
  return o.bias ? c.emit(ops::add_bias, {y, c.params[1]}, {}, "+bias")[0] : y;
}

const LayerDef kLinear{"linear", linear_shape, linear_params, lower_linear};

// Operands: fprop (x, w [, bias]) -> y; dgrad (dy, w) -> dx; wgrad (x, dy) -> dw. w may be in the library's packed
// form.
const ConvDesc& conv(const Op& op) { return std::get<ConvAttrs>(op.attrs).desc; }
const LinearDesc& lin(const Op& op) { return std::get<LinearAttrs>(op.attrs).desc; }

template <ConvPass P>
Launch bind_kernel(const Op& op, const Binding& b) {
  ConvArgs args;
  args.workspace = b.scratch(op);
  if constexpr (P == ConvPass::fprop) {
    args.x = b.in(op, 0).data;
    args.w = b.in(op, 1).data;
    args.bias = b.in(op, 2).as<const float>();
    args.y = b.out(op, 0).data;
  } else if constexpr (P == ConvPass::dgrad) {
    args.y = b.in(op, 0).data;
    args.w = b.in(op, 1).data;
    args.x = b.out(op, 0).data;
  } else {
    args.x = b.in(op, 0).data;
    args.y = b.in(op, 1).data;
    args.w = b.out(op, 0).data;
  }
  return [kernel = op.kernel, args](Stream s) { kernel->run(s, args); };
}

int64_t kernel_workspace(const Op& op, const Program&) { return op.kernel ? op.kernel->workspace_bytes() : 0; }

int64_t conv_flops(const Op& op, const Program&) { return conv(op).geometry.flops(); }
int64_t linear_flops(const Op& op, const Program&) { return 2 * lin(op).rows * lin(op).in * lin(op).out; }

void conv_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  ConvAttrs attrs{conv(op)};
  attrs.desc.epilogue = ConvEpilogue::none;
  attrs.desc.pass = ConvPass::wgrad;
  if (b.wanted(op.in[1]))
    b.flow_to_param(
        op.in[1], b.emit({.def = &ops::conv_wgrad, .in = {op.in[0], dy}, .attrs = attrs, .layer = op.layer}, "dw")[0]);
  if (!b.wanted(op.in[0])) return;
  attrs.desc.pass = ConvPass::dgrad;
  b.flow(op.in[0], b.emit({.def = &ops::conv_dgrad, .in = {dy, op.in[1]}, .attrs = attrs, .layer = op.layer}, "dx")[0]);
}

void linear_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  LinearAttrs attrs{lin(op)};
  attrs.desc.pass = ConvPass::wgrad;
  if (b.wanted(op.in[1]))
    b.flow_to_param(
        op.in[1],
        b.emit({.def = &ops::linear_wgrad, .in = {op.in[0], dy}, .attrs = attrs, .layer = op.layer}, "dw")[0]);
  if (!b.wanted(op.in[0])) return;
  attrs.desc.pass = ConvPass::dgrad;
  b.flow(op.in[0],
         b.emit({.def = &ops::linear_dgrad, .in = {dy, op.in[1]}, .attrs = attrs, .layer = op.layer}, "dx")[0]);
}

void add_bias_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  if (b.wanted(op.in[1]))
    b.flow_to_param(op.in[1], b.emit({.def = &ops::channel_sum, .in = {dy}, .layer = op.layer}, "dbias")[0]);
  if (b.wanted(op.in[0])) b.flow(op.in[0], dy);
}

}  // namespace

Value conv2d(Value x, int64_t channels, Conv2dOptions options) {
  std::string name = options.name;
  return x.graph->append(kConv2d, std::move(name), {x}, ConvLayer{std::move(options), channels});
}

Value linear(Value x, int64_t units, LinearOptions options) {
  std::string name = options.name;
  const int64_t features = x.shape()[0];
  return x.graph->append(kLinear, std::move(name), {x}, LinearLayer{std::move(options), units, features});
}

namespace ops {

const OpDef conv_fprop{.name = "conv_fprop",
                       .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                         return {{conv(op).dtype, conv(op).geometry.y_shape()}};
                       },
                       .bind = bind_kernel<ConvPass::fprop>,
                       .gradient = conv_gradient,
                       .flops = conv_flops,
                       .scratch = kernel_workspace};
const OpDef conv_dgrad{.name = "conv_dgrad",
                       .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                         return {{conv(op).dtype, conv(op).geometry.x_shape()}};
                       },
                       .bind = bind_kernel<ConvPass::dgrad>,
                       .flops = conv_flops,
                       .scratch = kernel_workspace};
const OpDef conv_wgrad{.name = "conv_wgrad",
                       .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                         return {{conv(op).dtype, conv(op).geometry.w_shape()}};
                       },
                       .bind = bind_kernel<ConvPass::wgrad>,
                       .flops = conv_flops,
                       .scratch = kernel_workspace};

const OpDef linear_fprop{.name = "linear_fprop",
                         .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                           return {{lin(op).dtype, {lin(op).rows, lin(op).out}}};
                         },
                         .bind = bind_kernel<ConvPass::fprop>,
                         .gradient = linear_gradient,
                         .flops = linear_flops,
                         .scratch = kernel_workspace};
const OpDef linear_dgrad{.name = "linear_dgrad",
                         .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                           return {{lin(op).dtype, {lin(op).rows, lin(op).in}}};
                         },
                         .bind = bind_kernel<ConvPass::dgrad>,
                         .flops = linear_flops,
                         .scratch = kernel_workspace};
const OpDef linear_wgrad{.name = "linear_wgrad",
                         .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                           return {{lin(op).dtype, {lin(op).out, lin(op).in}}};
                         },
                         .bind = bind_kernel<ConvPass::wgrad>,
                         .flops = linear_flops,
                         .scratch = kernel_workspace};

// (w) -> the library's own form, bytes.
const OpDef pack_weights{.name = "pack_weights",
                         .infer = [](const Op& op, const Program&) -> std::vector<TensorType> {
                           return {{DType::u8, {op.kernel->packed_bytes()}}};
                         },
                         .bind = [](const Op& op, const Binding& b) -> Launch {
                           return [kernel = op.kernel, plain = b.in(op, 0).data, packed = b.out(op, 0).data](Stream s) {
                             kernel->pack(s, plain, packed);
                           };
                         }};
// (packed dw, of the weight gradient's kernel) -> dw; the type of the result is set by whoever emits it.
const OpDef unpack_gradient{.name = "unpack_gradient",
                            .infer = [](const Op&, const Program&) -> std::vector<TensorType> { return {}; },
                            .bind = [](const Op& op, const Binding& b) -> Launch {
                              return [kernel = op.kernel, packed = b.in(op, 0).data,
                                      plain = b.out(op, 0).data](Stream s) { kernel->unpack(s, packed, plain); };
                            }};

const OpDef add_bias{.name = "add_bias",
                     .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                       return {{p[op.in[0]].dtype, p[op.in[0]].shape}};
                     },
                     .bind = [](const Op& op, const Binding& b) -> Launch {
                       return [x = b.in(op, 0), bias = b.in(op, 1).as<const float>(), y = b.out(op, 0)](Stream s) {
                         convolt::add_bias(s, x, bias, y);
                       };
                     },
                     .gradient = add_bias_gradient,
                     .in_place = {{0, 0}}};
const OpDef channel_sum{.name = "channel_sum",
                        .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                          return {{DType::f32, {p[op.in[0]].shape[-1]}}};
                        },
                        .bind = [](const Op& op, const Binding& b) -> Launch {
                          return
                              [x = b.in(op, 0), scratch = static_cast<float*>(b.scratch(op)),
                               out = b.out(op, 0).as<float>()](Stream s) { convolt::channel_sum(s, x, scratch, out); };
                        },
                        .scratch =
                            [](const Op& op, const Program& p) {
                              const Shape& x = p[op.in[0]].shape;
                              return bn_backward_scratch(x.elements() / x[-1], static_cast<int>(x[-1]));
                            },
                        .launches = [](const Op&) { return 2; }};

}  // namespace ops
}  // namespace convolt
