// What Layer::attributes holds for the layers whose options alone do not say everything. The normalisations and pools
// hold their options (convolt/layers.h), activations their Act (kernels/activation.h), dropout and stochastic_depth
// their probability as float, layer_scale its options, adaptive_avg_pool its Size2, channel_shuffle its groups as
// int64_t, split its numbers of channels as std::vector<int64_t>; the others hold nothing.
#pragma once

#include "convolt/layers.h"

namespace convolt {

struct ConvLayer {
  Conv2dOptions options;
  int64_t channels;
};

struct ConvTransposeLayer {
  ConvTranspose2dOptions options;
  int64_t channels;
};

struct PadLayer {
  Padding padding;
  float value;
};

struct UpsampleLayer {
  Size2 size;
  Upsampling mode;
};

struct LinearLayer {
  LinearOptions options;
  int64_t units;
  int64_t features;  // of its input
};

struct SliceLayer {
  int stride;
  int64_t channels, before;
};

struct ChannelSlice {
  int64_t first, count;
};

struct SplitPart {
  int64_t place = 0;
  int64_t channels = 0;    // both follow from the split layer
  std::string split = {};  // its name
};

}  // namespace convolt
