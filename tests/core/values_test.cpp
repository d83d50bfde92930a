// Shapes, element types, device names and the random numbers.
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "convolt/context.h"
#include "convolt/shape.h"
#include "convolt/tensor.h"
#include "core/philox.h"

namespace convolt::test {
namespace {

TEST(ShapeTest, ExtentsFromBothEnds) {
  Shape s{2, 3, 5, 7};
  EXPECT_EQ(s.rank(), 4);
  EXPECT_EQ(s[0], 2);
  EXPECT_EQ(s[-1], 7);
  EXPECT_EQ(s[-4], 2);
  EXPECT_EQ(s.elements(), 210);
  EXPECT_EQ(s.to_string(), "[2, 3, 5, 7]");
  s.set(-1, 1);
  EXPECT_EQ(s, (Shape{2, 3, 5, 1}));
}

TEST(ShapeTest, OfNothing) {
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ(Shape{}.to_string(), "[]");
  EXPECT_EQ((Shape{4, 0, 2}).elements(), 0);
  EXPECT_NE((Shape{1}), (Shape{1, 1}));
  EXPECT_NE(Shape{}, (Shape{0}));
}

TEST(ShapeTest, RefusesWhatIsNone) {
  EXPECT_THROW((Shape{2, -1}), ShapeError);
  EXPECT_THROW((Shape{1, 2, 3, 4, 5, 6}), ShapeError);
}

TEST(ShapeTest, LargeTensorsDoNotOverflow) { EXPECT_EQ((Shape{1 << 20, 1 << 20}).elements(), int64_t{1} << 40); }

TEST(DTypeTest, NamesAndSizes) {
  const std::array<std::pair<DType, int64_t>, 5> sizes{
      {{DType::f32, 4}, {DType::bf16, 2}, {DType::f16, 2}, {DType::u8, 1}, {DType::i32, 4}}};
  for (const auto& [dtype, size] : sizes) {
    EXPECT_EQ(size_of(dtype), size);
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
  }
  EXPECT_EQ((Tensor{DType::bf16, {3, 5}, nullptr}).bytes(), 30);
  try {
    dtype_from_name("float");
    FAIL() << "expected an error";
  } catch (const UsageError& e) {
    EXPECT_STREQ(e.what(), "unknown element type 'float': expected f32, bf16, f16, u8 or i32");
  }
}

TEST(DeviceTest, NamesOfDevices) {
  EXPECT_EQ(Device::parse("cpu"), Device::cpu());
  EXPECT_EQ(Device::parse("cuda"), Device::cuda(0));
  EXPECT_EQ(Device::parse("cuda:0"), Device::cuda(0));
  EXPECT_EQ(Device::parse("cuda:13"), Device::cuda(13));
  for (const Device d : {Device::cpu(), Device::cuda(0), Device::cuda(3)}) EXPECT_EQ(Device::parse(d.to_string()), d);
  for (const char* bad :
       {"", "CPU", "cpu:0", "gpu", "cuda:", "cuda:-1", "cuda:1x", "cuda: 1", "cuda:99999999999", "cuda0"})
    EXPECT_THROW(Device::parse(bad), UsageError) << bad;
  try {
    Device::parse("gpu");
  } catch (const UsageError& e) {
    EXPECT_STREQ(e.what(), "unknown device 'gpu': expected cpu, cuda or cuda:N");
  }
}

// Known answers of Random123 (kat_vectors, philox 4x32 10).
TEST(PhiloxTest, KnownAnswers) {
  const auto expect = [](uint64_t key, uint64_t low, uint64_t high, std::array<uint32_t, 4> expected) {
    const Philox4 found = philox(key, low, high);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(found.v[i], expected[i]) << i;
  };
  expect(0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(PhiloxTest, UniformIsInTheHalfOpenInterval) {
  EXPECT_EQ(uniform(0), 0);
  EXPECT_EQ(uniform(255), 0);
  EXPECT_EQ(uniform(256), 0x1p-24F);
  EXPECT_EQ(uniform(0x80000000), 0.5F);
  EXPECT_LT(uniform(0xffffffff), 1);
}

// A file format: these never change.
TEST(PhiloxTest, CountersOfUsesEpochsAndSamplesDiffer) {
  std::set<std::array<uint32_t, 4>> seen;
  int n = 0;
  for (const uint64_t seed : {0, 1})
    for (const RandomUse use : {RandomUse::shuffle, RandomUse::replacement, RandomUse::augment, RandomUse::erase_noise,
                                RandomUse::initialise, RandomUse::dropout, RandomUse::synth})
      for (const uint32_t epoch : {0, 1, 7})
        for (const uint64_t sample : {0, 1, 1000000})
          for (const uint32_t index : {0, 1}) {
            const Philox4 r = random4(seed, use, epoch, sample, index);
            seen.insert({r.v[0], r.v[1], r.v[2], r.v[3]});
            ++n;
          }
  EXPECT_EQ(seen.size(), static_cast<size_t>(n));
  const Philox4 same = philox(5, uint64_t{2} << 32 | 3, uint64_t{6} << 56 ^ 4),
                r = random4(5, RandomUse::dropout, 2, 4, 3);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(r.v[i], same.v[i]);
}

}  // namespace
}  // namespace convolt::test
