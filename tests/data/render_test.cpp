// Pictures for people are what the network sees.
#include "data/render.h"

#include <gmock/gmock.h>

#include "convolt/error.h"
#include "support/device.h"
#include "test_files.h"

namespace convolt::test {
namespace {

constexpr int kHeight = 4, kWidth = 6;

// One picture of raw pixels, and one file that is none.
class TwoSamples final : public Dataset {
public:
  int64_t size() const override { return 2; }
  int32_t label(int64_t) const override { return 0; }
  std::string name(int64_t i) const override { return "sample" + std::to_string(i); }
  std::string describe() const override { return "two"; }
  RawSample read(int64_t i) const override {
    if (i == 1) return {bytes_of("no picture"), 0, 0, 0};
    RawSample s{{}, kHeight, kWidth, 3};
    for (int p = 0; p < kHeight * kWidth * 3; ++p) s.bytes.push_back(static_cast<uint8_t>(p * 3 + 1));
    return s;
  }
};

AugmentOptions as_it_is() {
  AugmentOptions o;
  o.geometry = AugmentOptions::Geometry::none;
  o.height = kHeight;
  o.width = kWidth;
  return o;
}

std::vector<uint8_t> rendered(const AugmentOptions& o, std::vector<uint32_t> epochs) {
  const TwoSamples data;
  return render(context_of(Device::cpu()), decode_sample(data, 0, o), o, 5, 0, epochs);
}

TEST(Render, TakesTheNormalisationBack) {
  const auto pixels = TwoSamples().read(0).bytes;
  EXPECT_EQ(rendered(as_it_is(), {0}), pixels);
  AugmentOptions flipped = as_it_is();
  flipped.hflip = 1;
  const auto mirrored = rendered(flipped, {0});
  for (int y = 0; y < kHeight; ++y)
    for (int x = 0; x < kWidth; ++x)
      for (int c = 0; c < 3; ++c)
        EXPECT_EQ(mirrored[static_cast<size_t>((y * kWidth + x) * 3 + c)],
                  pixels[static_cast<size_t>((y * kWidth + kWidth - 1 - x) * 3 + c)]);
}

TEST(Render, EachEpochIsItsOwn) {
  AugmentOptions o = as_it_is();
  o.geometry = AugmentOptions::Geometry::crop_with_padding;
  o.crop_padding = 2;
  o.contrast = 0.5F;
  const auto both = rendered(o, {3, 4}), third = rendered(o, {3}), fourth = rendered(o, {4});
  EXPECT_NE(third, fourth);
  auto joined = third;
  joined.insert(joined.end(), fourth.begin(), fourth.end());
  EXPECT_EQ(both, joined);
}

TEST(Render, GreyNetworksShowGrey) {
  AugmentOptions o = as_it_is();
  o.channels = 1;
  const auto pixels = TwoSamples().read(0).bytes;
  const auto grey = rendered(o, {0});
  ASSERT_EQ(grey.size(), static_cast<size_t>(kHeight * kWidth));
  EXPECT_NEAR(grey[5], 0.2989 * pixels[15] + 0.587 * pixels[16] + 0.114 * pixels[17], 0.6);
}

TEST(Render, NamesWhatIsNoPicture) {
  const TwoSamples data;
  EXPECT_THAT(message_of<DataError>([&] { decode_sample(data, 1, as_it_is()); }), testing::StartsWith("sample1: "));
}

}  // namespace
}  // namespace convolt::test
