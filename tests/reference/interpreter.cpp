#include "reference/interpreter.h"

#include <algorithm>
#include <any>

#include "core/philox.h"
#include "graph/layer.h"
#include "graph/layer_attributes.h"
#include "reference/batch_norm.h"
#include "reference/channels.h"
#include "reference/conv.h"
#include "reference/loss.h"
#include "reference/norm.h"
#include "reference/pooling.h"
#include "reference/resample.h"
#include "support/device.h"

namespace convolt::reference {
namespace {

// Index in the file of each element in memory order: files hold [O, I, H, W] or [O, I * H * W], memory holds [O, H, W,
// I].
std::vector<size_t> file_order(const ParamSpec& spec) {
  std::vector<size_t> order(static_cast<size_t>(spec.shape.elements()));
  if (spec.file == ParamSpec::File::as_is || spec.file == ParamSpec::File::column) {
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    return order;
  }
  const auto height = static_cast<size_t>(spec.shape[1]), width = static_cast<size_t>(spec.shape[2]),
             in = static_cast<size_t>(spec.shape[3]);
  for (size_t m = 0; m < order.size(); ++m) {
    const size_t i = m % in, w = m / in % width, h = m / in / width % height, o = m / in / width / height;
    order[m] = i * height * width + h * width + w + o * in * height * width;
  }
  return order;
}

PoolWindow window_of(const PoolOptions& o) {
  return {o.kernel.h, o.kernel.w, o.stride.h, o.stride.w, o.padding, o.ceil_mode, o.count_include_pad};
}

class Interpreter {
public:
  Interpreter(const Graph& graph, const std::vector<Values>& params, const NetworkInput& input,
              const InterpreterOptions& options)
      : graph_(graph), input_(input), options_(options), states_(graph.layers().size()) {
    result_.params = params;
    result_.gradients.resize(params.size());
    inner_.resize(states_.size());
    if (options.fused) find_inner_layers();
  }

  NetworkResult run() {
    for (int i = 0; i <= last(); ++i) forward(i);
    const State& out = states_[static_cast<size_t>(last())];
    result_.logits = out.y;
    const XentResult xent =
        softmax_xent(out.y, out.shape[1], input_.labels, input_.weights, options_.training ? options_.smoothing : 0);
    result_.loss = xent.loss;
    result_.top1 = xent.top1;
    result_.top5 = xent.top5;
    if (!options_.training) return std::move(result_);
    Values dlogits = xent.dlogits;
    for (double& g : dlogits) g *= options_.loss_scale;
    flow(last(), dlogits);
    for (int i = last(); i > 0; --i)
      if (!states_[static_cast<size_t>(i)].dy.empty()) backward(i);
    for (Values& gradient : result_.gradients)
      for (double& g : gradient) g /= options_.loss_scale;
    return std::move(result_);
  }

private:
  struct State {
    Shape shape;  // with the batch
    Values y, dy;
  };

  int last() const { return graph_.output_layer(); }
  const Layer& layer(int i) const { return graph_.layers()[static_cast<size_t>(i)]; }
  int readers(int i) const {
    int n = 0;
    for (const Layer& l : graph_.layers()) n += static_cast<int>(std::count(l.inputs.begin(), l.inputs.end(), i));
    return n;
  }
  const Act* activation_of(int i) const { return std::any_cast<Act>(&layer(i).attributes); }
  // Which layers' outputs a fused sweep passes on without storing them.
  void find_inner_layers() {
    std::vector<bool> sweep(states_.size());  // layers that end a sweep begun by a batch norm
    for (int i = 1; i <= last(); ++i) {
      const std::string_view kind = layer(i).def->kind;
      sweep[static_cast<size_t>(i)] = kind == "batch_norm";
      const Act* act = activation_of(i);
      if (kind != "add" && act == nullptr) continue;
      for (auto in = layer(i).inputs.rbegin(); in != layer(i).inputs.rend() && !sweep[static_cast<size_t>(i)]; ++in) {
        const bool after_norm = layer(*in).def->kind == "batch_norm";
        // Behind a residual, training keeps the input of an activation whose gradient needs it.
        const bool joins = act != nullptr && (after_norm || !options_.training || gradient_from_output(*act));
        if (!(kind == "add" ? after_norm : joins && sweep[static_cast<size_t>(*in)]) || readers(*in) != 1) continue;
        inner_[static_cast<size_t>(*in)] = true;
        sweep[static_cast<size_t>(i)] = kind == "add";
        if (kind != "add") break;
      }
    }
  }
  const State& input(int i, size_t k = 0) const { return states_[static_cast<size_t>(layer(i).inputs[k])]; }

