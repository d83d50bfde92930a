// JPEGs decoded at a half or less of their size show what the whole pictures show, as near as makes no difference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "augment/batch.h"
#include "data/view.h"
#include "exif.h"
#include "jpeg_writer.h"

namespace convolt::test {
namespace {

using Interpolation = AugmentOptions::Interpolation;

class ScaledDecode : public testing::Test {
protected:
  ScaledDecode() { prepare_decoder(); }

  AugmentSample decoded(const RawSample& raw, const AugmentOptions& options, uint64_t sample, bool full_decode) {
    AugmentSample shown;
    const DecodeLimits limits{.max_side = max_side_, .full_decode = full_decode};
    const View view = decode_view(raw, options, {5, 0, sample}, limits, scratch_, "picture");
    shown.picture.assign(scratch_.begin(), scratch_.begin() + view.bytes);
    shown.record = view.record;
    return shown;
  }
  static std::vector<double> shown(const AugmentSample& sample, const AugmentOptions& options) {
    AugmentOutput output{options.height, options.width, options.channels};
    output.interpolation = options.interpolation;
    return augmented(context_of(Device::cpu()), DType::f32, {sample}, output);
  }

  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(4 << 20);
  int max_side_ = 1 << 20;
};

AugmentOptions crops_of(int size) {
  AugmentOptions options;
  options.geometry = AugmentOptions::Geometry::random_resized_crop;
  options.height = options.width = size;
  options.scale = {0.35F, 1};
  options.hflip = 0.5F;
  return options;
}

// Peak signal to noise in decibels; both in 0..1.
double psnr(const std::vector<double>& a, const std::vector<double>& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return 10 * std::log10(static_cast<double>(a.size()) / squares);
}

// Photographs of 400 x 300 and the like, of which crops at these sizes need a half of each side or less.
TEST_F(ScaledDecode, PhotographsLookTheSame) {
  const char* data = std::getenv("CONVOLT_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "CONVOLT_TEST_DATA does not name a folder with the photographs";
  const auto set = open_dataset({.path = std::string(data) + "/clothing/clothing-small-2600.tar"});
  struct Case {
    int size;
    float rotate;
    Interpolation interpolation;
  };
  for (const Case& c : {Case{128, 0, Interpolation::bilinear}, Case{96, 0, Interpolation::bilinear},
                        Case{96, 0, Interpolation::bicubic}, Case{48, 20, Interpolation::bilinear}}) {
    AugmentOptions options = crops_of(c.size);
    options.rotate = c.rotate;
    options.interpolation = c.interpolation;
    std::vector<double> decibels;
    for (int64_t i = 0; i < set->size(); i += 13) {
      const RawSample raw = set->read(i);
      const auto sample = static_cast<uint64_t>(i);
      const AugmentSample whole = decoded(raw, options, sample, true), half = decoded(raw, options, sample, false);
      if (half.record.width != (whole.record.width + 1) / 2) continue;  // not at 1/2
      EXPECT_LT(half.picture.size(), whole.picture.size() / 2);
      decibels.push_back(psnr(shown(whole, options), shown(half, options)));
    }
    std::sort(decibels.begin(), decibels.end());
    ASSERT_GT(decibels.size(), 90U);
    const std::string what = std::to_string(c.size) + " pixels, turned up to " + std::to_string(c.rotate);
    EXPECT_GE(decibels[decibels.size() / 2], 40) << what;
    EXPECT_GE(decibels[decibels.size() / 20], 34) << what;
  }
}

// A picture without detail is the same at any scale: what would be moved by a part of a pixel is seen. Sides that no
// scale divides, turned every way, shrunk by --max-side or not.
TEST_F(ScaledDecode, NothingIsMoved) {
  const int width = 453, height = 327;
  std::vector<uint8_t> slopes;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (const int level : {x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)})
        slopes.push_back(static_cast<uint8_t>(level));
  const Bytes file = write_jpeg({.name = ""}, width, height, slopes);
  int scaled = 0;
  for (const int max_side : {1 << 20, 200})
    for (int orientation = 1; orientation <= 8; ++orientation)
      for (const int size : {20, 31, 60, 110}) {
        max_side_ = max_side;
        RawSample raw;
        raw.bytes = with_exif(file, orientation, false);
        const AugmentOptions options = crops_of(size);
        const AugmentSample whole = decoded(raw, options, 0, true), part = decoded(raw, options, 0, false);
        scaled += part.record.width < whole.record.width ? 1 : 0;
        const auto expected = shown(whole, options), found = shown(part, options);
        double most = 0;
        for (size_t i = 0; i < found.size(); ++i) most = std::max(most, std::abs(found[i] - expected[i]));
        EXPECT_LT(most, 0.012) << "turned " << orientation << ", " << size << " pixels, at most " << max_side;
      }
  EXPECT_GE(scaled, 48);
}

TEST_F(ScaledDecode, IsNoCoarserThanTheSampler) {
  const Bytes file = write_jpeg({.name = ""}, 400, 400);
  RawSample raw;
  raw.bytes = file;
  AugmentOptions options;
  options.geometry = AugmentOptions::Geometry::resize_centre_crop;
  const auto side_at = [&](int resize, Interpolation interpolation) {
    options.height = options.width = options.resize = resize;
    options.interpolation = interpolation;
    return decoded(raw, options, 0, false).record.width;
  };
  const std::pair<int, int> sides[] = {{400, 400}, {201, 400}, {200, 200}, {101, 200},
                                       {100, 100}, {51, 100},  {50, 50},   {10, 50}};
  for (const auto& [resize, side] : sides) {
    EXPECT_EQ(side_at(resize, Interpolation::bilinear), side) << resize;
    EXPECT_EQ(side_at(resize, Interpolation::nearest), 400) << resize;
  }
}

}  // namespace
}  // namespace convolt::test
