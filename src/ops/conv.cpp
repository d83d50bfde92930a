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
  g.kernel_h = o.kernel.h;
  g.kernel_w = o.kernel.w;
  g.stride_h = o.stride.h;
  g.stride_w = o.stride.w;
  g.pad = o.padding;
  g.dilation_h = o.dilation.h;
  g.dilation_w = o.dilation.w;
  g.groups = o.groups;
  return g;
}

bool positive(Size2 s) { return s.h > 0 && s.w > 0; }
bool not_negative(const Padding& p) { return p.top >= 0 && p.left >= 0 && p.bottom >= 0 && p.right >= 0; }

Shape conv_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& [o, channels] = std::any_cast<const ConvLayer&>(layer.attributes);
  const Shape& in = inputs[0];
  if (in.rank() != 3) layer_error(layer, "expected a picture [H, W, C], found " + in.to_string());
  if (!positive(o.kernel) || !positive(o.stride) || !positive(o.dilation) || !not_negative(o.padding) || o.groups < 1 ||
      channels < 1)
    layer_error(
        layer,
        fmt::format(
            "kernel {}, stride {}, dilation {}, groups {} and channels {} must be positive, padding {} not negative",
            o.kernel.to_string(), o.stride.to_string(), o.dilation.to_string(), o.groups, channels,
            o.padding.to_string()));
  if (in[2] % o.groups != 0 || channels % o.groups != 0)
    layer_error(layer,
                fmt::format("{} input and {} output channels do not divide into {} groups", in[2], channels, o.groups));
  const Size2 reach(o.dilation.h * (o.kernel.h - 1) + 1, o.dilation.w * (o.kernel.w - 1) + 1);
  const int64_t padded_h = in[0] + o.padding.vertical(), padded_w = in[1] + o.padding.horizontal();
  if (reach.h > padded_h || reach.w > padded_w)
    layer_error(layer, fmt::format("kernel {} exceeds padded input {}x{}", reach.to_string(), padded_h, padded_w));
  const ConvGeometry g = geometry_of(o, in, channels);
  return {g.out_h(), g.out_w(), channels};
}

// The parameters of a convolution, transposed or not.
template <class Options>
std::vector<ParamSpec> weight_and_bias(const Options& o, Shape weight, int64_t channels, int64_t fan_in,
                                       int64_t fan_out) {
  std::vector<ParamSpec> params{{.name = "weight",
                                 .shape = weight,
                                 .init = o.init,
                                 .fan_in = fan_in,
                                 .fan_out = fan_out,
                                 .file = ParamSpec::File::oihw}};
  if (o.bias) params.push_back({.name = "bias", .shape = {channels}, .init = o.bias_init, .fan_in = fan_in});
  return params;
}

std::vector<ParamSpec> conv_params(const Layer& layer, const std::vector<Shape>& inputs, const Graph&) {
  const auto& [o, channels] = std::any_cast<const ConvLayer&>(layer.attributes);
  const int64_t in = inputs[0][2] / o.groups, window = int64_t{o.kernel.h} * o.kernel.w;
  // Fans as torch counts them, whatever the groups.
  return weight_and_bias(o, {channels, o.kernel.h, o.kernel.w, in}, channels, in * window, channels * window);
}

ValueId lower_conv(LoweringContext& c) {
  const auto& [o, channels] = std::any_cast<const ConvLayer&>(c.layer.attributes);
  const Shape& x = c.program[c.inputs[0]].shape;
  ConvAttrs attrs{{ConvPass::fprop, geometry_of(o, {x[1], x[2], x[3]}, channels), c.dtype, c.tf32, {}, {}}};
  attrs.desc.geometry.n = x[0];
  const ValueId y = c.emit(ops::conv_fprop, {c.inputs[0], c.low_params[0]}, attrs)[0];
  return o.bias ? c.emit(ops::add_bias, {y, c.params[1]}, {}, "+bias")[0] : y;
}

Attributes conv_attributes(std::any& any) {
  auto& [o, channels] = attributes_as<ConvLayer>(any);
  return {{"channels", &channels}, {"kernel", &o.kernel},     {"stride", &o.stride},
          {"padding", &o.padding}, {"dilation", &o.dilation}, {"groups", &o.groups},
          {"bias", &o.bias},       {"init", &o.init},         {"bias_init", &o.bias_init}};
}
const LayerDef kConv2d{
    .kind = "conv2d", .shape = conv_shape, .params = conv_params, .lower = lower_conv, .attributes = conv_attributes};

