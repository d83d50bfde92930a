// The augment kernel beside its reference.
#pragma once

#include "augment.h"
#include "augment/batch.h"
#include "augment/golden.h"
#include "support/op_test.h"

namespace convolt::test {

class AugmentTest : public OpTest {
protected:
  std::vector<double> show(const std::vector<AugmentSample>& samples, const AugmentOutput& output) const {
    return augmented(ctx(), dtype(), samples, output);
  }
  void expect_reference(const std::vector<AugmentSample>& samples, const AugmentOutput& output,
                        const std::string& what) const {
    std::vector<double> expected;
    for (const AugmentSample& sample : samples) {
      const auto values = augment_reference(sample, output);
      expected.insert(expected.end(), values.begin(), values.end());
    }
    const double tolerance = augment_tolerance(dtype());
    expect_near(show(samples, output), expected, tolerance, tolerance, what);
  }
  // The stored values of u8 pixels that nothing has touched.
  std::vector<double> stored(const std::vector<int>& pixels) const {
    std::vector<double> values;
    for (const int p : pixels) values.push_back(rounded(rounded(p / 255.0, DType::f32), dtype()));
    return values;
  }
};

inline AugmentSample golden_sample(int width, int height, int channels) {
  return plain_sample(golden_picture(width, height, channels), height, width, channels);
}

}  // namespace convolt::test
