// What is drawn for mixup and CutMix.
#include "augment/mixing.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "convolt/error.h"

namespace convolt::test {
namespace {

using Mode = MixOptions::Mode;
using testing::HasSubstr;

std::vector<float> numbers(const std::vector<RowMix>& mixes) {
  std::vector<float> all;
  for (const RowMix& m : mixes) {
    all.push_back(m.part);
    for (const int32_t b : m.box) all.push_back(static_cast<float>(b));
  }
  return all;
}

// Of 20,000 places, against the distribution function as mpmath's betainc gives it at .001, .01, .1, .3 and .45; five
// standard deviations either way.
TEST(DrawBeta, HasTheDistribution) {
  const double at[] = {0.001, 0.01, 0.1, 0.3, 0.45};
  struct Known {
    float alpha;
    double variance, below[5];
  };
  const Known all[] = {{0.1F, 0.2083333333, {0.2542416566, 0.3203082504, 0.4063850939, 0.4628041861, 0.4911418395}},
                       {0.2F, 0.1785714286, {0.1322012917, 0.2097776901, 0.3366897784, 0.4332041844, 0.4840048389}},
                       {0.8F, 0.09615384615, {0.003280751145, 0.02071676959, 0.1318056691, 0.3240605953, 0.4564791728}},
                       {1.0F, 0.08333333333, {0.001, 0.01, 0.1, 0.3, 0.45}},
                       {2.0F, 0.05, {2.998e-6, 0.000298, 0.028, 0.216, 0.42525}}};
  constexpr int kDraws = 20000;
  for (const Known& known : all) {
    SCOPED_TRACE(known.alpha);
    double sum = 0, squares = 0;
    int below[5] = {};
    for (int64_t i = 0; i < kDraws; ++i) {
      const double part = draw_beta(known.alpha, {7, 2, i});
      ASSERT_TRUE(part >= 0 && part <= 1) << part;
      sum += part;
      squares += (part - 0.5) * (part - 0.5);
      for (size_t k = 0; k < 5; ++k) below[k] += part < at[k] ? 1 : 0;
    }
    EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(known.variance / kDraws));
    EXPECT_NEAR(squares / kDraws, known.variance, 5 * known.variance / std::sqrt(kDraws));
    for (size_t k = 0; k < 5; ++k) {
      const double p = known.below[k];
      EXPECT_NEAR(below[k] / double{kDraws}, p, 5 * std::sqrt(p * (1 - p) / kDraws) + 1.0 / kDraws) << at[k];
    }
  }
}

TEST(DrawBeta, IsANumberForAnyAlpha) {
  for (const float alpha : {1e-30F, 1e-6F, 0.01F, 30.F, 1e6F, 1e30F})
    for (int64_t i = 0; i < 50; ++i) {
      const double part = draw_beta(alpha, {1, 0, i});
      EXPECT_TRUE(part >= 0 && part <= 1) << alpha << ": " << part;
      if (alpha > 1e5F || alpha < 1e-5F) {
        EXPECT_TRUE(alpha > 1 ? std::abs(part - 0.5) < 0.01 : part < 0.01 || part > 0.99) << part;
      }
    }
}

// They are part of the format of a training.
TEST(DrawBeta, IsAPureFunctionOfItsPlace) {
  EXPECT_NEAR(draw_beta(0.2F, {1, 0, 0}), 0.999971988861367, 1e-12);
  EXPECT_NEAR(draw_beta(1.0F, {1, 3, 500}), 0.972175674918057, 1e-12);
  EXPECT_NE(draw_beta(1, {1, 0, 0}), draw_beta(1, {2, 0, 0}));
  EXPECT_NE(draw_beta(1, {1, 0, 0}), draw_beta(1, {1, 1, 0}));
  EXPECT_NE(draw_beta(1, {1, 0, 0}), draw_beta(1, {1, 0, 1}));
}

TEST(DrawMix, BoxesAreTimmsAndTheirPartIsWhatTheyLeave) {
  const MixOptions options{.cutmix_alpha = 1};
  const int height = 20, width = 31;
  int cut = 0, whole = 0;
  double left = 0, middle = 0;
  for (int64_t i = 0; i < 4000; ++i) {
    const MixKey key{3, 1, i};
    const auto& [part, box] = draw_mix(options, height, width, key);
    ASSERT_GE(std::min(box[0], box[1]), 0);
    ASSERT_LE(box[0] + box[2], width);
    ASSERT_LE(box[1] + box[3], height);
    ASSERT_EQ(box[2] == 0, box[3] == 0);
    EXPECT_FLOAT_EQ(part, 1 - static_cast<float>(box[2] * box[3]) / (height * width));
    // rand_bbox: the sides int(size sqrt(1 - lambda)), halved, either way of the centre.
    const double share = std::sqrt(1 - draw_beta(1, key));
    const int w = static_cast<int>(width * share) / 2 * 2, h = static_cast<int>(height * share) / 2 * 2;
    const bool inner = box[0] > 0 && box[0] + box[2] < width && box[1] > 0 && box[1] + box[3] < height;
    if (box[2] > 0) {
      EXPECT_TRUE(inner ? box[2] == w && box[3] == h : box[2] <= w && box[3] <= h) << w << " x " << h;
    }
    cut += box[2] > 0 && !inner ? 1 : 0;
    whole += inner ? 1 : 0;
    if (box[2] == 0) continue;
    left += box[0] == 0 ? 1 : 0;
    middle += box[0] + box[2] > width / 2 && box[0] <= width / 2 ? 1 : 0;
  }
  EXPECT_GT(cut, 1000);
  EXPECT_GT(whole, 300);
  EXPECT_NEAR(left, 4000 * 0.33, 300) << "the mean half width is a third of the width";
  EXPECT_GT(middle, left);
}

TEST(DrawMix, ProbabilitiesAndSwitches) {
  MixOptions o{.mixup_alpha = 1, .cutmix_alpha = 1, .prob = 0.4F, .switch_prob = 0.25F};
  const auto counts = [&] {
    std::pair<int, int> found{0, 0};  // blends, boxes
    for (int64_t i = 0; i < 4000; ++i) {
      const RowMix m = draw_mix(o, 64, 64, {9, 0, i});
      (m.box[2] > 0 ? found.second : found.first) += m.part < 1 ? 1 : 0;
    }
    return found;
  };
  auto [blends, boxes] = counts();
  EXPECT_NEAR(blends, 4000 * 0.3, 120);
  EXPECT_NEAR(boxes, 4000 * 0.1, 90);
  o.mixup_alpha = 0;
  EXPECT_EQ(counts().first, 0);
  EXPECT_NEAR(counts().second, 4000 * 0.4, 130);
  o = {.mixup_alpha = 1, .switch_prob = 1};
  EXPECT_EQ(counts(), (std::pair{4000, 0}));
  o.prob = 0;
  EXPECT_EQ(counts(), (std::pair{0, 0}));
  o = {};
  EXPECT_EQ(counts(), (std::pair{0, 0}));
}

TEST(DrawMix, EndsAtTheOffEpoch) {
  MixOptions o{.mixup_alpha = 1, .off_epoch = 3};
  EXPECT_LT(draw_mix(o, 8, 8, {1, 2, 0}).part, 1);
  EXPECT_EQ(draw_mix(o, 8, 8, {1, 3, 0}).part, 1);
  EXPECT_EQ(draw_mix(o, 8, 8, {1, 900, 0}).part, 1);
  o.off_epoch = 0;
  EXPECT_LT(draw_mix(o, 8, 8, {1, 900, 0}).part, 1);
}

std::vector<RowMix> rows_of(const MixOptions& o, const std::vector<float>& weights, int64_t position = 40) {
  std::vector<RowMix> mixes(weights.size());
  draw_mixes(o, 32, 32, {5, 1, position}, weights, mixes);
  return mixes;
}

TEST(DrawMixes, AModeSaysWhatIsDrawnTogether) {
  const std::vector<float> weights(7, 1);
  MixOptions o{.mixup_alpha = 1, .cutmix_alpha = 1};
  const auto drawn_at = [&](int64_t position) { return numbers({draw_mix(o, 32, 32, {5, 1, position})}); };
  for (const Mode mode : {Mode::batch, Mode::pair, Mode::elem}) {
    o.mode = mode;
    const std::vector<RowMix> mixes = rows_of(o, weights);
    for (size_t n = 0; n < 7; ++n) {
      const auto row = static_cast<int64_t>(n);
      const int64_t place = mode == Mode::batch ? 0 : mode == Mode::pair ? std::min(row, 6 - row) : row;
      if (n == 3)
        EXPECT_EQ(mixes[n].part, 1) << "the middle one";
      else
        EXPECT_EQ(numbers({mixes[n]}), drawn_at(40 + place)) << n;
    }
  }
}

TEST(DrawMixes, RowsWithoutWeightAndTheirPartnersAreLeftAlone) {
  for (const Mode mode : {Mode::batch, Mode::pair, Mode::elem}) {
    const std::vector<RowMix> mixes = rows_of({.mixup_alpha = 1, .mode = mode}, {1, 0, 1, 1, 1, 0.5F});
    for (size_t n = 0; n < 6; ++n) EXPECT_EQ(mixes[n].part < 1, n != 1 && n != 4) << n;
  }
}

TEST(CheckMixing, NamesTheOptionThatMakesNoSense) {
  EXPECT_NO_THROW(check(MixOptions{}));
  EXPECT_NO_THROW(check(MixOptions{.mixup_alpha = 0.8F, .cutmix_alpha = 1, .prob = 0, .switch_prob = 1}));
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  const std::pair<const char*, MixOptions> wrong[] = {
      {"mixup_alpha", {.mixup_alpha = -0.1F}}, {"mixup_alpha", {.mixup_alpha = infinite}},
      {"cutmix_alpha", {.cutmix_alpha = nan}}, {"prob", {.prob = 1.1F}},
      {"switch_prob", {.switch_prob = -1}},    {"off_epoch", {.off_epoch = -1}}};
  for (const auto& [name, options] : wrong) try {
      check(options);
      FAIL() << name;
    } catch (const UsageError& e) {
      EXPECT_THAT(e.what(), HasSubstr(std::string("option ") + name + " is "));
    }
}

}  // namespace
}  // namespace convolt::test
