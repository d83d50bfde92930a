// Pooling, the parameter-free shortcut, and flattening.
#include "pool.h"

#include "activation.h"

#include <fmt/format.h>

#include <algorithm>

#include "graph/cost.h"
#include "graph/layer.h"
#include "graph/layer_attributes.h"
#include "ops/shared.h"

namespace convolt {
namespace {

PoolWindow window_of(const PoolOptions& o) {
  return {o.kernel.h, o.kernel.w, o.stride.h, o.stride.w, o.padding, o.ceil_mode, o.count_include_pad};
}

Shape pool_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& o = std::any_cast<const PoolOptions&>(layer.attributes);
  const Shape& in = inputs[0];
  expect_picture(layer, in);
  const PoolWindow window = window_of(o);
  if (o.kernel.h < 1 || o.kernel.w < 1 || o.kernel.h * o.kernel.w > 255 || o.stride.h < 1 || o.stride.w < 1 ||
      !window.pad_fits())
    layer_error(layer,
                fmt::format("expected a kernel of 1 to 255 pixels, a positive stride and padding of at most half "
                            "the kernel, found kernel {}, stride {}, padding {}",
                            o.kernel.to_string(), o.stride.to_string(), o.padding.to_string()));
  const Shape pooled = window.pooled({1, in[0], in[1], in[2]});
  if (pooled[1] < 1 || pooled[2] < 1)
    layer_error(layer, fmt::format("kernel {} exceeds padded input {}x{}", o.kernel.to_string(),
                                   in[0] + o.padding.vertical(), in[1] + o.padding.horizontal()));
  return {pooled[1], pooled[2], in[2]};
}

// The position of each maximum is for the gradient alone: evaluation does not reserve it.
template <const OpDef& Def>
ValueId lower_pool(LoweringContext& c) {
  const PoolAttrs attrs{window_of(std::any_cast<const PoolOptions&>(c.layer.attributes)), c.training};
  return c.emit(Def, {c.inputs[0]}, attrs)[0];
}
Attributes pool_attributes(std::any& any) {
  auto& o = attributes_as<PoolOptions>(any);
  return {{"kernel", &o.kernel}, {"stride", &o.stride}, {"padding", &o.padding}, {"ceil_mode", &o.ceil_mode}};
}
Attributes avg_pool_attributes(std::any& any) {
  Attributes list = pool_attributes(any);
  list.push_back({"count_include_pad", &std::any_cast<PoolOptions&>(any).count_include_pad});
  return list;
}
const LayerDef kMaxPool{
    .kind = "max_pool", .shape = pool_shape, .lower = lower_pool<ops::max_pool>, .attributes = pool_attributes};
const LayerDef kAvgPool{
    .kind = "avg_pool", .shape = pool_shape, .lower = lower_pool<ops::avg_pool>, .attributes = avg_pool_attributes};

Shape global_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  expect_picture(layer, inputs[0]);
  return {inputs[0][2]};
}
const LayerDef kGlobalAvgPool{"global_avg_pool", global_shape, nullptr,
                              [](LoweringContext& c) { return c.emit(ops::global_avg_pool, {c.inputs[0]}, {})[0]; }};

Shape adaptive_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto size = std::any_cast<Size2>(layer.attributes);
  expect_picture(layer, inputs[0]);
  if (size.h < 1 || size.w < 1)
    layer_error(layer, fmt::format("expected a size of at least 1x1, found {}x{}", size.h, size.w));
  return {size.h, size.w, inputs[0][2]};
}
ValueId lower_adaptive(LoweringContext& c) {
  const auto size = std::any_cast<Size2>(c.layer.attributes);
  return c.emit(ops::adaptive_avg_pool, {c.inputs[0]}, PooledSize{size.h, size.w})[0];
}
Attributes adaptive_attributes(std::any& any) { return {{"size", &attributes_as<Size2>(any)}}; }
const LayerDef kAdaptiveAvgPool{
    .kind = "adaptive_avg_pool", .shape = adaptive_shape, .lower = lower_adaptive, .attributes = adaptive_attributes};

Shape flatten_shape(const Layer&, const std::vector<Shape>& inputs) { return {inputs[0].elements()}; }
const LayerDef kFlatten{"flatten", flatten_shape, nullptr,
                        [](LoweringContext& c) { return c.emit(ops::flatten, {c.inputs[0]}, {})[0]; }};

