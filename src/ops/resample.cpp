// Borders around pictures, and pictures of another size.
#include "resample.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/cost.h"
#include "graph/layer.h"
#include "graph/layer_attributes.h"
#include "ops/shared.h"

namespace convolt {
namespace {

Shape pad_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const Padding& p = std::any_cast<const PadLayer&>(layer.attributes).padding;
  const Shape& in = inputs[0];
  expect_picture(layer, in);
  if (p.top < 0 || p.left < 0 || p.bottom < 0 || p.right < 0)
    layer_error(layer, fmt::format("padding must not be negative, found {}", p.to_string()));
  return {in[0] + p.vertical(), in[1] + p.horizontal(), in[2]};
}
ValueId lower_pad(LoweringContext& c) {
  const auto& [padding, value] = std::any_cast<const PadLayer&>(c.layer.attributes);
  return c.emit(ops::pad, {c.inputs[0]}, PadAttrs{padding, value})[0];
}
Attributes pad_attributes(std::any& any) {
  auto& [padding, value] = attributes_as<PadLayer>(any);
  return {{"padding", &padding}, {"value", &value}};
}
const LayerDef kPad{.kind = "pad", .shape = pad_shape, .lower = lower_pad, .attributes = pad_attributes};

constexpr int kMaxExtent = 16383;  // of kernels/resample.h
Shape upsample_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const Size2 size = std::any_cast<const UpsampleLayer&>(layer.attributes).size;
  const Shape& in = inputs[0];
  expect_picture(layer, in);
  if (size.h < 1 || size.w < 1 || std::max(size.h, size.w) > kMaxExtent || std::max(in[0], in[1]) > kMaxExtent)
    layer_error(layer, fmt::format("expected extents from 1 to {}, found {}x{} to {}x{}", kMaxExtent, in[0], in[1],
                                   size.h, size.w));
  return {size.h, size.w, in[2]};
}
ValueId lower_upsample(LoweringContext& c) {
  const auto& [size, mode] = std::any_cast<const UpsampleLayer&>(c.layer.attributes);
  const auto filter = mode == Upsampling::nearest ? ResampleFilter::nearest : ResampleFilter::bilinear;
  return c.emit(ops::resample, {c.inputs[0]}, ResampleAttrs{size, filter})[0];
}
constexpr std::string_view kModes[] = {"nearest", "bilinear"};
Attributes upsample_attributes(std::any& any) {
  auto& [size, mode] = attributes_as<UpsampleLayer>(any);
  return {{"size", &size}, {"mode", enum_attribute(mode, kModes)}};
}
const LayerDef kUpsample{
    .kind = "upsample", .shape = upsample_shape, .lower = lower_upsample, .attributes = upsample_attributes};

const PadAttrs& pad_of(const Op& op) { return std::get<PadAttrs>(op.attrs); }
const ResampleAttrs& resample_of(const Op& op) { return std::get<ResampleAttrs>(op.attrs); }

// Of rows and columns that both pictures have, x may have more on either side.
int64_t shift_bytes(const Op& op, const Program& p, int down, int right) {
  const ValueInfo& y = p[op.out[0]];
  const Shape& x = p[op.in[0]].shape;
  const auto common = [](int64_t from, int64_t to, int64_t shift) {
    return std::max<int64_t>(0, std::min(to, from - shift) - std::max<int64_t>(0, -shift));
  };
  return y.bytes() + x[0] * x[3] * size_of(y.dtype) * common(x[1], y.shape[1], down) * common(x[2], y.shape[2], right);
}
// Smaller pictures do not take from every pixel: nearest from one for each of theirs, bilinear from two each way.
int64_t resample_bytes(const Op& op, const Program& p) {
  const ValueInfo& y = p[op.out[0]];
  const Shape& x = p[op.in[0]].shape;
  const int64_t taps = resample_of(op).filter == ResampleFilter::nearest ? 1 : 2;
  return y.bytes() +
         x[0] * x[3] * size_of(y.dtype) * std::min(x[1], taps * y.shape[1]) * std::min(x[2], taps * y.shape[2]);
}

// The gradient op makes a value of the type of the forward op's input.
template <const OpDef& Def>
void gradient_like_input(const Op& op, GradientBuilder& b) {
  const ValueInfo x = b.program()[op.in[0]];
  Op g{.def = &Def, .in = {b.gradient_of(op.out[0])}, .attrs = op.attrs, .layer = op.layer};
  g.out = {b.program().add({.name = op.layer + ".dx", .dtype = x.dtype, .shape = x.shape})};
  b.flow(op.in[0], b.emit(std::move(g), "")[0]);
}

}  // namespace

Value pad(Value x, Padding padding, float value) { return graph_of(x).append(kPad, "", {x}, PadLayer{padding, value}); }
Value upsample(Value x, Size2 size, Upsampling mode) {
  return graph_of(x).append(kUpsample, "", {x}, UpsampleLayer{size, mode});
}

std::vector<const LayerDef*> resample_kinds() { return {&kPad, &kUpsample}; }

namespace ops {

const OpDef pad{
    .name = "pad",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
      const Shape& x = p[op.in[0]].shape;
      const Padding& border = pad_of(op).padding;
      return {{p[op.in[0]].dtype, {x[0], x[1] + border.vertical(), x[2] + border.horizontal(), x[3]}}};
    },
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [x = b.in(op, 0), y = b.out(op, 0), a = pad_of(op)](Stream s) {
        shift_picture(s, x, y, -a.padding.top, -a.padding.left, a.value);
      };
    },
    .gradient = gradient_like_input<ops::pad_backward>,
    .bytes = [](const Op& op,
                const Program& p) { return shift_bytes(op, p, -pad_of(op).padding.top, -pad_of(op).padding.left); }};
const OpDef pad_backward{
    .name = "pad_backward",
    .infer = preset,
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), dx = b.out(op, 0), a = pad_of(op)](Stream s) {
        shift_picture(s, dy, dx, a.padding.top, a.padding.left, 0);
      };
    },
    .bytes = [](const Op& op,
                const Program& p) { return shift_bytes(op, p, pad_of(op).padding.top, pad_of(op).padding.left); }};

const OpDef resample{.name = "resample",
                     .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                       const Shape& x = p[op.in[0]].shape;
                       return {{p[op.in[0]].dtype, {x[0], resample_of(op).size.h, resample_of(op).size.w, x[3]}}};
                     },
                     .bind = [](const Op& op, const Binding& b) -> Launch {
                       return [x = b.in(op, 0), y = b.out(op, 0), filter = resample_of(op).filter](Stream s) {
                         convolt::resample(s, x, y, filter);
                       };
                     },
                     .gradient = gradient_like_input<ops::resample_backward>,
                     .bytes = resample_bytes};
const OpDef resample_backward{
    .name = "resample_backward", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), dx = b.out(op, 0), filter = resample_of(op).filter](Stream s) {
        convolt::resample_backward(s, dy, dx, filter);
      };
    }};

}  // namespace ops
}  // namespace convolt