  Values stored(Values v) const {
    if (options_.stored)
      for (double& x : v) x = test::rounded(x, *options_.stored);
    return v;
  }
  void flow(int i, const Values& gradient) {
    Values& dy = states_[static_cast<size_t>(i)].dy;
    dy = stored(dy.empty() ? gradient : add(dy, gradient));
  }
  void flow_to(int i, const Values& gradient, size_t k = 0) { flow(layer(i).inputs[k], gradient); }

  const ParamSpec& spec(int i, size_t k) const { return graph_.params()[static_cast<size_t>(layer(i).params[k])]; }
  Values& value(int i, size_t k) { return result_.params[static_cast<size_t>(layer(i).params[k])]; }
  bool has_param(int i, size_t k) const { return k < layer(i).params.size(); }
  // In memory layout; what is multiplied is stored in the dtype.
  Values weight(int i) {
    const auto order = file_order(spec(i, 0));
    Values v(order.size());
    for (size_t m = 0; m < v.size(); ++m) v[m] = value(i, 0)[order[m]];
    return stored(v);
  }
  void set_weight_gradient(int i, const Values& memory) {
    const auto order = file_order(spec(i, 0));
    Values& g = result_.gradients[static_cast<size_t>(layer(i).params[0])];
    g.resize(memory.size());
    const Values rounded = stored(memory);
    for (size_t m = 0; m < memory.size(); ++m) g[order[m]] = rounded[m];
  }
  void set_gradient(int i, size_t k, const Values& v) {
    result_.gradients[static_cast<size_t>(layer(i).params[k])] = v;
  }

  ConvGeometry geometry(int i) const {
    const auto& [o, channels] = std::any_cast<const ConvLayer&>(layer(i).attributes);
    const Shape& x = input(i).shape;
    return {.n = x[0],
            .in_h = x[1],
            .in_w = x[2],
            .in_c = x[3],
            .out_c = channels,
            .kernel_h = o.kernel.h,
            .kernel_w = o.kernel.w,
            .stride_h = o.stride.h,
            .stride_w = o.stride.w,
            .dilation_h = o.dilation.h,
            .dilation_w = o.dilation.w,
            .pad = o.padding,
            .groups = o.groups};
  }
  // Of the convolution from the layer's output to its input.
  ConvGeometry transposed_geometry(int i) const {
    const auto& [o, channels] = std::any_cast<const ConvTransposeLayer&>(layer(i).attributes);
    const Shape& x = input(i).shape;
    const int64_t reach_h = o.dilation.h * (o.kernel.h - 1) + 1, reach_w = o.dilation.w * (o.kernel.w - 1) + 1;
    return {.n = x[0],
            .in_h = (x[1] - 1) * o.stride.h + reach_h + o.output_padding.h - o.padding.top - o.padding.bottom,
            .in_w = (x[2] - 1) * o.stride.w + reach_w + o.output_padding.w - o.padding.left - o.padding.right,
            .in_c = channels,
            .out_c = x[3],
            .kernel_h = o.kernel.h,
            .kernel_w = o.kernel.w,
            .stride_h = o.stride.h,
            .stride_w = o.stride.w,
            .dilation_h = o.dilation.h,
            .dilation_w = o.dilation.w,
            .pad = o.padding,
            .groups = o.groups};
  }
  Values transposed(int i, Shape& shape) {
    const ConvGeometry g = transposed_geometry(i);
    shape = g.x_shape();
    Values y = conv_dgrad(g, input(i).y, weight(i));
    if (has_param(i, 1)) add_bias(y, value(i, 1));
    return y;
  }
  LinearDesc linear_desc(int i) const {
    return {.rows = rows_of(input(i).shape),
            .in = input(i).shape[-1],
            .out = std::any_cast<const LinearLayer&>(layer(i).attributes).units};
  }
  void add_bias(Values& y, const Values& bias) const {
    y = stored(y);  // a plan that does not fuse stores the product first
    for (size_t k = 0; k < y.size(); ++k) y[k] += bias[k % bias.size()];
  }

