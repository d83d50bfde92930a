#include "data/examine.h"

#include <gmock/gmock.h>

#include "convolt/error.h"
#include "loader_fixture.h"

namespace convolt::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<Examined> look(const Dataset& data, int threads = 2) {
  return examine(data, {}, threads, [](int64_t) {});
}

TEST(Examine, SaysWhatEachSampleIsOrWhyItIsNone) {
  MemoryDataset data(40);
  data.spoil(3);
  data.cut(17);
  int64_t last = 0;
  const auto all = examine(data, {}, 3, [&](int64_t done) {
    EXPECT_GT(done, last);
    last = done;
  });
  EXPECT_EQ(last, 40);
  ASSERT_EQ(all.size(), 40U);
  for (int64_t i = 0; i < 40; ++i) {
    const Examined& e = all[static_cast<size_t>(i)];
    EXPECT_EQ(e.label, i % 5) << i;
    EXPECT_EQ(e.bytes, static_cast<int64_t>(data.read(i).bytes.size())) << i;
    if (i == 3 || i == 17) continue;
    EXPECT_EQ(e.problem, "") << i;
    EXPECT_EQ(e.width, 1 + i % 7) << i;
    EXPECT_EQ(e.height, 1 + i % 5) << i;
    ASSERT_TRUE(e.header.has_value());
    EXPECT_EQ(e.header->format, PictureFormat::pnm);
  }
  EXPECT_THAT(all[3].problem, HasSubstr("not a picture"));
  EXPECT_FALSE(all[3].header.has_value());
  EXPECT_EQ(all[3].width, 0);
  EXPECT_NE(all[17].problem, "");
  EXPECT_EQ(all[17].width, 2);  // its header is good
}

TEST(Examine, WhatIsNoFaultOfASampleEndsIt) {
  MemoryDataset data(4);
  data.fail(2);
  EXPECT_THROW(look(data), std::runtime_error);
}

// Raw pixels of any size from three bytes of a number.
class Numbers final : public Dataset {
public:
  explicit Numbers(std::vector<int> numbers, int height = 1) : numbers_(std::move(numbers)), height_(height) {}
  int64_t size() const override { return static_cast<int64_t>(numbers_.size()); }
  RawSample read(int64_t i) const override {
    const auto n = static_cast<uint8_t>(numbers_[static_cast<size_t>(i)]);
    return {Bytes(6, n), height_, 6 / height_, 1, 0};
  }

private:
  std::vector<int> numbers_;
  int height_;
};

TEST(IdenticalSamples, AreFoundWithinAndAcrossSets) {
  const Numbers a({1, 2, 3, 2, 1, 1}), b({4, 3, 5}), turned({1, 2}, 2);
  const std::vector<const Dataset*> sets{&a, &b, &turned};
  const std::vector<std::vector<Examined>> examined{look(a), look(b), look(turned)};
  EXPECT_EQ(examined[0][0].header, std::nullopt);
  EXPECT_EQ(examined[2][0].height, 2);
  EXPECT_THAT(identical_samples(sets, examined),
              ElementsAre(ElementsAre(SampleOf{0, 0}, SampleOf{0, 4}, SampleOf{0, 5}),
                          ElementsAre(SampleOf{0, 1}, SampleOf{0, 3}), ElementsAre(SampleOf{0, 2}, SampleOf{1, 1})));
}

// Hashes only say where to look.
TEST(IdenticalSamples, AreComparedByteByByte) {
  const Numbers a({1, 2, 1, 2, 3});
  std::vector<std::vector<Examined>> examined{look(a)};
  for (Examined& e : examined[0]) e.hash = 7;
  EXPECT_THAT(identical_samples({&a}, examined),
              ElementsAre(ElementsAre(SampleOf{0, 0}, SampleOf{0, 2}), ElementsAre(SampleOf{0, 1}, SampleOf{0, 3})));
}

}  // namespace
}  // namespace convolt::test
