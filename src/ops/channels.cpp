// Channels joined, taken apart, shuffled and weighted.
#include "channels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "graph/cost.h"
#include "graph/layer.h"
#include "graph/layer_attributes.h"
#include "ops/shared.h"

namespace convolt {
namespace {

Shape with_channels(Shape s, int64_t channels) {
  s.set(-1, channels);
  return s;
}
bool has_channels(const Shape& s) { return s.rank() == 1 || s.rank() == 3; }

// Layers.

Shape concat_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  int64_t channels = 0;
  for (const Shape& s : inputs) {
    if (s.rank() != inputs[0].rank() || with_channels(s, 1) != with_channels(inputs[0], 1))
      layer_error(layer, "expected shapes that are equal but for their channels, found " + inputs[0].to_string() +
                             " and " + s.to_string());
    channels += s[-1];
  }
  return with_channels(inputs[0], channels);
}
ValueId lower_concat(LoweringContext& c) {
  PartsAttrs parts;
  for (const ValueId v : c.inputs) parts.channels.push_back(c.program[v].shape[-1]);
  return c.emit(ops::concat, c.inputs, parts)[0];
}
const LayerDef kConcat{.kind = "concat", .shape = concat_shape, .lower = lower_concat, .inputs = 0};

// Outputs of a split of `whole`: kNoValue for those that are not made.
std::vector<ValueId> part_values(Program& p, ValueId whole, const std::vector<int64_t>& channels,
                                 const std::vector<bool>& made, const std::string& name) {
  std::vector<ValueId> parts;
  for (size_t i = 0; i < channels.size(); ++i) {
    const Shape shape = with_channels(p[whole].shape, channels[i]);
    parts.push_back(made[i] ? p.add({.name = name, .dtype = p[whole].dtype, .shape = shape}) : kNoValue);
  }
  return parts;
}

Shape slice_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& [first, count] = std::any_cast<const ChannelSlice&>(layer.attributes);
  const Shape& in = inputs[0];
  if (!has_channels(in) || first < 0 || count < 1 || first + count > in[-1])
    layer_error(layer, fmt::format("channels {} to {} are not all among those of {}", first, first + count - 1,
                                   in.to_string()));
  return with_channels(in, count);
}
ValueId lower_slice(LoweringContext& c) {
  const auto& [first, count] = std::any_cast<const ChannelSlice&>(c.layer.attributes);
  const ValueId x = c.inputs[0];
  const std::vector<int64_t> channels{first, count, c.program[x].shape[-1] - first - count};
  const auto out = part_values(c.program, x, channels, {false, true, false}, c.layer.name);
  c.program.step.push_back(
      {.def = &ops::split, .in = {x}, .out = out, .attrs = PartsAttrs{channels}, .layer = c.layer.name});
  return out[1];
}
Attributes slice_attributes(std::any& any) {
  auto& [first, count] = attributes_as<ChannelSlice>(any);
  return {{"first", &first}, {"count", &count}};
}
const LayerDef kSliceChannels{
    .kind = "slice_channels", .shape = slice_shape, .lower = lower_slice, .attributes = slice_attributes};

// A layer has one output: split() is a layer that stands for all parts, and one layer for each part.
const std::vector<int64_t>& parts_of(const Layer& layer) {
  return std::any_cast<const std::vector<int64_t>&>(layer.attributes);
}
Shape split_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto& parts = parts_of(layer);
  const int64_t sum = std::accumulate(parts.begin(), parts.end(), int64_t{0});
  const bool positive = std::all_of(parts.begin(), parts.end(), [](int64_t n) { return n > 0; });
  if (!has_channels(inputs[0]) || !positive || sum != inputs[0][-1])
    layer_error(layer, fmt::format("expected parts of at least one channel that sum up to the channels of {}, found "
                                   "{} that sum up to {}",
                                   inputs[0].to_string(), fmt::join(parts, ", "), sum));
  return inputs[0];
}
ValueId lower_split(LoweringContext& c) {
  const auto& parts = parts_of(c.layer);
  const auto out = part_values(c.program, c.inputs[0], parts, std::vector<bool>(parts.size(), true), c.layer.name);
  c.program.step.push_back(
      {.def = &ops::split, .in = {c.inputs[0]}, .out = out, .attrs = PartsAttrs{parts}, .layer = c.layer.name});
  return c.inputs[0];  // the whole, should somebody read it; the parts find the op by the layer's name
}
Attributes split_attributes(std::any& any) { return {{"parts", &attributes_as<std::vector<int64_t>>(any)}}; }
const LayerDef kSplit{.kind = "split", .shape = split_shape, .lower = lower_split, .attributes = split_attributes};