  // The factor of each element: 0 or 1 / (1 - p), from the bits that convolt/layers.h and kernels/activation.h
  // describe; stochastic depth decides whole rows by their first element.
  Values dropout_factors(int i) const {
    const State& x = input(i);
    const bool whole_rows = layer(i).def->kind == "stochastic_depth";
    const auto p = std::any_cast<float>(layer(i).attributes);
    const int64_t row_elements = x.shape.elements() / x.shape[0];
    Values factors(x.y.size());
    for (size_t k = 0; k < factors.size(); ++k) {
      const int64_t row = static_cast<int64_t>(k) / row_elements + input_.first_row,
                    element = whole_rows ? 0 : static_cast<int64_t>(k) % row_elements;
      const uint64_t high = (uint64_t{6} << 56) ^ (static_cast<uint64_t>(i) << 40) ^ static_cast<uint64_t>(row);
      const Philox4 bits =
          philox(input_.seed, static_cast<uint64_t>(input_.step) << 32 | static_cast<uint64_t>(element / 4), high);
      factors[k] = uniform(bits.v[element % 4]) < p ? 0.0 : 1 / (1 - static_cast<double>(p));
    }
    return factors;
  }
  static int64_t rows_of(const Shape& s) { return s.elements() / s[-1]; }
  // Of a mul: how many pixels of the first operand one row of the second multiplies.
  int64_t pixels_per_factor(int i) const { return input(i).shape.elements() / input(i, 1).shape.elements(); }
  // Where input k begins in a concat.
  int64_t first_channel(int i, size_t k) const {
    int64_t first = 0;
    for (size_t before = 0; before < k; ++before) first += input(i, before).shape[-1];
    return first;
  }
  ChannelSlice slice_of(int i) const {
    const Layer& l = layer(i);
    if (l.def->kind == "slice_channels") return std::any_cast<const ChannelSlice&>(l.attributes);
    const auto& part = std::any_cast<const SplitPart&>(l.attributes);
    const auto& parts = std::any_cast<const std::vector<int64_t>&>(layer(l.inputs[0]).attributes);
    ChannelSlice slice{0, part.channels};
    for (int64_t before = 0; before < part.place; ++before) slice.first += parts[static_cast<size_t>(before)];
    return slice;
  }
  Values joined(int i) const {
    std::vector<Values> parts;
    std::vector<int64_t> channels;
    for (size_t k = 0; k < layer(i).inputs.size(); ++k) {
      parts.push_back(input(i, k).y);
      channels.push_back(input(i, k).shape[-1]);
    }
    return concat(parts, channels);
  }
  static Values product(const Values& a, const Values& b) {
    Values y = a;
    for (size_t k = 0; k < y.size(); ++k) y[k] *= b[k];
    return y;
  }

  NormParams set_norm_params(int i) {
    NormParams p{.gamma = value(i, 0), .beta = value(i, 1)};
    if (layer(i).def->kind == "layer_norm") {
      p.eps = static_cast<double>(std::any_cast<const LayerNormOptions&>(layer(i).attributes).eps);
    } else {
      const auto& o = std::any_cast<const GroupNormOptions&>(layer(i).attributes);
      p.eps = static_cast<double>(o.eps);
      p.groups = o.groups;
      p.pixels = rows_of(input(i).shape) / input(i).shape[0];
    }
    return p;
  }
  BatchNormParams norm_params(int i) {
    return {value(i, 0), value(i, 1),
            static_cast<double>(std::any_cast<const BatchNormOptions&>(layer(i).attributes).eps)};
  }
  bool frozen(int i) const { return std::any_cast<const BatchNormOptions&>(layer(i).attributes).frozen; }
  Values batch_normed(int i) {
    const State& x = input(i);
    const ChannelMoments running{value(i, 2), value(i, 3)};
    if (!options_.training || frozen(i)) return batch_norm(x.y, running, norm_params(i), {}, Activation::none);
    const int64_t channels = x.shape[-1];
    const ChannelMoments moments = channel_moments(x.y, channels);
    const auto momentum = static_cast<double>(std::any_cast<const BatchNormOptions&>(layer(i).attributes).momentum);
    const ChannelMoments updated = updated_running(running, moments, x.shape.elements() / channels, momentum);
    Values y = batch_norm(x.y, moments, norm_params(i), {}, Activation::none);
    value(i, 2) = updated.mean;
    value(i, 3) = updated.variance;
    return y;
  }

  void forward(int i) {
    State& s = states_[static_cast<size_t>(i)];
    const std::string_view kind = layer(i).def->kind;
    if (kind == "input") {
      const Shape& declared = layer(0).shape;
      s.shape = {input_.batch, input_.height > 0 ? input_.height : declared[0],
                 input_.width > 0 ? input_.width : declared[1], declared[2]};
      s.y = input_.images;
    } else {
      s.y = output(i, kind, s.shape);
    }
    if (!inner_[static_cast<size_t>(i)]) s.y = stored(s.y);
  }