// The convolution whose gradient a transposed one is: from its output to its input.
ConvGeometry mirrored(const ConvTranspose2dOptions& o, const Shape& in, int64_t channels) {
  const auto extent = [](int64_t n, int stride, int padding, int dilation, int kernel, int output_padding) {
    return (n - 1) * stride - padding + int64_t{dilation} * (kernel - 1) + output_padding + 1;
  };
  const Conv2dOptions conv{
      .kernel = o.kernel, .stride = o.stride, .padding = o.padding, .dilation = o.dilation, .groups = o.groups};
  return geometry_of(
      conv,
      {extent(in[0], o.stride.h, o.padding.vertical(), o.dilation.h, o.kernel.h, o.output_padding.h),
       extent(in[1], o.stride.w, o.padding.horizontal(), o.dilation.w, o.kernel.w, o.output_padding.w), channels},
      in[2]);
}

void check_transposed(const Layer& layer, const ConvTransposeLayer& l, const Shape& in) {
  const auto& [o, channels] = l;
  if (in.rank() != 3) layer_error(layer, "expected a picture [H, W, C], found " + in.to_string());
  if (!positive(o.kernel) || !positive(o.stride) || !positive(o.dilation) || !not_negative(o.padding) || o.groups < 1 ||
      channels < 1)
    layer_error(
        layer,
        fmt::format(
            "kernel {}, stride {}, dilation {}, groups {} and channels {} must be positive, padding {} not negative",
            o.kernel.to_string(), o.stride.to_string(), o.dilation.to_string(), o.groups, channels,
            o.padding.to_string()));
  if (o.output_padding.h < 0 || o.output_padding.w < 0 || o.output_padding.h >= o.stride.h ||
      o.output_padding.w >= o.stride.w)
    layer_error(layer, fmt::format("output padding {} must be at least 0 and below the stride {}",
                                   o.output_padding.to_string(), o.stride.to_string()));
  if (in[2] % o.groups != 0 || channels % o.groups != 0)
    layer_error(layer,
                fmt::format("{} input and {} output channels do not divide into {} groups", in[2], channels, o.groups));
}
Shape conv_transpose_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& l = std::any_cast<const ConvTransposeLayer&>(layer.attributes);
  check_transposed(layer, l, inputs[0]);
  const int64_t h = (inputs[0][0] - 1) * l.options.stride.h, w = (inputs[0][1] - 1) * l.options.stride.w;
  const Size2 reach(l.options.dilation.h * (l.options.kernel.h - 1) + l.options.output_padding.h + 1,
                    l.options.dilation.w * (l.options.kernel.w - 1) + l.options.output_padding.w + 1);
  if (h + reach.h <= l.options.padding.vertical() || w + reach.w <= l.options.padding.horizontal())
    layer_error(layer, fmt::format("padding {} leaves nothing of {}x{}", l.options.padding.to_string(), h + reach.h,
                                   w + reach.w));
  const ConvGeometry g = mirrored(l.options, inputs[0], l.channels);
  return {g.in_h, g.in_w, g.in_c};
}

// Fans as torch counts them: of the weights as they lie, [in, out / groups, kernel].
std::vector<ParamSpec> conv_transpose_params(const Layer& layer, const std::vector<Shape>& inputs, const Graph&) {
  const auto& [o, channels] = std::any_cast<const ConvTransposeLayer&>(layer.attributes);
  const int64_t in = inputs[0][2], out = channels / o.groups, window = int64_t{o.kernel.h} * o.kernel.w;
  return weight_and_bias(o, {in, o.kernel.h, o.kernel.w, out}, channels, out * window, in * window);
}

ValueId lower_conv_transpose(LoweringContext& c) {
  const auto& [o, channels] = std::any_cast<const ConvTransposeLayer&>(c.layer.attributes);
  const Shape& x = c.program[c.inputs[0]].shape;
  ConvAttrs attrs{{ConvPass::dgrad, mirrored(o, {x[1], x[2], x[3]}, channels), c.dtype, c.tf32, {}, {}}};
  attrs.desc.geometry.n = x[0];
  const ValueId y = c.emit(ops::conv_dgrad, {c.inputs[0], c.low_params[0]}, attrs)[0];
  return o.bias ? c.emit(ops::add_bias, {y, c.params[1]}, {}, "+bias")[0] : y;
}

Attributes conv_transpose_attributes(std::any& any) {
  auto& [o, channels] = attributes_as<ConvTransposeLayer>(any);
  return {{"channels", &channels},
          {"kernel", &o.kernel},
          {"stride", &o.stride},
          {"padding", &o.padding},
          {"output_padding", &o.output_padding},
          {"dilation", &o.dilation},
          {"groups", &o.groups},
          {"bias", &o.bias},
          {"init", &o.init},
          {"bias_init", &o.bias_init}};
}
const LayerDef kConvTranspose2d{.kind = "conv_transpose2d",
                                .shape = conv_transpose_shape,
                                .params = conv_transpose_params,
                                .lower = lower_conv_transpose,
                                .attributes = conv_transpose_attributes};

Shape with_last(Shape s, int64_t extent) {
  s.set(-1, extent);
  return s;
}