Shape part_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  return with_channels(inputs[0], std::any_cast<const SplitPart&>(layer.attributes).channels);
}
ValueId lower_part(LoweringContext& c) {
  const auto& part = std::any_cast<const SplitPart&>(c.layer.attributes);
  const auto op =
      std::find_if(c.program.step.rbegin(), c.program.step.rend(), [&](const Op& o) { return o.layer == part.split; });
  return op->out[static_cast<size_t>(part.place)];
}
Attributes part_attributes(std::any& any) { return {{"place", &attributes_as<SplitPart>(any).place}}; }
void complete_part(Layer& layer, const std::vector<Shape>&, const Graph& graph) {
  auto& part = std::any_cast<SplitPart&>(layer.attributes);
  const Layer& split = graph.layers()[static_cast<size_t>(layer.inputs[0])];
  const int64_t parts = split.def == &kSplit ? static_cast<int64_t>(parts_of(split).size()) : 0;
  if (part.place < 0 || part.place >= parts)
    layer_error(layer, fmt::format("part {} is not among the {} of '{}'", part.place, parts, split.name));
  part.channels = parts_of(split)[static_cast<size_t>(part.place)];
  part.split = split.name;
}
const LayerDef kSplitPart{.kind = "split_part",
                          .shape = part_shape,
                          .lower = lower_part,
                          .attributes = part_attributes,
                          .complete = complete_part};

Shape shuffle_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const auto groups = std::any_cast<int64_t>(layer.attributes);
  if (!has_channels(inputs[0]) || groups < 1 || inputs[0][-1] % groups != 0)
    layer_error(layer, fmt::format("the channels of {} do not divide into {} groups", inputs[0].to_string(), groups));
  return inputs[0];
}
ValueId lower_shuffle(LoweringContext& c) {
  const ShuffleAttrs attrs{std::any_cast<int64_t>(c.layer.attributes)};
  return c.emit(ops::channel_shuffle, {c.inputs[0]}, attrs)[0];
}
Attributes shuffle_attributes(std::any& any) { return {{"groups", &attributes_as<int64_t>(any)}}; }
const LayerDef kChannelShuffle{
    .kind = "channel_shuffle", .shape = shuffle_shape, .lower = lower_shuffle, .attributes = shuffle_attributes};

Shape mul_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  const Shape &a = inputs[0], &b = inputs[1];
  const bool broadcast = a.rank() == 3 && (b == Shape{1, 1, a[2]} || b == Shape{a[2]});
  if (a != b && !broadcast)
    layer_error(layer, "expected equal shapes, or [H, W, C] and one factor per channel [1, 1, C] or [C], found " +
                           a.to_string() + " and " + b.to_string());
  return a;
}
const LayerDef kMul{.kind = "mul",
                    .shape = mul_shape,
                    .lower = [](LoweringContext& c) { return c.emit(ops::mul, c.inputs, {})[0]; },
                    .inputs = 2};

Shape layer_scale_shape(const Layer& layer, const std::vector<Shape>& inputs) {
  if (!has_channels(inputs[0]))
    layer_error(layer, "expected [H, W, C] or a vector [C], found " + inputs[0].to_string());
  if (const float init = std::any_cast<const LayerScaleOptions&>(layer.attributes).init; !std::isfinite(init))
    layer_error(layer, "its factors must start as a number, found " + std::to_string(init));
  return inputs[0];
}
std::vector<ParamSpec> layer_scale_params(const Layer& layer, const std::vector<Shape>& inputs, const Graph&) {
  const auto& o = std::any_cast<const LayerScaleOptions&>(layer.attributes);
  return {{.name = "",
           .shape = {inputs[0][-1]},
           .decays = false,
           .init = Init::constant(o.init),
           .file = o.column ? ParamSpec::File::column : ParamSpec::File::as_is}};
}
ValueId lower_layer_scale(LoweringContext& c) { return c.emit(ops::scale_channels, {c.inputs[0], c.params[0]}, {})[0]; }
Attributes layer_scale_attributes(std::any& any) {
  auto& o = attributes_as<LayerScaleOptions>(any);
  return {{"init", &o.init}, {"column", &o.column}};
}
const LayerDef kLayerScale{.kind = "layer_scale",
                           .shape = layer_scale_shape,
                           .params = layer_scale_params,
                           .lower = lower_layer_scale,
                           .attributes = layer_scale_attributes};

// Ops.

const std::vector<int64_t>& parts_of(const Op& op) { return std::get<PartsAttrs>(op.attrs).channels; }

