// Evaluation in several views.
#include <gmock/gmock.h>

#include "train/trial.h"

namespace convolt::test {
namespace {

// A set whose pictures are those of another, moved and mirrored by hand.
class Moved final : public Dataset {
public:
  Moved(const Dataset& of, int by, bool mirrored) : of_(&of), by_(by), mirrored_(mirrored) {
    class_names_ = of.class_names();
  }
  int64_t size() const override { return of_->size(); }
  int32_t label(int64_t i) const override { return of_->label(i); }
  std::string name(int64_t i) const override { return of_->name(i); }
  std::string describe() const override { return "moved"; }
  int channels() const override { return 1; }
  int fixed_height() const override { return MadeSet::kSide; }
  int fixed_width() const override { return MadeSet::kSide; }
  RawSample read(int64_t i) const override {
    constexpr int kSide = MadeSet::kSide;
    const RawSample plain = of_->read(i);
    RawSample moved = plain;
    const auto inside = [](int p) { return p < 0 ? -p : p >= kSide ? 2 * kSide - 2 - p : p; };
    for (int y = 0; y < kSide; ++y)
      for (int x = 0; x < kSide; ++x)
        moved.bytes[static_cast<size_t>(y * kSide + (mirrored_ ? kSide - 1 - x : x))] =
            plain.bytes[static_cast<size_t>(inside(y + by_) * kSide + inside(x + by_))];
    return moved;
  }

private:
  const Dataset* of_;
  int by_;
  bool mirrored_;
};

// Noise of several shapes whose shorter side is 15, and crops of 12 x 12 of it by torchvision's documentation of
// FiveCrop and TenCrop: `crop` counts the corners from the upper left, row by row, then the centre; from 5 on those of
// the mirror image.
class Shapes : public Dataset {
public:
  static constexpr int kShorter = 15;
  explicit Shapes(int64_t size) : size_(size) { class_names_ = {"left", "middle", "right"}; }
  int64_t size() const override { return size_; }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(i % 3); }
  std::string name(int64_t i) const override { return "shape[" + std::to_string(i) + "]"; }
  std::string describe() const override { return "shapes"; }
  int channels() const override { return 1; }
  RawSample read(int64_t i) const override {
    const int longer = kShorter + static_cast<int>(i % 6), height = i % 2 == 0 ? longer : kShorter,
              width = i % 2 == 0 ? kShorter : longer;
    RawSample s{std::vector<uint8_t>(static_cast<size_t>(height * width)), height, width, 1};
    for (size_t p = 0; p < s.bytes.size(); ++p)
      s.bytes[p] = static_cast<uint8_t>(philox(11, static_cast<uint64_t>(i), p).v[0]);
    return s;
  }

private:
  int64_t size_;
};

class Crops final : public Shapes {
public:
  static constexpr int kSide = MadeSet::kSide;
  Crops(int64_t size, int crop) : Shapes(size), crop_(crop) {}
  RawSample read(int64_t i) const override {
    const RawSample whole = Shapes::read(i);
    const int corner = crop_ % 5;
    const int top = start(whole.height, corner / 2), left = start(whole.width, corner % 2);
    RawSample part{{}, kSide, kSide, 1};
    for (int y = top; y < top + kSide; ++y)
      for (int x = left; x < left + kSide; ++x)
        part.bytes.push_back(whole.bytes[static_cast<size_t>(y * whole.width + (crop_ < 5 ? x : whole.width - 1 - x))]);
    return part;
  }

private:
  // Python's round() is to even.
  int start(int side, int end) const {
    if (crop_ % 5 == 4) return static_cast<int>(std::nearbyint((side - kSide) / 2.0));
    return end == 0 ? 0 : side - kSide;
  }
  int crop_;
};

struct Seen {
  std::vector<float> logits;
  std::vector<int32_t> labels;
  EvalResult result;
};

AugmentOptions resized_to(int side) {
  AugmentOptions o = made_pictures();
  o.geometry = AugmentOptions::Geometry::resize_centre_crop;
  o.resize = side;
  return o;
}

Seen seen(const Trial& trial, const Dataset& data, int views, const AugmentOptions& pictures = made_pictures()) {
  EvalOptions o{.batch = 16, .views = views, .preprocessing = pictures};
  o.preprocessing.border = AugmentOptions::Border::reflect;
  Evaluator evaluator(trial.graph, *trial.params, data, o);
  Seen s;
  for (int run = 0; run < 2; ++run) {  // reusable
    s.logits.clear();
    s.labels.clear();
    s.result = evaluator.run([&](int64_t sample, const float* row, bool skipped) {
      s.logits.insert(s.logits.end(), row, row + 3);
      s.labels.push_back(skipped ? -1 : data.label(sample));
    });
  }
  return s;
}

TEST(Views, AreTheWeightedMeanOfTheMovedPictures) {
  const Trial trial;
  const MadeSet data(20);  // the last batch is padded
  std::vector<double> two(60), six(60);
  for (const int by : {0, -1, 1})
    for (const bool mirrored : {false, true}) {
      const std::vector<float> logits = seen(trial, Moved(data, by, mirrored), 1).logits;
      for (size_t i = 0; i < 60; ++i) {
        six[i] += static_cast<double>(logits[i]) * (by == 0 ? 0.25 : 0.125);
        if (by == 0) two[i] += static_cast<double>(logits[i]) * 0.5;
      }
    }
  const Seen of_two = seen(trial, data, 2), of_six = seen(trial, data, 6);
  ASSERT_EQ(of_six.logits.size(), 60U);
  for (size_t i = 0; i < 60; ++i) {
    EXPECT_NEAR(of_two.logits[i], two[i], 1e-6) << i;
    EXPECT_NEAR(of_six.logits[i], six[i], 1e-6) << i;
  }
  const Evaluation e = evaluate(of_six.logits, of_six.labels, 3);
  EXPECT_EQ(of_six.result.samples, 20);
  EXPECT_EQ(of_six.result.correct, static_cast<double>(e.top1.hits));
  EXPECT_EQ(of_six.result.top1, e.top1.value());
  EXPECT_EQ(of_six.result.loss, e.plain.loss);
  EXPECT_EQ(of_six.result.top5, 1);
}

TEST(Views, FiveAndTenAreTheCropsOfTorchvision) {
  const Trial trial;
  const Shapes data(20);
  std::vector<double> five(60), ten(60);
  for (int crop = 0; crop < 10; ++crop) {
    const std::vector<float> logits = seen(trial, Crops(20, crop), 1).logits;
    for (size_t i = 0; i < 60; ++i) {
      ten[i] += static_cast<double>(logits[i]) / 10;
      if (crop < 5) five[i] += static_cast<double>(logits[i]) / 5;
    }
  }
  const Seen of_five = seen(trial, data, 5, resized_to(Shapes::kShorter));
  const Seen of_ten = seen(trial, data, 10, resized_to(Shapes::kShorter));
  for (size_t i = 0; i < 60; ++i) {
    EXPECT_NEAR(of_five.logits[i], five[i], 1e-6) << i;
    EXPECT_NEAR(of_ten.logits[i], ten[i], 1e-6) << i;
  }
  EXPECT_EQ(of_ten.result.samples, 20);
}

TEST(Views, APictureThatCannotBeReadCountsForNothing) {
  const Trial trial;
  const MadeSet broken(20, {4, 17});
  const EvalResult one = seen(trial, broken, 1).result, six = seen(trial, broken, 6).result;
  EXPECT_EQ(one.samples, 18);
  EXPECT_EQ(six.samples, 18);
  EXPECT_EQ(six.skipped, 2);
}

TEST(Views, OtherNumbersAreRefused) {
  const Trial trial;
  const MadeSet data(20);
  EXPECT_THROW(seen(trial, data, 3), UsageError);
}

TEST(Views, CropsNeedPicturesThatAreLarger) {
  const Trial trial;
  const MadeSet data(20);
  const auto message = [&](const AugmentOptions& pictures) -> std::string {
    try {
      seen(trial, data, 10, pictures);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "no UsageError";
  };
  EXPECT_THAT(message(made_pictures()), testing::HasSubstr("sees these pictures whole; resize them to more"));
  EXPECT_THAT(message(resized_to(11)), testing::HasSubstr("crops of 12 pixels, and pictures are resized to 11"));
  EXPECT_THAT(message(resized_to(12)), "no UsageError");
}

}  // namespace
}  // namespace convolt::test
