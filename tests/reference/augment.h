// What augmentation does to one picture, in double and by brute force: written from the descriptions in
// convolt/augment.h and kernels/augment.h, not from the kernel.
#pragma once

#include <augment.h>  // of kernels/; in quotes it would be this file

#include <cstdint>
#include <vector>

namespace convolt::test {

struct AugmentSample {
  SampleRecord record;           // its offset is not used
  std::vector<uint8_t> picture;  // [height, width, channels]
};

struct AugmentOutput {
  int height = 0, width = 0, channels = 3;
  std::vector<double> mean{0, 0, 0}, std{1, 1, 1}, fill{0, 0, 0};
  AugmentOptions::Interpolation interpolation = AugmentOptions::Interpolation::bilinear;
  AugmentOptions::Border border = AugmentOptions::Border::constant;
};

// [height, width, channels].
std::vector<double> augment_reference(const AugmentSample& sample, const AugmentOutput& output);

}  // namespace convolt::test
