#include "picture_ops.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "augment.h"
#include "augment/batch.h"
#include "augment/golden.h"
#include "reference/picture_ops.h"

namespace convolt {
extern bool phases_backwards;
}

namespace convolt::test {
namespace {

struct Size {
  int width, height, channels;
};

class PictureOpsTest : public testing::TestWithParam<Device> {
protected:
  void SetUp() override {
    if (GetParam().is_cuda() && cuda_device_count() == 0) GTEST_SKIP() << cuda_unavailable_reason();
  }
  Context& ctx() const { return context_of(GetParam()); }

  // Pictures of one size, each with its programme.
  std::vector<uint8_t> after(const std::vector<PictureProgramme>& programmes, const std::vector<uint8_t>& picture,
                             Size size) const {
    std::vector<SampleRecord> records(programmes.size());
    std::vector<uint8_t> pictures;
    for (size_t i = 0; i < records.size(); ++i) {
      records[i].programme = programmes[i];
      pictures.insert(pictures.end(), picture.begin(), picture.end());
    }
    const Buffer device_records = uploaded(ctx(), records.data(), records.size() * sizeof(SampleRecord));
    StepInput input;
    input.records = device_records.as<const SampleRecord>();
    const Buffer device_input = uploaded(ctx(), &input, sizeof input);
    const Shape shape{static_cast<int64_t>(records.size()), size.height, size.width, size.channels};
    DeviceTensor bytes(ctx(), DType::u8, shape);
    const DeviceTensor spare(ctx(), DType::u8, shape), kept(ctx(), DType::u8, shape);
    const DeviceTensor wide(ctx(), DType::f16, shape);
    bytes.set({pictures.begin(), pictures.end()});
    PictureOpsArgs args{device_input.as<const StepInput>(), shape[0], size.height, size.width, size.channels, {}};
    args.buffers = {bytes.as<uint8_t>(), spare.as<uint8_t>(), kept.as<uint8_t>(), wide.as<uint16_t>()};
    std::copy(kFill.begin(), kFill.end(), args.fill);
    run(ctx(), [&](Stream s) { run_picture_ops(s, args); });
    bytes.check_guards();
    for (const DeviceTensor* tensor : {&spare, &kept, &wide}) tensor->check_guards();
    const std::vector<double> values = bytes.values();
    return {values.begin(), values.end()};
  }
  std::vector<uint8_t> after(const PictureProgramme& programme, const std::vector<uint8_t>& picture, Size size) const {
    return after(std::vector{programme}, picture, size);
  }

