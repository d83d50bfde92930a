#include "io/tensorboard.h"

#include <gmock/gmock.h>

#include <cmath>

#include "convolt/error.h"
#include "io/event_file_reader.h"
#include "io/file_size_limit.h"

namespace convolt::test {
namespace {

std::vector<Fields> events_in(const TempFolder& folder, size_t file = 0) {
  return events_of(folder.path(folder.names().at(file)));
}

// RFC 3720, appendix B.4, and the check value of the CRC catalogue.
TEST(Tensorboard, Crc32c) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43U);
  EXPECT_EQ(crc32c(""), 0U);
  EXPECT_EQ(slow_crc32c("123456789"), 0xE3069283U);
}

TEST(Tensorboard, AFileBeginsWithItsVersionAndTheStepFromWhichItCounts) {
  const TempFolder folder;
  EventFile(folder.path(), 300);
  EXPECT_THAT(folder.names(), testing::ElementsAre(testing::StartsWith("events.out.tfevents.")));
  const auto events = events_in(folder);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(field(events[0], 3), "brain.Event:2");
  EXPECT_GT(number_at<double>(field(events[0], 1)), 1.7e9);
  EXPECT_EQ(number_at<int64_t>(field(events[1], 2)), 300);
  EXPECT_EQ(number_at<int64_t>(field(fields_of(field(events[1], 7)), 1)), 1);  // SessionLog.START
}

TEST(Tensorboard, ScalarsPicturesAndHistograms) {
  const TempFolder folder;
  EventFile file(folder.path(), 0);
  file.scalars(200, {{"train/loss", 0.25}, {"train/top1", -3}});
  file.picture(1, "pictures", {2, 3, 1, "PNG bytes"});
  const std::vector<float> weights{-1, 0, 0.5, NAN, 1};
  file.histogram(7, "weights/fc", histogram_of(weights));
  const auto events = events_in(folder);
  ASSERT_EQ(events.size(), 5U);
  const auto scalars = values_of(events[2]);
  ASSERT_EQ(scalars.size(), 2U);
  EXPECT_EQ(number_at<int64_t>(field(events[2], 2)), 200);
  EXPECT_EQ(field(scalars[0], 1), "train/loss");
  EXPECT_EQ(number_at<float>(field(scalars[0], 2)), 0.25F);
  EXPECT_EQ(field(scalars[1], 1), "train/top1");
  EXPECT_EQ(number_at<float>(field(scalars[1], 2)), -3);

  const Fields image = fields_of(field(values_of(events[3]).at(0), 4));
  EXPECT_EQ(number_at<int64_t>(field(image, 1)), 2);
  EXPECT_EQ(number_at<int64_t>(field(image, 2)), 3);
  EXPECT_EQ(number_at<int64_t>(field(image, 3)), 1);
  EXPECT_EQ(field(image, 4), "PNG bytes");

  const Fields histogram = fields_of(field(values_of(events[4]).at(0), 5));
  const double expected[] = {-1, 1, 4, 0.5, 2.25};
  for (int i = 0; i < 5; ++i) EXPECT_EQ(number_at<double>(field(histogram, i + 1)), expected[i]) << i;
  EXPECT_EQ(field(histogram, 6).size(), 64U * 8);
  EXPECT_EQ(field(histogram, 7).size(), 64U * 8);
}

TEST(Tensorboard, AHistogramCountsEachFiniteValueOnce) {
  const std::vector<float> values{0, 64, 63, 1, 1.5, INFINITY, 32};
  const Histogram h = histogram_of(values);
  ASSERT_EQ(h.limits.size(), 64U);
  EXPECT_EQ(h.limits[0], 1);
  EXPECT_EQ(h.limits[63], 64);
  std::map<size_t, double> filled;
  for (size_t i = 0; i < 64; ++i)
    if (h.counts[i] > 0) filled[i] = h.counts[i];
  EXPECT_EQ(filled, (std::map<size_t, double>{{0, 1}, {1, 2}, {32, 1}, {63, 2}}));
  EXPECT_EQ(histogram_of(std::vector<float>{2, 2}).counts[0], 2);
  EXPECT_EQ(histogram_of({}).count, 0);
}

TEST(Tensorboard, AnEventThatDoesNotFitIsTakenBackAndASecondFileComesAfterTheFirst) {
  const TempFolder folder;
  {
    EventFile file(folder.path(), 0);
    const FileSizeLimit limit(120);
    EXPECT_THROW(file.picture(1, "large", {1, 1, 3, std::string(200, 'x')}), Error);
  }
  EXPECT_EQ(events_in(folder).size(), 2U);
  EventFile second(folder.path(), 5);
  EXPECT_EQ(events_in(folder).size(), 2U);
  EXPECT_EQ(number_at<int64_t>(field(events_in(folder, 1)[1], 2)), 5);
  EXPECT_THROW(EventFile("/dev/null/folder", 0), Error);
}

}  // namespace
}  // namespace convolt::test
