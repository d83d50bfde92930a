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

struct Seen {
  std::vector<float> logits;
  std::vector<int32_t> labels;
  EvalResult result;
};

Seen seen(const Trial& trial, const Dataset& data, int views) {
  EvalOptions o{.batch = 16, .views = views, .preprocessing = made_pictures()};
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

}  // namespace
}  // namespace convolt::test
