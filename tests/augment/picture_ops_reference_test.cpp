// tests/reference/picture_ops.h against what torchvision, timm and Pillow make of the same pictures
// (tools/golden/picture_ops_golden.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "augment/golden.h"
#include "core/philox.h"
#include "reference/picture_ops.h"

namespace convolt::test {
namespace {

PictureProgramme programme_of(const std::vector<PictureStep>& steps) {
  PictureProgramme programme;
  programme.count = static_cast<int32_t>(steps.size());
  std::copy(steps.begin(), steps.end(), programme.steps);
  return programme;
}

struct Result {
  std::vector<uint8_t> bytes;
  std::vector<double> exact;
};

Result run(const GoldenCase& c, const PictureProgramme& programme) {
  const int width = c["width"], height = c["height"], channels = c["channels"];
  const std::vector<uint8_t> pixels = golden_picture(width, height, channels);
  std::vector<uint8_t> picture;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int k = 0; k < channels; ++k) {
        const int v = pixels[static_cast<size_t>((y / c["stretch"] * width + x / c["stretch"]) * channels + k)];
        picture.push_back(static_cast<uint8_t>(c["low"] + v * c["span"] / 255));
      }
  Result result;
  result.bytes = run_programme(picture, height, width, channels, programme, {0, 0, 0}, &result.exact);
  return result;
}

// Of torchvision's bytes those that the reference has too, and those that its value would round to were it at most
// `slack` away.
struct Agreement {
  double same = 0, near = 0;
};

Agreement agreement(const GoldenCase& c, const Result& result, PictureOp op, double slack) {
  Agreement share;
  for (size_t i = 0; i < c.values.size(); ++i) {
    const auto byte = static_cast<uint8_t>(c.values[i]);
    share.same += byte == result.bytes[i];
    share.near += may_become(result.exact[i], byte, op, slack);
  }
  const auto all = static_cast<double>(c.values.size());
  return {share.same / all, share.near / all};
}

double mean_difference(const GoldenCase& c, const Result& result) {
  double sum = 0;
  for (size_t i = 0; i < c.values.size(); ++i) sum += std::fabs(c.values[i] - result.bytes[i]);
  return sum / static_cast<double>(c.values.size());
}

PictureProgramme programme_of(const GoldenCase& c, PictureOp op) {
  const auto number = [&](const std::string& key) { return c.numbers.contains(key) ? c.real(key) : 0; };
  PictureProgramme programme = programme_of({{op, number("a"), number("b")}});
  if (op == PictureOp::perspective)
    for (int i = 0; i < 8; ++i) programme.map[i] = c.real("m" + std::to_string(i));
  return programme;
}

struct Expected {
  PictureOp op;
  const char* kind;
  double slack;  // levels
  double same;   // the least share of bytes that are equal
};

class PictureOps : public testing::TestWithParam<Expected> {};

TEST_P(PictureOps, IsWhatTorchvisionDoes) {
  const Expected& expected = GetParam();
  for (const GoldenCase& c : golden_cases(expected.kind, "ops/")) {
    const Result result = run(c, programme_of(c, expected.op));
    ASSERT_EQ(result.bytes.size(), c.values.size()) << c.name;
    const Agreement share = agreement(c, result, expected.op, expected.slack);
    EXPECT_EQ(share.near, 1) << c.name;
    EXPECT_GE(share.same, expected.same) << c.name;
  }
}

// Float arithmetic falls on either side of a boundary where factors such as 1.4 give whole numbers: those bytes are
// near only, a fifth of them at 1.4, and a quarter where torchvision's auto_contrast makes 254 of what is 255.
INSTANTIATE_TEST_SUITE_P(
    All, PictureOps,
    testing::Values(
        Expected{PictureOp::brightness, "brightness", 1e-3, 0.8}, Expected{PictureOp::contrast, "contrast", 1e-3, 0.99},
        Expected{PictureOp::saturation, "saturation", 1e-3, 0.8},
        Expected{PictureOp::sharpness, "sharpness", 1e-3, 0.9}, Expected{PictureOp::invert, "invert", 0, 1},
        Expected{PictureOp::solarize, "solarize", 0, 1}, Expected{PictureOp::solarize_add, "solarize_add", 0, 1},
        Expected{PictureOp::posterize, "posterize", 0, 1},
        Expected{PictureOp::auto_contrast, "auto_contrast", 1e-3, 0.7}, Expected{PictureOp::equalize, "equalize", 0, 1},
        Expected{PictureOp::blur, "blur", 4e-3, 0.99}, Expected{PictureOp::shear_x, "shear_x", 1e-3, 0.99},
        Expected{PictureOp::shear_y, "shear_y", 1e-3, 0.99}, Expected{PictureOp::translate, "translate", 0, 1},
        Expected{PictureOp::rotate, "rotate", 1e-3, 0.99}, Expected{PictureOp::perspective, "perspective", 1e-3, 0.99}),
    [](const auto& of) { return std::string(of.param.kind); });

// Measured: grey to 0.42, with chroma repeated to 0.75; there, coefficients close to half a step of their table are
// quantised either way. libjpeg rounds means of 2x2 down and up in turn and continues chroma differently below the edge
// (5.97), and Pillow interpolates chroma (3.28 for squares of 8x8).
TEST(PictureOpsJpeg, IsNearToLibjpegs) {
  struct Bound {
    const char* kind;
    double mean;  // levels
  };
  for (const Bound& bound :
       {Bound{"jpeg_grey", 0.5}, Bound{"jpeg_repeated", 0.8}, Bound{"jpeg_means", 7}, Bound{"jpeg", 3.5}})
    for (const GoldenCase& c : golden_cases(bound.kind, "ops/")) {
      const double mean = mean_difference(c, run(c, programme_of(c, PictureOp::jpeg)));
      EXPECT_LE(mean, bound.mean) << c.kind << " " << c.name;
    }
}

TEST(PictureOpsChain, RoundsToBytesAfterEachOperation) {
  const float half = std::sqrt(0.5F);
  for (const GoldenCase& c : golden_cases("chain", "ops/")) {
    const Result result = run(c, programme_of({{PictureOp::blur, 0.6F, 2},
                                               {PictureOp::equalize},
                                               {PictureOp::rotate, half, half},
                                               {PictureOp::saturation, 0.5F}}));
    EXPECT_GE(agreement(c, result, PictureOp::saturation, 1e-3).near, 0.99);
  }
}

// Three sums to 1/256 come to 3/512 at most.
TEST(PictureOpsMixture, IsTorchvisionsAugMix) {
  for (const GoldenCase& c : golden_cases("augmix", "ops/")) {
    const Result result = run(c, programme_of({{PictureOp::keep},
                                               {PictureOp::solarize, 128},
                                               {PictureOp::translate, 5},
                                               {PictureOp::end_chain, c.real("w0"), 0},
                                               {PictureOp::posterize, 3},
                                               {PictureOp::brightness, 1.25F},
                                               {PictureOp::end_chain, c.real("w1"), 1},
                                               {PictureOp::equalize},
                                               {PictureOp::end_chain, c.real("w2"), 1},
                                               {PictureOp::mix, c.real("kept")}}));
    for (size_t i = 0; i < c.values.size(); ++i) {
      EXPECT_NEAR(result.exact[i], c.values[i] + 0.5, 0.5 + 6e-3) << c.name << " " << i;
      EXPECT_TRUE(may_become(result.exact[i], static_cast<uint8_t>(c.values[i]), PictureOp::mix, 6e-3))
          << c.name << " " << i;
    }
  }
}

constexpr int kSide = 40;
std::vector<uint8_t> plain(int channels) {
  return std::vector<uint8_t>(static_cast<size_t>(kSide * kSide * channels), 128);
}

TEST(PictureOpsNoise, IsNormalAndOfEachChannelItsOwn) {
  PictureProgramme programme = programme_of({{PictureOp::noise, 20}});
  programme.key = 7;
  std::vector<double> exact;
  run_programme(plain(3), kSide, kSide, 3, programme, {0, 0, 0}, &exact);
  const double pixels = kSide * kSide;
  for (size_t c = 0; c < 3; ++c) {
    double sum = 0, squares = 0, with_next = 0;
    for (size_t i = 0; i < exact.size(); i += 3) {
      const double n = (exact[i + c] - 128) / 20;
      sum += n / pixels;
      squares += n * n / pixels;
      with_next += n * (exact[i + (c + 1) % 3] - 128) / 20 / pixels;
    }
    EXPECT_NEAR(sum, 0, 4 / std::sqrt(pixels));
    EXPECT_NEAR(squares, 1, 4 * std::sqrt(2 / pixels));
    EXPECT_NEAR(with_next, 0, 4 / std::sqrt(pixels));
  }
}

TEST(PictureOpsElastic, MovesEachPixelByASmoothFieldNoFurtherThanItsReach) {
  std::vector<uint8_t> ramp;  // tells where each pixel came from
  for (int i = 0; i < kSide * kSide; ++i) ramp.push_back(static_cast<uint8_t>(6 * (i % kSide)));
  for (const float reach : {0.0F, 3.0F}) {
    PictureProgramme programme = programme_of({{PictureOp::elastic, reach, 8}});
    programme.key = 7;
    std::vector<double> exact;
    run_programme(ramp, kSide, kSide, 1, programme, {0, 0, 0}, &exact);
    double furthest = 0;
    for (int y = 4; y < kSide - 4; ++y)
      for (int x = 4; x < kSide - 4; ++x) {
        const auto i = static_cast<size_t>(y * kSide + x);
        furthest = std::max(furthest, std::fabs(exact[i] / 6 - x));
        // Of knots in -1..1 the spline is no steeper than 2 for each distance between them.
        EXPECT_LE(std::fabs(exact[i + 1] / 6 - exact[i] / 6 - 1), reach * 2 / 8 + 1e-9);
      }
    EXPECT_LE(furthest, reach + 1e-9);
    EXPECT_GE(furthest, reach / 4);
  }
}

// Where knots lie, uniform cubic B-splines are (1, 4, 1) / 6.
TEST(PictureOpsElastic, IsThatOfItsKnotsWhereTheyLie) {
  constexpr int kDistance = 8;
  std::vector<uint8_t> ramp;
  for (int i = 0; i < kSide * kSide; ++i) ramp.push_back(static_cast<uint8_t>(6 * (i % kSide)));
  PictureProgramme programme = programme_of({{PictureOp::elastic, 3, kDistance}});
  programme.key = 7;
  std::vector<double> exact;
  run_programme(ramp, kSide, kSide, 1, programme, {0, 0, 0}, &exact);
  for (int y = kDistance; y < kSide - 4; y += kDistance)
    for (int x = kDistance; x < kSide - 4; x += kDistance) {
      double shift = 0;
      for (int k = 0; k < 9; ++k) {
        const int i = x / kDistance + k % 3, j = y / kDistance + k / 3;
        const auto words =
            philox(7, static_cast<uint64_t>(j * kMostKnots + i), static_cast<uint64_t>(PictureOp::elastic));
        shift += (k % 3 == 1 ? 4 : 1) * (k / 3 == 1 ? 4 : 1) * (2 * uniform(words.v[0]) - 1) / 36.0;
      }
      EXPECT_NEAR(exact[static_cast<size_t>(y * kSide + x)], 6 * (x + 3 * shift), 1e-4);
    }
}

TEST(PictureOpsPlaces, FillIsRoundedToAByteAndMeetsThePictureLinearly) {
  const auto moved =
      run_programme(plain(3), kSide, kSide, 3, programme_of({{PictureOp::translate, 1.5F}}), {0, 0.1, 1});
  EXPECT_EQ((std::vector<uint8_t>{moved.begin(), moved.begin() + 9}),
            (std::vector<uint8_t>{0, 26, 255, 64, 77, 192, 128, 128, 128}));
}

}  // namespace
}  // namespace convolt::test