  Values output(int i, std::string_view kind, Shape& shape) {
    const State& x = input(i);
    shape = x.shape;
    if (kind == "batch_norm") return batch_normed(i);
    if (kind == "group_norm" || kind == "layer_norm") return norm(x.y, set_norm_params(i));
    if (const Act* act = activation_of(i)) return activation(x.y, *act);
    if (kind == "add") return add(x.y, input(i, 1).y);
    if (kind == "dropout" || kind == "stochastic_depth")
      return options_.training ? product(x.y, dropout_factors(i)) : x.y;
    if (kind == "mul") return mul(x.y, input(i, 1).y, pixels_per_factor(i), x.shape[-1]);
    if (kind == "layer_scale") return mul(x.y, value(i, 0), rows_of(x.shape), x.shape[-1]);
    if (kind == "conv2d" || kind == "linear") return weighted(i, kind == "conv2d", shape);
    if (kind == "conv_transpose2d") return transposed(i, shape);
    return rearranged(i, kind, shape);
  }
  Values weighted(int i, bool conv, Shape& shape) {
    Values y = conv ? conv_fprop(geometry(i), input(i).y, weight(i), nullptr)
                    : linear_fprop(linear_desc(i), input(i).y, weight(i), nullptr);
    if (conv)
      shape = geometry(i).y_shape();
    else
      shape.set(-1, linear_desc(i).out);
    if (has_param(i, 1)) add_bias(y, value(i, 1));
    return y;
  }
  Values rearranged(int i, std::string_view kind, Shape& shape) const {
    const State& x = input(i);
    if (kind == "max_pool" || kind == "avg_pool") {
      const PoolWindow window = window_of(std::any_cast<const PoolOptions&>(layer(i).attributes));
      shape = pooled_shape(x.shape, window);
      return kind == "max_pool" ? max_pool(x.y, x.shape, window).y : avg_pool(x.y, x.shape, window);
    }
    if (kind == "global_avg_pool") {
      shape = {x.shape[0], x.shape[3]};
      return global_avg_pool(x.y, x.shape);
    }
    if (kind == "slice_pad") {
      const auto& a = std::any_cast<const SliceLayer&>(layer(i).attributes);
      shape = {x.shape[0], (x.shape[1] + a.stride - 1) / a.stride, (x.shape[2] + a.stride - 1) / a.stride, a.channels};
      return slice_pad(x.y, x.shape, a.channels, a.stride, static_cast<int>(a.before));
    }
    if (kind == "pad") {
      const auto& [padding, fill] = std::any_cast<const PadLayer&>(layer(i).attributes);
      shape = {x.shape[0], x.shape[1] + padding.vertical(), x.shape[2] + padding.horizontal(), x.shape[3]};
      return pad(x.y, x.shape, padding, static_cast<double>(fill));
    }
    if (kind == "upsample") {
      const auto& [size, mode] = std::any_cast<const UpsampleLayer&>(layer(i).attributes);
      shape = {x.shape[0], size.h, size.w, x.shape[3]};
      return resample(x.y, x.shape, size.h, size.w, mode == Upsampling::bilinear);
    }
    if (kind == "adaptive_avg_pool") {
      const auto size = std::any_cast<Size2>(layer(i).attributes);
      shape = {x.shape[0], size.h, size.w, x.shape[3]};
      return adaptive_avg_pool(x.y, x.shape, size.h, size.w);
    }
    if (kind == "channel_shuffle")
      return channel_shuffle(x.y, x.shape[-1], std::any_cast<int64_t>(layer(i).attributes));
    if (kind == "concat") {
      shape.set(-1, first_channel(i, layer(i).inputs.size()));
      return joined(i);
    }
    if (kind == "split") return x.y;
    if (kind == "slice_channels" || kind == "split_part") {
      shape.set(-1, slice_of(i).count);
      return slice_channels(x.y, x.shape[-1], slice_of(i).first, slice_of(i).count);
    }
    if (kind != "flatten") throw Error("the interpreter does not know layers of kind '" + std::string(kind) + "'");
    shape = {x.shape[0], x.shape.elements() / x.shape[0]};
    return x.y;
  }

