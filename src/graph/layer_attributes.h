// What Layer::attributes holds for the layers whose options alone do not say everything. batch_norm and the pools hold
// their options (convolt/layers.h), activations their Act (kernels/activation.h), dropout its probability as float; the others hold
// nothing.
#pragma once

#include "convolt/layers.h"

namespace convolt {

struct ConvLayer {
  Conv2dOptions options;
  int64_t channels;
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

}  // namespace convolt