  static constexpr std::array<double, 3> kFill{0.2, 0.4, 1};
};

PictureProgramme programme_of(const std::vector<PictureStep>& steps) {
  PictureProgramme p;
  p.count = static_cast<int32_t>(steps.size());
  std::copy(steps.begin(), steps.end(), p.steps);
  p.key = 0x123456789ABCDEFULL;
  const float map[8] = {1.1F, 0.2F, -3, -0.1F, 0.9F, 2, 0.004F, -0.002F};
  std::copy(map, map + 8, p.map);
  return p;
}

std::string described(const PictureStep& s, Size size) {
  return fmt::format("op {} with {} and {}, {} x {} x {}", static_cast<int>(s.op), s.a, s.b, size.width, size.height,
                     size.channels);
}

// `found` is what the step makes of `picture`, but for the last bit of float arithmetic.
void expect_step(const PictureProgramme& programme, const std::vector<uint8_t>& picture,
                 const std::vector<uint8_t>& found, Size size, const std::array<double, 3>& fill) {
  std::vector<double> exact;
  const std::vector<uint8_t> expected =
      run_programme(picture, size.height, size.width, size.channels, programme, fill, &exact);
  const PictureStep& step = programme.steps[programme.count - 1];
  if (step.op == PictureOp::jpeg) {
    // A coefficient half way between two multiples of its quantum may go either way, and then moves 64 pixels.
    double apart = 0;
    for (size_t i = 0; i < found.size(); ++i) apart += std::abs(found[i] - expected[i]);
    EXPECT_LE(apart, static_cast<double>(found.size()) * (found.size() > 500 ? 1 : 4)) << described(step, size);
    return;
  }
  size_t differ = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    differ += found[i] != expected[i] ? 1 : 0;
    ASSERT_TRUE(may_become(exact[i], found[i], step.op, 4e-3))
        << described(step, size) << ": byte " << i << " is " << int{found[i]} << ", expected " << int{expected[i]}
        << " of " << exact[i];
  }
  EXPECT_LE(differ, found.size() / 20 + 2) << described(step, size);
}

const Size kOpPictures[] = {{37, 29, 3}, {40, 32, 1}, {17, 48, 3}, {1, 1, 3}, {5, 1, 3}, {1, 7, 1}, {2, 3, 3}};

const std::vector<PictureStep> kSteps{
    {PictureOp::brightness, 0.3125F},
    {PictureOp::brightness, 1.875F},
    {PictureOp::contrast, 0.125F},
    {PictureOp::contrast, 1.875F},
    {PictureOp::saturation, 0.125F},
    {PictureOp::saturation, 1.875F},
    {PictureOp::sharpness, 0.125F},
    {PictureOp::sharpness, 1.875F},
    {PictureOp::invert},
    {PictureOp::solarize, 128},
    {PictureOp::solarize, 0},
    {PictureOp::solarize, 256},
    {PictureOp::solarize_add, 60, 128},
    {PictureOp::posterize, 3},
    {PictureOp::posterize, 0},
    {PictureOp::posterize, 8},
    {PictureOp::auto_contrast},
    {PictureOp::equalize},
    {PictureOp::blur, 0.3F, 1},
    {PictureOp::blur, 2, 6},
    {PictureOp::noise, 25},
    {PictureOp::jpeg, 90},
    {PictureOp::jpeg, 30},
    {PictureOp::shear_x, 0.3125F},
    {PictureOp::shear_y, -0.3125F},
    {PictureOp::translate, 2.25F, -3},
    {PictureOp::translate, 1000, 0},
    {PictureOp::rotate, 0.8F, 0.6F},
    {PictureOp::perspective},
    {PictureOp::elastic, 6, 5},
};

TEST_P(PictureOpsTest, EachOperation) {
  for (const Size size : kOpPictures)
    for (const PictureStep& step : kSteps) {
      const std::vector<uint8_t> picture = golden_picture(size.width, size.height, size.channels);
      const PictureProgramme programme = programme_of({step});
      expect_step(programme, picture, after(programme, picture, size), size, kFill);
    }
}

// What a step begins with is what the steps before it left, in whichever buffer.
TEST_P(PictureOpsTest, StepsFollowEachOther) {
  const Size size{37, 29, 3};
  const std::vector<uint8_t> first = golden_picture(size.width, size.height, size.channels);
  for (size_t begin = 0; begin + 6 < kSteps.size(); begin += 3) {
    std::vector<PictureStep> steps;
    std::vector<uint8_t> picture = first;
    for (size_t k = 0; k < 6; ++k) {
      steps.push_back(kSteps[begin + (k * 5) % 7]);
      const std::vector<uint8_t> found = after(programme_of(steps), first, size);
      expect_step(programme_of({steps.back()}), picture, found, size, kFill);
      picture = found;
    }
  }
}

TEST_P(PictureOpsTest, ChainsAreMixed) {
  const Size size{37, 29, 3};
  const std::vector<uint8_t> picture = golden_picture(size.width, size.height, size.channels);
  const PictureProgramme programme = programme_of({{PictureOp::sharpness, 1.5F},
                                                   {PictureOp::keep},
                                                   {PictureOp::invert},
                                                   {PictureOp::posterize, 4},
                                                   {PictureOp::end_chain, 0.25F, 0},
                                                   {PictureOp::translate, 3, 4},
                                                   {PictureOp::end_chain, 0.2F, 1},
                                                   {PictureOp::equalize},
                                                   {PictureOp::end_chain, 0.15F, 1},
                                                   {PictureOp::mix, 0.4F}});
  expect_step(programme, picture, after(programme, picture, size), size, kFill);
}

TEST_P(PictureOpsTest, EachPictureHasItsOwnProgramme) {
  const Size size{8, 4, 3};
  const std::vector<uint8_t> picture = golden_picture(size.width, size.height, size.channels);
  const std::vector<PictureProgramme> programmes{programme_of({{PictureOp::sharpness, 1.5F}}), programme_of({}),
                                                 programme_of({{PictureOp::invert}, {PictureOp::equalize}})};
  const std::vector<uint8_t> found = after(programmes, picture, size);
  const auto n = static_cast<std::ptrdiff_t>(picture.size());
  for (std::ptrdiff_t i = 0; i < 3; ++i)
    EXPECT_EQ(std::vector<uint8_t>(found.begin() + i * n, found.begin() + (i + 1) * n),
              after(programmes[static_cast<size_t>(i)], picture, size))
        << i;
  EXPECT_TRUE(std::equal(picture.begin(), picture.end(), found.begin() + n)) << "no programme leaves the picture";
}

// Threads of a block in another order, which a missing barrier would show.
TEST_P(PictureOpsTest, PhasesBackwards) {
  if (GetParam().is_cuda()) GTEST_SKIP() << "only the CPU executor has an order of threads";
  const Size size{37, 29, 3};
  const std::vector<uint8_t> picture = golden_picture(size.width, size.height, size.channels);
  for (const PictureStep& step : kSteps) {
    const std::vector<uint8_t> forwards = after(programme_of({step}), picture, size);
    phases_backwards = true;
    const std::vector<uint8_t> backwards = after(programme_of({step}), picture, size);
    phases_backwards = false;
    EXPECT_EQ(forwards, backwards) << described(step, size);
  }
}

INSTANTIATE_TEST_SUITE_P(Op, PictureOpsTest, testing::Values(Device::cpu(), Device::cuda()),
                         [](const auto& each) { return each.param.is_cuda() ? "cuda" : "cpu"; });

}  // namespace
}  // namespace convolt::test