// One of several ranges of channels that are copied one after the other.
struct Part {
  Tensor tensor;
  int64_t first, count;
};
std::vector<Part> parts_with(const Op& op, const std::vector<ValueId>& values, const Binding& b) {
  std::vector<Part> parts;
  int64_t first = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t count = parts_of(op)[i];
    parts.push_back({b.tensor(values[i]), first, count});
    first += count;
  }
  return parts;
}

// A part without a value is zero.
Launch bind_concat(const Op& op, const Binding& b) {
  return [parts = parts_with(op, op.in, b), y = b.out(op, 0)](Stream s) {
    for (const Part& p : parts) copy_channels(s, p.tensor, 0, y, p.first, p.count);
  };
}
Launch bind_split(const Op& op, const Binding& b) {
  auto parts = parts_with(op, op.out, b);
  std::erase_if(parts, [](const Part& p) { return p.tensor.data == nullptr; });
  return [parts, x = b.in(op, 0)](Stream s) {
    for (const Part& p : parts) copy_channels(s, x, p.first, p.tensor, 0, p.count);
  };
}

int values_among(const std::vector<ValueId>& ids) {
  return static_cast<int>(ids.size() - static_cast<size_t>(std::count(ids.begin(), ids.end(), kNoValue)));
}

void concat_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  std::vector<bool> wanted;
  for (const ValueId v : op.in) wanted.push_back(b.wanted(v));
  Op split{.def = &ops::split, .in = {dy}, .attrs = op.attrs, .layer = op.layer};
  split.out = part_values(b.program(), dy, parts_of(op), wanted, op.layer + ".dx");
  const std::vector<ValueId> parts = b.emit(std::move(split), "");
  for (size_t i = 0; i < parts.size(); ++i)
    if (wanted[i]) b.flow(op.in[i], parts[i]);
}

void split_gradient(const Op& op, GradientBuilder& b) {
  Op concat{.def = &ops::concat, .attrs = op.attrs, .layer = op.layer};
  for (const ValueId v : op.out) concat.in.push_back(v == kNoValue ? kNoValue : b.gradient_of(v));
  b.flow(op.in[0], b.emit(std::move(concat), "dx")[0]);
}

void mul_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]), x = op.in[0], factor = op.in[1];
  if (b.wanted(x)) b.flow(x, b.emit({.def = &ops::mul, .in = {dy, factor}, .layer = op.layer}, "da")[0]);
  if (!b.wanted(factor)) return;
  const ValueInfo& info = b.program()[factor];
  Op g{.def = &ops::mul, .in = {dy, x}, .layer = op.layer};
  if (info.shape != b.program()[x].shape) {
    g.def = &ops::mul_backward_broadcast;
    g.out = {b.program().add({.name = op.layer + ".db", .dtype = info.dtype, .shape = info.shape})};
  }
  b.flow(factor, b.emit(std::move(g), "db")[0]);
}

void scale_channels_gradient(const Op& op, GradientBuilder& b) {
  const ValueId dy = b.gradient_of(op.out[0]);
  b.flow_to_param(op.in[1],
                  b.emit({.def = &ops::scale_channels_backward, .in = {dy, op.in[0]}, .layer = op.layer}, "dscale")[0]);
  if (b.wanted(op.in[0]))
    b.flow(op.in[0], b.emit({.def = &ops::scale_channels, .in = {dy, op.in[1]}, .layer = op.layer}, "dx")[0]);
}

}  // namespace

Value concat(const std::vector<Value>& values) {
  if (values.empty()) throw UsageError("concat needs at least one value, found none");
  return graph_of(values[0]).append(kConcat, "", values, {});
}
Value slice_channels(Value x, int64_t first, int64_t count) {
  return graph_of(x).append(kSliceChannels, "", {x}, ChannelSlice{first, count});
}
std::vector<Value> split(Value x, const std::vector<int64_t>& channels) {
  const Value whole = graph_of(x).append(kSplit, "", {x}, channels);
  std::vector<Value> parts;
  for (size_t i = 0; i < channels.size(); ++i)
    parts.push_back(graph_of(x).append(kSplitPart, "", {whole}, SplitPart{.place = static_cast<int64_t>(i)}));
  return parts;
}
Value channel_shuffle(Value x, int64_t groups) { return graph_of(x).append(kChannelShuffle, "", {x}, groups); }
Value mul(Value a, Value b) { return graph_of(a).append(kMul, "", {a, b}, {}); }
Value layer_scale(Value x, LayerScaleOptions options) {
  std::string name = options.name;
  return graph_of(x).append(kLayerScale, std::move(name), {x}, std::move(options));
}

