// Convolution and fully connected layers; their ops are in conv_ops.cpp.
#include <fmt/format.h>

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

Shape linear_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& [o, units, features] = std::any_cast<const LinearLayer&>(layer.attributes);
  if (units < 1) layer_error(layer, fmt::format("units must be positive, found {}", units));
  if (inputs[0][-1] != features)
    layer_error(layer, fmt::format("its weights take {} features, found {}: this network is tied to one picture size",
                                   features, inputs[0][-1]));
  Shape y = inputs[0];
  y.set(-1, units);
  return y;
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

}  // namespace

Value conv2d(Value x, int64_t channels, Conv2dOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kConv2d, std::move(name), {x}, ConvLayer{std::move(options), channels});
}

Value conv_transpose2d(Value x, int64_t channels, ConvTranspose2dOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kConvTranspose2d, std::move(name), {x}, ConvTransposeLayer{std::move(options), channels});
}

Value linear(Value x, int64_t units, LinearOptions options) {
  std::string name = options.name;
  const int64_t features = x.shape()[-1];
  return graph_of(x).append(kLinear, std::move(name), {x}, LinearLayer{std::move(options), units, features});
}

std::vector<const LayerDef*> convolution_kinds() { return {&kConv2d, &kConvTranspose2d, &kLinear}; }

}  // namespace convolt