Shape slice_pad_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& a = std::any_cast<const SliceLayer&>(layer.attributes);
  const Shape& in = inputs[0];
  expect_picture(layer, in);
  if (a.stride < 1 || a.before < 0 || in[2] + a.before > a.channels)
    layer_error(layer, fmt::format("{} channels behind {} zero ones do not fit into {}, or stride {} is not positive",
                                   in[2], a.before, a.channels, a.stride));
  return {(in[0] + a.stride - 1) / a.stride, (in[1] + a.stride - 1) / a.stride, a.channels};
}
ValueId lower_slice_pad(LoweringContext& c) {
  const auto& a = std::any_cast<const SliceLayer&>(c.layer.attributes);
  Op op{.def = &ops::slice_pad,
        .in = {c.inputs[0]},
        .attrs = SliceAttrs{a.stride, static_cast<int>(a.before)},
        .layer = c.layer.name};
  const Shape& x = c.program[c.inputs[0]].shape;
  const ValueId y =
      c.program.add({.name = c.layer.name,
                     .dtype = c.dtype,
                     .shape = {x[0], (x[1] + a.stride - 1) / a.stride, (x[2] + a.stride - 1) / a.stride, a.channels}});
  op.out = {y};
  c.program.step.push_back(std::move(op));
  return y;
}
Attributes slice_pad_attributes(std::any& any) {
  auto& a = attributes_as<SliceLayer>(any);
  return {{"stride", &a.stride}, {"channels", &a.channels}, {"channels_before", &a.before}};
}
const LayerDef kSlicePad{
    .kind = "slice_pad", .shape = slice_pad_shape, .lower = lower_slice_pad, .attributes = slice_pad_attributes};

TensorType pooled(const Op& op, const Program& p) { return {p[op.in[0]].dtype, window(op).pooled(p[op.in[0]].shape)}; }

// The gradient op has the type of the forward op's input, which it takes as an operand for its extents alone.
template <const OpDef& Def>
void gradient_with_input(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  Op g{.def = &Def, .in = {dy}, .attrs = op.attrs, .layer = op.layer};
  if (op.out.size() > 1) g.in.push_back(op.out[1]);
  const ValueId dx = b.program().add(
      {.name = op.layer + ".dx", .dtype = b.program()[op.in[0]].dtype, .shape = b.program()[op.in[0]].shape});
  g.out = {dx};
  b.emit(std::move(g), "");
  b.flow(op.in[0], dx);
}

// Of the picture only what windows reach.
int64_t pool_bytes(const Op& op, const Program& p) {
  const ValueInfo& x = p[op.in[0]];
  const Shape& y = p[op.out[0]].shape;
  const PoolWindow& w = window(op);
  return bytes_of(op.out, p) + x.shape[0] * x.shape[3] * size_of(x.dtype) *
                                   touched(x.shape[1], y[1], w.kernel_h, w.stride_h, 1, w.pad.top) *
                                   touched(x.shape[2], y[2], w.kernel_w, w.stride_w, 1, w.pad.left);
}
// Only the pixels of the coarser side's grid, and only the channels that both sides have.
int64_t slice_bytes(const Op& op, const Program& p) {
  const ValueInfo &from = p[op.in[0]], &to = p[op.out[0]];
  const ValueInfo& coarse = from.shape.elements() / from.shape[3] < to.shape.elements() / to.shape[3] ? from : to;
  return to.bytes() +
         coarse.shape.elements() / coarse.shape[3] * std::min(from.shape[3], to.shape[3]) * size_of(to.dtype);
}

}  // namespace

Value max_pool(Value x, PoolOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kMaxPool, std::move(name), {x}, std::move(options));
}
Value avg_pool(Value x, PoolOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kAvgPool, std::move(name), {x}, std::move(options));
}
Value global_avg_pool(Value x) { return graph_of(x).append(kGlobalAvgPool, "", {x}, {}); }
Value adaptive_avg_pool(Value x, Size2 size) { return graph_of(x).append(kAdaptiveAvgPool, "", {x}, size); }
Value flatten(Value x) { return graph_of(x).append(kFlatten, "", {x}, {}); }
Value slice_pad(Value x, int stride, int64_t channels, int64_t channels_before) {
  return graph_of(x).append(kSlicePad, "", {x}, SliceLayer{stride, channels, channels_before});
}

std::vector<const LayerDef*> pooling_kinds() {
  return {&kMaxPool, &kAvgPool, &kGlobalAvgPool, &kAdaptiveAvgPool, &kFlatten, &kSlicePad};
}

namespace ops {

// x -> (y, index u8 in training).
const OpDef max_pool{.name = "max_pool",
                     .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                       const TensorType y = pooled(op, p);
                       if (!std::get<PoolAttrs>(op.attrs).index) return {y};
                       return {y, {DType::u8, y.shape}};
                     },
                     .bind = [](const Op& op, const Binding& b) -> Launch {
                       return [x = b.in(op, 0), y = b.out(op, 0), index = b.out(op, 1), w = window(op)](Stream s) {
                         convolt::max_pool(s, x, y, index, w);
                       };
                     },
                     .gradient = gradient_with_input<ops::max_pool_backward>,
                     .bytes = pool_bytes};