Shape linear_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& [o, units, features] = std::any_cast<const LinearLayer&>(layer.attributes);
  if (units < 1) layer_error(layer, fmt::format("units must be positive, found {}", units));
  if (inputs[0][-1] != features)
    layer_error(layer, fmt::format("its weights take {} features, found {}: this network is tied to one picture size",
                                   features, inputs[0][-1]));
  return with_last(inputs[0], units);
}

// The flatten layer that the input of `layer` comes from, through layers that keep the order of elements; null where
// there is none.
const Layer* flattened_before(const Layer& layer, const Graph& graph) {
  const Layer* before = &graph.layers()[static_cast<size_t>(layer.inputs[0])];
  while (before->def->elementwise) before = &graph.layers()[static_cast<size_t>(before->inputs[0])];
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
  const int64_t rows = c.program[c.inputs[0]].shape.elements() / in;
  const ValueId y = c.emit(ops::linear_fprop, {c.inputs[0], c.low_params[0]},
                           LinearAttrs{{ConvPass::fprop, rows, in, units, c.dtype, c.tf32, {}}})[0];
  return o.bias ? c.emit(ops::add_bias, {y, c.params[1]}, {}, "+bias")[0] : y;
}

Attributes linear_attributes(std::any& any) {
  auto& a = attributes_as<LinearLayer>(any);
  LinearOptions& o = a.options;
  return {{"units", &a.units}, {"bias", &o.bias}, {"init", &o.init}, {"bias_init", &o.bias_init}};
}
void complete_linear(Layer& layer, const std::vector<Shape>& inputs, const Graph&) {
  std::any_cast<LinearLayer&>(layer.attributes).features = inputs[0][-1];
}
const LayerDef kLinear{.kind = "linear",
                       .shape = linear_shape,
                       .params = linear_params,
                       .lower = lower_linear,
                       .attributes = linear_attributes,
                       .complete = complete_linear};

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

// The gradient of the sums that bias and activation were fused into; that of the bias is made on the way.
ValueId gradient_of_sums(const Op& op, ConvEpilogue epilogue, GradientBuilder& b) {
  ValueId dy = b.gradient_of(op.out[0]);
  if (epilogue == ConvEpilogue::bias_relu || epilogue == ConvEpilogue::bias_relu6) {
    const Act act = epilogue == ConvEpilogue::bias_relu ? Activation::relu : Activation::relu6;
    dy = b.emit({.def = &ops::activation_backward, .in = {dy, op.out[0]}, .attrs = ActAttrs{act}, .layer = op.layer},
                "dsums")[0];
  }
  if (epilogue != ConvEpilogue::none && b.wanted(op.in[2]))
    b.flow_to_param(op.in[2], b.emit({.def = &ops::channel_sum, .in = {dy}, .layer = op.layer}, "dbias")[0]);
  return dy;
}

void conv_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = gradient_of_sums(op, conv(op).epilogue, b);
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

// Of conv_dgrad as a forward op: it is linear in both operands, as the convolution it belongs to.
void conv_dgrad_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  ConvAttrs attrs{conv(op)};
  attrs.desc.pass = ConvPass::wgrad;
  b.flow_to_param(op.in[1],
                  b.emit({.def = &ops::conv_wgrad, .in = {dy, op.in[0]}, .attrs = attrs, .layer = op.layer}, "dw")[0]);
  if (!b.wanted(op.in[0])) return;
  attrs.desc.pass = ConvPass::fprop;
  b.flow(op.in[0], b.emit({.def = &ops::conv_fprop, .in = {dy, op.in[1]}, .attrs = attrs, .layer = op.layer}, "dx")[0]);
}

void linear_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = gradient_of_sums(op, lin(op).epilogue, b);
  LinearAttrs attrs{lin(op)};
  attrs.desc.epilogue = ConvEpilogue::none;
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

Value conv_transpose2d(Value x, int64_t channels, ConvTranspose2dOptions options) {
  std::string name = options.name;
  return x.graph->append(kConvTranspose2d, std::move(name), {x}, ConvTransposeLayer{std::move(options), channels});
}

Value linear(Value x, int64_t units, LinearOptions options) {
  std::string name = options.name;
  const int64_t features = x.shape()[-1];
  return x.graph->append(kLinear, std::move(name), {x}, LinearLayer{std::move(options), units, features});
}

std::vector<const LayerDef*> convolution_kinds() { return {&kConv2d, &kConvTranspose2d, &kLinear}; }

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
                       .gradient = conv_dgrad_gradient,
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
                         .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                           return {{lin(op).dtype, with_last(p[op.in[0]].shape, lin(op).out)}};
                         },
                         .bind = bind_kernel<ConvPass::fprop>,
                         .gradient = linear_gradient,
                         .flops = linear_flops,
                         .scratch = kernel_workspace};
const OpDef linear_dgrad{.name = "linear_dgrad",
                         .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                           return {{lin(op).dtype, with_last(p[op.in[0]].shape, lin(op).in)}};
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
