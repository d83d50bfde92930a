// Layers are free functions on values; options are structs with named fields. Each throws ShapeError that names the
// layer when its input does not fit.
#pragma once

#include "convolt/activation.h"
#include "convolt/graph.h"

namespace convolt {

// Options of conv2d().
struct Conv2dOptions {
  // As torch.nn.Conv2d's. The name is the layer's and the prefix of its parameters'; empty: "<kind><n>". It means the
  // same in all options below.
  std::string name;
  Size2 kernel = 3, stride = 1;
  Padding padding = 0;
  Size2 dilation = 1;
  int64_t groups = 1;
  bool bias = false;
  Init init = Init::kaiming_normal_fan_out();
  Init bias_init = Init::constant(0);
};
// [H, W, C] -> [H', W', channels] with H' = (H + top + bottom padding - dilation (kernel - 1) - 1) / stride + 1,
// rounded down.
Value conv2d(Value x, int64_t channels, Conv2dOptions options = {});

// Options of conv_transpose2d().
struct ConvTranspose2dOptions {
  // As torch.nn.ConvTranspose2d's.
  std::string name;
  Size2 kernel = 2, stride = 2;
  Padding padding = 0;
  Size2 output_padding = {0, 0};
  Size2 dilation = 1;
  int64_t groups = 1;
  bool bias = false;
  Init init = Init::kaiming_normal_fan_out();
  Init bias_init = Init::constant(0);
};
// The gradient of conv2d with respect to its input, as a layer. [H, W, C] -> [H', W', channels] with
// H' = (H - 1) stride - top - bottom padding + dilation (kernel - 1) + output_padding + 1.
Value conv_transpose2d(Value x, int64_t channels, ConvTranspose2dOptions options = {});

// Options of batch_norm().
struct BatchNormOptions {
  std::string name;               // of the layer
  float eps = 1e-5F;              // added to the variance
  float momentum = 0.1F;          // weight of the new value in the running statistics
  Init init = Init::constant(1);  // of the scale; zeros for "zero-init residual"
  bool frozen = false;            // training too normalises by the running statistics, and leaves them
};
// Training: by the batch's biased variance, over all rows of the last extent; evaluation: by the running statistics.
Value batch_norm(Value x, BatchNormOptions options = {});

// Options of group_norm().
struct GroupNormOptions {
  // As torch.nn.GroupNorm's; the number of groups divides the channels.
  std::string name;
  int64_t groups = 32;
  float eps = 1e-5F;
};
// Y. Wu, K. He, arXiv 1803.08494: by mean and variance of each group of channels of each picture.
Value group_norm(Value x, GroupNormOptions options = {});

// Options of layer_norm().
struct LayerNormOptions {
  std::string name;   // of the layer
  float eps = 1e-6F;  // torchvision's ConvNeXt
};
// By mean and variance over the channels of each pixel (or of a vector [K]).
Value layer_norm(Value x, LayerNormOptions options = {});

// Element by element: Activation has the formulas.
Value relu(Value x);
Value relu6(Value x);
Value leaky_relu(Value x, float slope = 0.01F);
Value silu(Value x);
Value gelu(Value x);
Value hardswish(Value x);
Value hardsigmoid(Value x);
Value mish(Value x);
Value sigmoid(Value x);
Value tanh(Value x);
// Any of them by name; slope is leaky_relu's. none is x itself.
Value activation(Value x, Activation a, float slope = 0.01F);

// Options of max_pool() and avg_pool().
struct PoolOptions {
  // As torch.nn.MaxPool2d's.
  std::string name;
  Size2 kernel = 2, stride = 2;
  Padding padding = 0;
  bool ceil_mode = false;  // round the extents up; a window that would start beyond the padded picture is left out
  bool count_include_pad = true;  // avg_pool: padding counts as zeros; else it does not count
};
// The largest element, or the mean, of each window of each channel: [H, W, C] -> [H', W', C] with extents as
// conv2d()'s.
Value max_pool(Value x, PoolOptions options = {});
Value avg_pool(Value x, PoolOptions options = {});
// [H, W, C] -> [C], the mean.
Value global_avg_pool(Value x);
// [H, W, C] -> [H', W', C]: the mean over rows floor(i H / H') .. ceil((i + 1) H / H') - 1, columns likewise.
Value adaptive_avg_pool(Value x, Size2 size);

// Constant border.
Value pad(Value x, Padding padding, float value = 0);

// As torch.nn.functional.interpolate, align_corners=False.
enum class Upsampling : uint8_t { nearest, bilinear };
// [H, W, C] -> [size.h, size.w, C].
Value upsample(Value x, Size2 size, Upsampling mode = Upsampling::nearest);

// [H, W, C] -> [H * W * C].
Value flatten(Value x);

// Options of linear().
struct LinearOptions {
  // As torch.nn.Linear's.
  std::string name;
  bool bias = true;
  Init init = Init::uniform_fan_in();
  Init bias_init = Init::uniform_fan_in();
};
// [K] -> [units]; on a picture each pixel by itself, [H, W, K] -> [H, W, units] (torch.nn.Linear on channels last).
Value linear(Value x, int64_t units, LinearOptions options = {});

// Equal shapes.
Value add(Value a, Value b);

// Equal shapes; or b is [1, 1, C] or [C] and multiplies each pixel of a [H, W, C] (squeeze-and-excitation).
Value mul(Value a, Value b);
// [H, W, C1], [H, W, C2] ... -> [H, W, C1 + C2 + ...]; vectors too.
Value concat(const std::vector<Value>& values);
// Channels first .. first + count - 1.
Value slice_channels(Value x, int64_t first, int64_t count);
// Into parts of these numbers of channels, which sum up to C.
std::vector<Value> split(Value x, const std::vector<int64_t>& channels);
// Channel g * (C / groups) + j goes to j * groups + g (X. Zhang et al., arXiv 1707.01083).
Value channel_shuffle(Value x, int64_t groups);

// Options of layer_scale().
struct LayerScaleOptions {
  std::string name;    // of the parameter itself: "features.1.0.layer_scale", "stages.0.blocks.0.gamma"
  float init = 1e-6F;  // of every factor
  bool column = true;  // in files [C, 1, 1] as torchvision's; else [C]
};
// x times one learnt factor per channel (H. Touvron et al., arXiv 2103.17239).
Value layer_scale(Value x, LayerScaleOptions options = {});

// Every `stride`-th pixel of x, with channels_before zero channels in front and zeros behind up to `channels`: the
// shortcut without parameters ("option A") of K. He et al., arXiv 1512.03385.
Value slice_pad(Value x, int stride, int64_t channels, int64_t channels_before);

// Keeps each element with probability 1-p, scaled by 1/(1-p), in training; the identity in evaluation.
Value dropout(Value x, float p);
// Training: each row of the batch is kept whole with probability 1-p, scaled by 1/(1-p), or zeroed; else the identity
// (G. Huang et al., arXiv 1603.09382; torchvision's mode "row").
Value stochastic_depth(Value x, float p);

}  // namespace convolt