const OpDef max_pool_backward{
    .name = "max_pool_backward", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), index = b.in(op, 1), dx = b.out(op, 0), w = window(op)](Stream s) {
        convolt::max_pool_backward(s, dy, index, dx, w);
      };
    }};
const OpDef avg_pool{.name = "avg_pool",
                     .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> { return {pooled(op, p)}; },
                     .bind = [](const Op& op, const Binding& b) -> Launch {
                       return [x = b.in(op, 0), y = b.out(op, 0), w = window(op)](Stream s) {
                         convolt::avg_pool(s, x, y, w);
                       };
                     },
                     .gradient = gradient_with_input<ops::avg_pool_backward>,
                     .bytes = pool_bytes};
const OpDef avg_pool_backward{
    .name = "avg_pool_backward", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
      return
          [dy = b.in(op, 0), dx = b.out(op, 0), w = window(op)](Stream s) { convolt::avg_pool_backward(s, dy, dx, w); };
    }};
const OpDef global_avg_pool{.name = "global_avg_pool",
                            .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                              const Shape& x = p[op.in[0]].shape;
                              return {{p[op.in[0]].dtype, {x[0], x[3]}}};
                            },
                            .bind = [](const Op& op, const Binding& b) -> Launch {
                              return
                                  [x = b.in(op, 0), y = b.out(op, 0)](Stream s) { convolt::global_avg_pool(s, x, y); };
                            },
                            .gradient = gradient_with_input<ops::global_avg_pool_backward>};
const OpDef global_avg_pool_backward{
    .name = "global_avg_pool_backward", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), dx = b.out(op, 0)](Stream s) { convolt::global_avg_pool_backward(s, dy, dx); };
    }};
const OpDef adaptive_avg_pool{.name = "adaptive_avg_pool",
                              .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                                const Shape& x = p[op.in[0]].shape;
                                const auto& size = std::get<PooledSize>(op.attrs);
                                return {{p[op.in[0]].dtype, {x[0], size.h, size.w, x[3]}}};
                              },
                              .bind = [](const Op& op, const Binding& b) -> Launch {
                                return [x = b.in(op, 0), y = b.out(op, 0)](Stream s) {
                                  convolt::adaptive_avg_pool(s, x, y);
                                };
                              },
                              .gradient = gradient_with_input<ops::adaptive_avg_pool_backward>};
const OpDef adaptive_avg_pool_backward{
    .name = "adaptive_avg_pool_backward", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), dx = b.out(op, 0)](Stream s) { convolt::adaptive_avg_pool_backward(s, dy, dx); };
    }};
const OpDef slice_pad{.name = "slice_pad",
                      .infer = preset,
                      .bind = [](const Op& op, const Binding& b) -> Launch {
                        return [x = b.in(op, 0), y = b.out(op, 0), a = std::get<SliceAttrs>(op.attrs)](Stream s) {
                          convolt::slice_pad(s, x, y, a.stride, a.channels_before);
                        };
                      },
                      .gradient = gradient_with_input<ops::slice_pad_backward>,
                      .bytes = slice_bytes};
const OpDef slice_pad_backward{.name = "slice_pad_backward",
                               .infer = preset,
                               .bind = [](const Op& op, const Binding& b) -> Launch {
                                 return [dy = b.in(op, 0), dx = b.out(op, 0),
                                         a = std::get<SliceAttrs>(op.attrs)](Stream s) {
                                   convolt::slice_pad_backward(s, dy, dx, a.stride, a.channels_before);
                                 };
                               },
                               .bytes = slice_bytes};

namespace {
// A view where the memory plan lets the output take the input's place, else a copy.
int view_launches(const Op& op) { return op.view ? 0 : 1; }
int64_t view_bytes(const Op& op, const Program& p) { return op.view ? 0 : bytes_of(op.in, p) + bytes_of(op.out, p); }
Launch bind_view(const Op& op, const Binding& b) {
  const Tensor x = b.in(op, 0);
  Tensor y = b.out(op, 0);
  if (x.data == y.data) return [](Stream) {};
  y.shape = x.shape;
  return [x, y](Stream s) { convolt::cast(s, x, y); };
}
}  // namespace
const OpDef flatten{.name = "flatten",
                    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                      const Shape& x = p[op.in[0]].shape;
                      return {{p[op.in[0]].dtype, {x[0], x.elements() / x[0]}}};
                    },
                    .bind = bind_view,
                    .gradient = gradient_with_input<ops::flatten_backward>,
                    .bytes = view_bytes,
                    .launches = view_launches,
                    .in_place = {{0, 0}}};
const OpDef flatten_backward{.name = "flatten_backward",
                             .infer = preset,
                             .bind = bind_view,
                             .bytes = view_bytes,
                             .launches = view_launches,
                             .in_place = {{0, 0}}};

}  // namespace ops
}  // namespace convolt
