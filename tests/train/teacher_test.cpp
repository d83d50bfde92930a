// Distillation: students of a teacher.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "convolt/layers.h"
#include "convolt/trainer.h"
#include "train/trial.h"

namespace convolt::test {
namespace {

// Pictures whose labels tell nothing.
class Unlabelled final : public Dataset {
public:
  explicit Unlabelled(const Dataset& data) : data_(data) { class_names_ = data.class_names(); }
  int64_t size() const override { return data_.size(); }
  int32_t label(int64_t) const override { return 0; }
  std::string name(int64_t i) const override { return data_.name(i); }
  std::string describe() const override { return "unlabelled"; }
  int channels() const override { return data_.channels(); }
  int fixed_height() const override { return data_.fixed_height(); }
  int fixed_width() const override { return data_.fixed_width(); }
  RawSample read(int64_t i) const override { return data_.read(i); }

private:
  const Dataset& data_;
};

std::vector<double> probabilities_of(Trial& trial, const Dataset& data) {
  Evaluator evaluator(trial.graph, *trial.params, data, {.batch = 16, .preprocessing = made_pictures()});
  std::vector<double> all;
  evaluator.run([&](int64_t, const float* logits, bool) {
    double sum = 0;
    for (int k = 0; k < 3; ++k) sum += std::exp(static_cast<double>(logits[k]));
    for (int k = 0; k < 3; ++k) all.push_back(std::exp(static_cast<double>(logits[k])) / sum);
  });
  return all;
}

double mean_distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]) / static_cast<double>(a.size());
  return sum;
}

// With alpha 1 the labels do not count: the student learns what the teacher says, augmented pictures and all.
TEST(Trainer, AStudentLearnsFromItsTeacherAlone) {
  const MadeSet data(96), unseen(48);
  Trial teacher, student(11);
  teacher.train(data, nullptr, made_options());
  const auto before = mean_distance(probabilities_of(student, unseen), probabilities_of(teacher, unseen));
  const auto teacher_weights = teacher.params->values(0);
  TrainOptions o = made_options();
  o.epochs = 6;
  o.loss.distill_alpha = 1;
  o.loss.temperature = 2;
  o.teacher = &teacher.graph;
  o.teacher_params = teacher.params.get();
  student.train(Unlabelled(data), nullptr, o);
  const auto after = mean_distance(probabilities_of(student, unseen), probabilities_of(teacher, unseen));
  EXPECT_GT(before, 0.2);
  EXPECT_LT(after, 0.05);
  EXPECT_EQ(teacher.params->values(0), teacher_weights) << "the teacher stays as it is";
  EXPECT_EQ(teacher.params->batches_tracked, 18);
}

// In 16 bits too, where the teacher's logits are widened first; the same bits again.
TEST(Trainer, DistillationInBf16Repeats) {
  const MadeSet data(48);
  Trial teacher;
  std::vector<float> weights[2];
  for (auto& w : weights) {
    Trial student(11);
    TrainOptions o = made_options();
    o.epochs = 1;
    o.dtype = DType::bf16;
    o.loss.distill_alpha = 0.5F;
    o.teacher = &teacher.graph;
    o.teacher_params = teacher.params.get();
    student.train(data, nullptr, o);
    w = student.params->values(0);
  }
  EXPECT_EQ(weights[0], weights[1]);
}

TEST(Trainer, ATeacherIsMissingOrKnowsOtherClasses) {
  const MadeSet data(48);
  TrainOptions o = made_options();
  o.loss.distill_alpha = 0.5F;
  EXPECT_THROW(Trial().train(data, nullptr, o), UsageError);
  Graph other;
  other.output(linear(flatten(other.input("image", {MadeSet::kSide, MadeSet::kSide, 1})), 4, {.name = "fc"}));
  Params params(context_of(Device::cpu()), other, 1);
  o.teacher = &other;
  o.teacher_params = &params;
  EXPECT_THROW(Trial().train(data, nullptr, o), UsageError);
}
}  // namespace
}  // namespace convolt::test