std::vector<const LayerDef*> channel_kinds() {
  return {&kConcat, &kSliceChannels, &kSplit, &kSplitPart, &kChannelShuffle, &kMul, &kLayerScale};
}

namespace ops {

// (parts...) -> whole; a part that is kNoValue is zero. At least one has a value.
const OpDef concat{
    .name = "concat",
    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
      const auto& channels = parts_of(op);
      const ValueId known = *std::find_if(op.in.begin(), op.in.end(), [](ValueId v) { return v != kNoValue; });
      const int64_t sum = std::accumulate(channels.begin(), channels.end(), int64_t{0});
      return {{p[known].dtype, with_channels(p[known].shape, sum)}};
    },
    .bind = bind_concat,
    .gradient = concat_gradient,
    .bytes = [](const Op& op, const Program& p) { return bytes_of(op.in, p) + bytes_of(op.out, p); },
    .launches =
        [](const Op& op) {
          const auto& channels = parts_of(op);
          return static_cast<int>(std::count_if(channels.begin(), channels.end(), [](int64_t n) { return n > 0; }));
        }};
// (whole) -> (parts...), some of which may be kNoValue.
const OpDef split{
    .name = "split",
    .infer = preset,
    .bind = bind_split,
    .gradient = split_gradient,
    .bytes = [](const Op& op, const Program& p) { return 2 * bytes_of(op.out, p); },  // no part that is not made
    .launches = [](const Op& op) { return values_among(op.out); }};

const OpDef channel_shuffle{
    .name = "channel_shuffle",
    .infer = as_first,
    .bind = [](const Op& op, const Binding& b) -> Launch {
      return [x = b.in(op, 0), y = b.out(op, 0), groups = std::get<ShuffleAttrs>(op.attrs).groups](Stream s) {
        convolt::channel_shuffle(s, x, y, groups);
      };
    },
    .gradient =
        [](const Op& op, GradientBuilder& b) {
          const int64_t channels = b.program()[op.in[0]].shape[-1];
          const ShuffleAttrs back{channels / std::get<ShuffleAttrs>(op.attrs).groups};
          b.flow(
              op.in[0],
              b.emit({.def = &ops::channel_shuffle, .in = {b.gradient_of(op.out[0])}, .attrs = back, .layer = op.layer},
                     "dx")[0]);
        }};

// (a, b) -> a * b; b may be one row of channels for each picture.
const OpDef mul{.name = "mul",
                .infer = as_first,
                .bind = [](const Op& op, const Binding& b) -> Launch {
                  return [x = b.in(op, 0), z = b.in(op, 1), y = b.out(op, 0)](Stream s) { convolt::mul(s, x, z, y); };
                },
                .gradient = mul_gradient,
                .in_place = {{0, 0}, {1, 0}}};
// (dy, a) -> db of a broadcast b, whose type is set by whoever emits it.
const OpDef mul_backward_broadcast{
    .name = "mul_backward", .infer = preset, .bind = [](const Op& op, const Binding& b) -> Launch {
      return [dy = b.in(op, 0), a = b.in(op, 1), db = b.out(op, 0)](Stream s) {
        convolt::mul_backward_broadcast(s, dy, a, db);
      };
    }};

// (x, scale f32 [C]) -> x * scale
const OpDef scale_channels{.name = "scale_channels",
                           .infer = as_first,
                           .bind = [](const Op& op, const Binding& b) -> Launch {
                             return [x = b.in(op, 0), scale = b.in(op, 1).as<const float>(),
                                     y = b.out(op, 0)](Stream s) { convolt::scale_channels(s, x, scale, y); };
                           },
                           .gradient = scale_channels_gradient,
                           .in_place = {{0, 0}}};
// (dy, x) -> dscale
const OpDef scale_channels_backward{.name = "scale_channels_backward",
                                    .infer = [](const Op& op, const Program& p) -> std::vector<TensorType> {
                                      return {{DType::f32, {p[op.in[0]].shape[-1]}}};
                                    },
                                    .bind = [](const Op& op, const Binding& b) -> Launch {
                                      return [dy = b.in(op, 0), x = b.in(op, 1),
                                              scratch = static_cast<float*>(b.scratch(op)),
                                              dscale = b.out(op, 0).as<float>()](Stream s) {
                                        convolt::scale_channels_backward(s, dy, x, scratch, dscale);
                                      };
                                    },
                                    .scratch =
                                        [](const Op& op, const Program& p) {
                                          const Shape& x = p[op.in[0]].shape;
                                          return scale_channels_scratch(rows_of(x), x[-1]);
                                        }};

}  // namespace ops
}  // namespace convolt