  void backward(int i) {
    const State& s = states_[static_cast<size_t>(i)];
    const std::string_view kind = layer(i).def->kind;
    const State& x = input(i);
    if (kind == "batch_norm") {
      const BatchNormGradients g = frozen(i) ? frozen_batch_norm_backward(s.dy, x.y, {value(i, 2), value(i, 3)},
                                                                          norm_params(i), {}, Activation::none)
                                             : batch_norm_backward(s.dy, x.y, norm_params(i), {}, Activation::none);
      set_gradient(i, 0, g.dgamma);
      set_gradient(i, 1, g.dbeta);
      flow_to(i, g.dx);
    } else if (kind == "group_norm" || kind == "layer_norm") {
      const NormGradients g = norm_backward(s.dy, x.y, set_norm_params(i));
      set_gradient(i, 0, g.dgamma);
      set_gradient(i, 1, g.dbeta);
      flow_to(i, g.dx);
    } else if (const Act* act = activation_of(i)) {
      flow_to(i, activation_backward(s.dy, x.y, *act));
    } else if (kind == "add") {
      flow_to(i, s.dy, 0);
      flow_to(i, s.dy, 1);
    } else if (kind == "dropout" || kind == "stochastic_depth") {
      flow_to(i, product(s.dy, dropout_factors(i)));
    } else if (kind == "mul") {
      const MulGradients g = mul_backward(s.dy, x.y, input(i, 1).y, pixels_per_factor(i), x.shape[-1]);
      flow_to(i, g.da, 0);
      flow_to(i, g.db, 1);
    } else if (kind == "layer_scale") {
      const MulGradients g = mul_backward(s.dy, x.y, value(i, 0), rows_of(x.shape), x.shape[-1]);
      set_gradient(i, 0, g.db);
      flow_to(i, g.da);
    } else if (kind == "concat") {
      for (size_t k = 0; k < layer(i).inputs.size(); ++k)
        flow_to(i, slice_channels(s.dy, s.shape[-1], first_channel(i, k), input(i, k).shape[-1]), k);
    } else if (kind == "conv2d" || kind == "linear") {
      weighted_backward(i, kind == "conv2d", s.dy);
    } else if (kind == "conv_transpose2d") {
      set_weight_gradient(i, conv_wgrad(transposed_geometry(i), s.dy, x.y));
      if (has_param(i, 1)) set_gradient(i, 1, bias_gradient(s.dy, s.shape[-1]));
      flow_to(i, conv_fprop(transposed_geometry(i), s.dy, weight(i), nullptr));
    } else {
      flow_to(i, rearranged_backward(i, kind, s.dy));
    }
  }
  void weighted_backward(int i, bool conv, const Values& dy) {
    const State& x = input(i);
    set_weight_gradient(i, conv ? conv_wgrad(geometry(i), x.y, dy) : linear_wgrad(linear_desc(i), x.y, dy));
    if (has_param(i, 1)) set_gradient(i, 1, bias_gradient(dy, states_[static_cast<size_t>(i)].shape[-1]));
    flow_to(i, conv ? conv_dgrad(geometry(i), dy, weight(i)) : linear_dgrad(linear_desc(i), dy, weight(i)));
  }
  Values rearranged_backward(int i, std::string_view kind, const Values& dy) const {
    const State& x = input(i);
    if (kind == "global_avg_pool") return global_avg_pool_backward(dy, x.shape);
    if (kind == "flatten" || kind == "split") return dy;
    if (kind == "pad") return pad_backward(dy, x.shape, std::any_cast<const PadLayer&>(layer(i).attributes).padding);
    if (kind == "upsample") {
      const auto& [size, mode] = std::any_cast<const UpsampleLayer&>(layer(i).attributes);
      return resample_backward(dy, x.shape, size.h, size.w, mode == Upsampling::bilinear);
    }
    if (kind == "adaptive_avg_pool") {
      const auto size = std::any_cast<Size2>(layer(i).attributes);
      return adaptive_avg_pool_backward(dy, x.shape, size.h, size.w);
    }
    if (kind == "channel_shuffle")
      return channel_shuffle_backward(dy, x.shape[-1], std::any_cast<int64_t>(layer(i).attributes));
    if (kind == "slice_channels" || kind == "split_part")
      return slice_channels_backward(dy, x.shape[-1], slice_of(i).first, slice_of(i).count);
    if (kind == "slice_pad") {
      const auto& a = std::any_cast<const SliceLayer&>(layer(i).attributes);
      return slice_pad_backward(dy, x.shape, a.channels, a.stride, static_cast<int>(a.before));
    }
    const PoolWindow window = window_of(std::any_cast<const PoolOptions&>(layer(i).attributes));
    return kind == "max_pool" ? max_pool_backward(dy, x.y, x.shape, window) : avg_pool_backward(dy, x.shape, window);
  }

  const Graph& graph_;
  const NetworkInput& input_;
  const InterpreterOptions& options_;
  std::vector<State> states_;
  std::vector<bool> inner_;
  NetworkResult result_;
};

}  // namespace

NetworkResult interpret(const Graph& graph, const std::vector<Values>& params, const NetworkInput& input,
                        const InterpreterOptions& options) {
  return Interpreter(graph, params, input, options).run();
}

}  // namespace convolt::reference
