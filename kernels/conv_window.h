// What our own convolutions (depthwise.h, grouped.h) have in common.
#pragma once

#include <cstdint>

#include "convolt/shape.h"

namespace convolt {

// Square, with strides of 1 or 2; padding is zeros, as wide as one likes on each side.
struct ConvWindow {
  int kernel = 3, stride_h = 1, stride_w = 1;
  Padding pad;
};

// What is done to a sum before it is stored: + bias[c] (f32 [C]) where there is one, then the activation.
struct ConvFinish {
  enum class Act : uint8_t { none, relu, relu6 };
  const float* bias = nullptr;
  Act act = Act::none;
};

}  // namespace convolt
