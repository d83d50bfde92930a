#include "augment/programme.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "augment/batch.h"
#include "augment/drawn_policies.h"
#include "augment/golden.h"

namespace convolt::test {
namespace {

TEST(Policies, RandAugmentAsTorchvision) {
  std::map<std::string, int> counts;
  auto amounts = amounts_of(with(Policy::rand_augment), counts);
  ASSERT_EQ(counts.size(), 14U);
  for (const auto& [name, count] : counts) EXPECT_NEAR(count, 8000.0 / 14, 5 * std::sqrt(8000.0 / 14)) << name;
  using Set = std::set<double>;
  EXPECT_EQ(rounded_set(amounts["policy shear-x"]), (Set{-0.09, 0.09}));
  EXPECT_EQ(rounded_set(amounts["policy shear-y"]), (Set{-0.09, 0.09}));
  EXPECT_EQ(rounded_set(amounts["policy translate-x"]), (Set{-17, 17}));  // int(0.3 * 150 / 331 * 128)
  EXPECT_EQ(rounded_set(amounts["policy translate-y"]), (Set{-13, 13}));
  EXPECT_EQ(rounded_set(amounts["policy rotate"]), (Set{-9, 9}));
  for (const char* name : {"brightness", "color", "contrast", "sharpness"})
    EXPECT_EQ(rounded_set(amounts[std::string("policy ") + name]), (Set{0.73, 1.27})) << name;
  EXPECT_EQ(rounded_set(amounts["policy posterize"]), (Set{7}));
  EXPECT_EQ(rounded_set(amounts["policy solarize"]), (Set{178.5}));
}

TEST(Policies, TrivialAugmentGoesFurtherAtAnyMagnitude) {
  std::map<std::string, int> counts;
  auto amounts = amounts_of(with(Policy::trivial_wide), counts);
  ASSERT_EQ(counts.size(), 14U);
  for (const auto& [name, count] : counts) EXPECT_NEAR(count, 4000.0 / 14, 5 * std::sqrt(4000.0 / 14)) << name;
  const auto expect_range = [&](const char* name, double low, double high, size_t values) {
    const std::set<double> found = rounded_set(amounts[name]);
    EXPECT_NEAR(*found.begin(), low, 1e-9) << name;
    EXPECT_NEAR(*found.rbegin(), high, 1e-9) << name;
    EXPECT_LE(found.size(), values) << name;
    EXPECT_GE(found.size(), values - values / 10) << name;  // of which few samples may miss one
  };
  expect_range("policy shear-x", -0.99, 0.99, 61);
  expect_range("policy translate-y", -32, 32, 61);
  expect_range("policy rotate", -135, 135, 61);
  expect_range("policy color", 0.01, 1.99, 61);
  expect_range("policy posterize", 2, 8, 7);
  expect_range("policy solarize", 0, 255, 31);
}

// Sub-policy 11 of CIFAR-10's is (Equalize 0.3, AutoContrast 0.4), and so on: the shares of all operations.
TEST(Policies, AutoAugmentDrawsItsSubPolicies) {
  std::map<std::string, int> counts;
  auto amounts = amounts_of(with(Policy::cifar10), counts);
  const auto share = [&](const char* name) { return counts[std::string("policy ") + name] / 4000.0; };
  EXPECT_NEAR(share("invert"), (0.1 + 0.0 + 0.1) / 25, 5e-3);
  EXPECT_NEAR(share("rotate"), 0.7 / 25, 0.015);
  EXPECT_NEAR(share("equalize"), (0.9 + 0.6 + 0.5 + 0.3 + 0.2 + 0.2 + 0.6 + 0.6 + 0.8) / 25, 0.04);
  EXPECT_NEAR(share("translate-y"), (0.7 + 0.4 + 0.9 + 0.7 + 0.7) / 25, 0.04);
  EXPECT_EQ(rounded_set(amounts["policy rotate"]), (std::set<double>{-6.6667, 6.6667}));  // magnitude 2 of 0 to 9
  EXPECT_EQ(rounded_set(amounts["policy solarize"]),
            (std::set<double>{28.3333, 113.3333, 170, 198.3333}));  // 8, 5, 3, 2
  for (const Policy p : {Policy::imagenet, Policy::svhn}) {
    std::map<std::string, int> others;
    EXPECT_GT(amounts_of(with(p), others).size(), 5U);
  }
}

TEST(Policies, AugMixMixesThreeChains) {
  const AugmentOptions o = with(Policy::augmix);
  double own = 0;
  for (uint64_t sample = 0; sample < 500; ++sample) {
    const DrawnProgramme d = draw_programme(o, Dice{3, 0, sample});
    double weights = 0;
    int chains = 0, in_chain = 0;
    for (int k = 0; k < d.programme.count; ++k) {
      const PictureStep& step = d.programme.steps[k];
      EXPECT_TRUE(step.op != PictureOp::keep || k == 0);
      if (step.op == PictureOp::end_chain) {
        EXPECT_EQ(step.b != 0, chains > 0);
        EXPECT_LE(in_chain, 3);
        in_chain = 0;
        ++chains;
        weights += double{step.a};
      } else if (step.op == PictureOp::mix) {
        EXPECT_EQ(k, d.programme.count - 1);
        weights += double{step.a};
        own += double{step.a} / 500;
      } else if (step.op != PictureOp::keep) {
        ++in_chain;
      }
    }
    EXPECT_EQ(chains, 3);
    EXPECT_NEAR(weights, 1, 1e-6);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(d.map.m[i], Affine{}.m[i]) << "chains have places of their own";
  }
  EXPECT_NEAR(own, 0.5, 0.07);
}

TEST(Policies, ThreeAugmentTakesOneOfThree) {
  std::map<std::string, int> counts;
  auto amounts = amounts_of(with(Policy::three_augment), counts);
  ASSERT_EQ(counts.size(), 3U);
  for (const auto& [name, count] : counts) EXPECT_NEAR(count, 4000.0 / 3, 150) << name;
  const std::set<double> sigmas = rounded_set(amounts["policy blur"]);
  EXPECT_GE(*sigmas.begin(), 0.1);
  EXPECT_LE(*sigmas.rbegin(), 2);
}

// Every operation of AugmentOptions by its own chance, in the order that convolt/augment.h says.
TEST(Policies, SingleOperationsInTheirOrder) {
  AugmentOptions o = with(Policy::none);
  o.perspective = o.elastic = o.invert = o.posterize = o.solarize = o.auto_contrast = o.equalize = o.sharpness = 1;
  o.blur = o.noise = o.jpeg = 1;
  check(o);
  const DrawnProgramme d = draw_programme(o, Dice{1, 2, 3});
  const std::vector<PictureOp> order{PictureOp::perspective, PictureOp::elastic,   PictureOp::invert,
                                     PictureOp::posterize,   PictureOp::solarize,  PictureOp::auto_contrast,
                                     PictureOp::equalize,    PictureOp::sharpness, PictureOp::blur,
                                     PictureOp::noise,       PictureOp::jpeg};
  ASSERT_EQ(d.programme.count, static_cast<int>(order.size()));
  for (size_t k = 0; k < order.size(); ++k) EXPECT_EQ(d.programme.steps[k].op, order[k]) << k;
  EXPECT_EQ(most_steps(o), 11);
  EXPECT_NE(d.programme.key, draw_programme(o, Dice{1, 2, 4}).programme.key);
  for (float* p : {&o.perspective, &o.elastic, &o.invert, &o.posterize, &o.solarize, &o.auto_contrast, &o.equalize,
                   &o.sharpness, &o.blur, &o.noise, &o.jpeg})
    *p = 0.25F;
  std::map<PictureOp, int> counts;
  for (uint64_t sample = 0; sample < 2000; ++sample) {
    const DrawnProgramme drawn = draw_programme(o, Dice{1, 2, sample});
    for (int k = 0; k < drawn.programme.count; ++k) ++counts[drawn.programme.steps[k].op];
  }
  for (const PictureOp op : order) EXPECT_NEAR(counts[op], 500, 100) << static_cast<int>(op);
}

// The picture's corners end where torchvision draws them: within half the picture's half.
TEST(Policies, PerspectivesMoveCornersInwards) {
  AugmentOptions o = with(Policy::none);
  o.perspective = 1;
  for (uint64_t sample = 0; sample < 50; ++sample) {
    const PictureProgramme programme = draw_programme(o, Dice{1, 0, sample}).programme;
    const std::vector<double> m(programme.map, programme.map + 8);
    // By the adjugate of the matrix: where the place that a corner is taken from lies.
    const auto end_of = [&](double x, double y) {
      const double u = (m[4] - m[5] * m[7]) * x + (m[2] * m[7] - m[1]) * y + (m[1] * m[5] - m[2] * m[4]);
      const double v = (m[5] * m[6] - m[3]) * x + (m[0] - m[2] * m[6]) * y + (m[2] * m[3] - m[0] * m[5]);
      const double w = (m[3] * m[7] - m[4] * m[6]) * x + (m[1] * m[6] - m[0] * m[7]) * y + (m[0] * m[4] - m[1] * m[3]);
      return std::pair{u / w, v / w};
    };
    const double corners[4][2] = {{0, 0}, {127, 0}, {127, 95}, {0, 95}};
    for (const auto& c : corners) {
      const auto [x, y] = end_of(c[0], c[1]);
      EXPECT_GE(x, c[0] == 0 ? -1e-2 : 95 - 1e-2);
      EXPECT_LE(x, c[0] == 0 ? 32 + 1e-2 : 127 + 1e-2);
      EXPECT_GE(y, c[1] == 0 ? -1e-2 : 71 - 1e-2);
      EXPECT_LE(y, c[1] == 0 ? 24 + 1e-2 : 95 + 1e-2);
      EXPECT_NEAR(x, std::round(x), 1e-2);
    }
  }
  o.distortion = 0;
  const PictureProgramme flat = draw_programme(o, Dice{1, 0, 0}).programme;
  for (int i = 0; i < 8; ++i) EXPECT_NEAR(flat.map[i], i == 0 || i == 4 ? 1 : 0, 1e-6) << i;
}

// A policy moves no other draw, and its turns are part of the one sampling.
TEST(Policies, ChangeNoOtherDraw) {
  AugmentOptions plain;
  plain.hflip = 0.5F;
  plain.brightness = 0.4F;
  plain.erase = 0.5F;
  AugmentOptions o = plain;
  o.policy = Policy::rand_augment;
  int turned_records = 0;
  for (uint64_t sample = 0; sample < 100; ++sample) {
    const SampleRecord a = make_record(plain, 300, 400, 3, 1, 2, sample), b = make_record(o, 300, 400, 3, 1, 2, sample);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(a.box[i], b.box[i]);
    EXPECT_EQ(a.brightness, b.brightness);
    EXPECT_EQ(a.erase[0], b.erase[0]);
    const DrawnProgramme d = draw_programme(o, Dice{1, 2, sample});
    const Affine map = Affine{{a.map[0], a.map[1], a.map[2], a.map[3], a.map[4], a.map[5]}} * d.map;
    for (int i = 0; i < 6; ++i) EXPECT_NEAR(b.map[i], map.m[i], 1e-3) << sample << " " << i;
    EXPECT_EQ(a.programme.count, 0);
    EXPECT_EQ(b.programme.count, d.programme.count);
    turned_records += b.axis_aligned ? 0 : 1;
  }
  EXPECT_GT(turned_records, 10);
}

TEST(Policies, ExplainNamesWhatWasChosen) {
  AugmentOptions o = with(Policy::rand_augment);
  o.blur = 1;
  for (uint64_t sample = 0; sample < 20; ++sample) {
    const std::vector<DrawnValues> said = explain(o, 96, 128, 1, 2, sample);
    ASSERT_EQ(said.size(), 4U);  // crop, two of the policy, the blur
    EXPECT_EQ(said[3].operation, "gaussian-blur");
    EXPECT_TRUE(said[1].operation.starts_with("policy "));
  }
}

TEST(Erasing, BecomesAValueAColourOrNoise) {
  AugmentOptions o = with(Policy::none);
  o.erase = 1;
  o.erase_scale = {0.3F, 0.3F};
  o.erase_ratio = {0.9F, 1.1F};
  const std::vector<uint8_t> grey(static_cast<size_t>(96 * 128 * 3), 128);
  const auto erased = [&](uint64_t sample) {
    AugmentSample s{make_record(o, 96, 128, 3, 5, 0, sample), grey};
    const std::vector<double> all = augmented(context_of(Device::cpu()), DType::f32, {s}, {96, 128, 3});
    std::vector<double> inside;
    const int32_t* e = s.record.erase;
    EXPECT_GT(e[2], 0);
    for (int y = e[1]; y < e[1] + e[3]; ++y)
      for (int x = e[0]; x < e[0] + e[2]; ++x)
        for (int c = 0; c < 3; ++c) inside.push_back(all[static_cast<size_t>((y * 128 + x) * 3 + c)]);
    return inside;
  };
  o.erase_value = 0.25F;
  for (const double v : erased(0)) EXPECT_EQ(v, 0.25);
  o.erase_mode = AugmentOptions::EraseMode::colour;
  const std::vector<double> colour = erased(0);
  for (size_t i = 3; i < colour.size(); ++i) EXPECT_EQ(colour[i], colour[i % 3]);
  EXPECT_NE(colour[0], colour[1]);
  EXPECT_NE(colour[0], erased(1)[0]);
  o.erase_mode = AugmentOptions::EraseMode::pixels;
  const std::vector<double> noise = erased(0);
  double sum = 0, squares = 0, products = 0;
  for (size_t i = 0; i < noise.size(); ++i) {
    sum += noise[i];
    squares += noise[i] * noise[i];
    if (i > 0) products += noise[i] * noise[i - 1];
  }
  const double n = static_cast<double>(noise.size());
  EXPECT_NEAR(sum / n, 0, 0.05);
  EXPECT_NEAR(squares / n, 1, 0.05);
  EXPECT_NEAR(products / n, 0, 0.05);
}

// Whole records of a policy through the kernel, against the reference: those that turn nothing, whose bytes are the
// picture's own.
void expect_reference(AugmentOptions o, int channels) {
  o.channels = channels;
  const AugmentOutput output{o.height, o.width, channels};
  std::vector<AugmentSample> samples;
  for (uint64_t sample = 0; samples.size() < 8; ++sample) {
    AugmentSample s{make_record(o, o.height, o.width, channels, 1, 0, sample),
                    golden_picture(o.width, o.height, channels)};
    if (s.record.axis_aligned && s.record.map[2] == 0 && s.record.map[5] == 0) samples.push_back(std::move(s));
  }
  const std::vector<double> found = augmented(context_of(Device::cpu()), DType::f32, samples, output);
  size_t at = 0, apart = 0;
  for (const AugmentSample& s : samples)
    for (const double expected : augment_reference(s, output)) apart += std::abs(found[at++] - expected) > 1.01 / 255;
  EXPECT_LE(static_cast<double>(apart), 0.01 * static_cast<double>(found.size())) << static_cast<int>(o.policy);
}
TEST(Policies, RecordsThroughTheKernel) {
  for (const Policy policy : {Policy::rand_augment, Policy::cifar10, Policy::augmix, Policy::three_augment})
    for (const int channels : {3, 1}) expect_reference(with(policy), channels);
  AugmentOptions three = with(Policy::timm_rand);
  three.op_set = AugmentOptions::OpSet::three;
  for (const int channels : {3, 1}) expect_reference(three, channels);
}

TEST(Policies, ChecksTheirOptions) {
  const auto refused = [](auto change) {
    AugmentOptions o;
    change(o);
    EXPECT_THROW(check(o), UsageError);
  };
  refused([](AugmentOptions& o) { o.solarize = 1.5F; });
  refused([](AugmentOptions& o) { o.policy_ops = 13; });
  refused([](AugmentOptions& o) { o.magnitude = 31; });
  refused([](AugmentOptions& o) { o.magnitude_max = 31; });
  refused([](AugmentOptions& o) { o.posterize_bits = 9; });
  refused([](AugmentOptions& o) { o.blur_sigma = {0, 1}; });
  refused([](AugmentOptions& o) { o.blur_sigma = {1, 11}; });
  refused([](AugmentOptions& o) { o.jpeg_quality = {0, 50}; });
  refused([](AugmentOptions& o) { o.elastic_sigma = 0; });
  refused([](AugmentOptions& o) { o.erase_scale = {0.5F, 0.2F}; });
  refused([](AugmentOptions& o) { o.noise_sigma = std::nanf(""); });
}

}  // namespace
}  // namespace convolt::test
