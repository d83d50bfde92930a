// The files are read back by a small parser that shares nothing with the writer but the published format.
#include "io/tensorboard.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <map>

#include "convolt/error.h"
#include "io/file_size_limit.h"
#include "support/temp_folder.h"

namespace convolt::test {
namespace {

// Bit by bit, as RFC 3720 defines it.
uint32_t slow_crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char c : bytes)
    for (int bit = 0; bit < 8; ++bit) {
      const bool out = ((crc ^ static_cast<uint32_t>(static_cast<uint8_t>(c)) >> bit) & 1) != 0;
      crc = crc >> 1 ^ (out ? 0x82F63B78 : 0);
    }
  return crc ^ 0xFFFFFFFF;
}

template <class T>
T number_at(std::string_view bytes, size_t at = 0) {
  T value{};
  EXPECT_LE(at + sizeof value, bytes.size());
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::vector<std::string> records_of(const std::string& file) {
  const auto masked = [](std::string_view bytes) {
    const uint32_t crc = slow_crc32c(bytes);
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8;
  };
  std::vector<std::string> records;
  const std::string_view all(file);
  for (size_t at = 0; at < all.size();) {
    const auto length = number_at<uint64_t>(all, at);
    EXPECT_EQ(number_at<uint32_t>(all, at + 8), masked(all.substr(at, 8)));
    records.emplace_back(all.substr(at + 12, length));
    EXPECT_EQ(number_at<uint32_t>(all, at + 12 + length), masked(records.back()));
    at += 16 + length;
  }
  return records;
}

// Field number -> its values as bytes, in order; varints as 8 bytes.
using Fields = std::multimap<int, std::string>;
Fields fields_of(std::string_view message) {
  Fields fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(message.at(at++));
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint();
    std::string value;
    if ((key & 7) == 0) {
      const uint64_t v = varint();
      value.assign(reinterpret_cast<const char*>(&v), sizeof v);
    } else {
      const size_t length = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : varint();
      value = message.substr(at, length);
      at += length;
    }
    fields.emplace(static_cast<int>(key >> 3), value);
  }
  return fields;
}

std::string field(const Fields& fields, int number) {
  EXPECT_EQ(fields.count(number), 1U) << number;
  const auto found = fields.find(number);
  return found == fields.end() ? std::string(8, '\0') : found->second;
}

std::vector<Fields> events_of(const TempFolder& folder, size_t file = 0) {
  std::vector<Fields> events;
  for (const std::string& r : records_of(contents(folder.path(folder.names().at(file)))))
    events.push_back(fields_of(r));
  return events;
}

// The values of a summary.
std::vector<Fields> values_of(const Fields& event) {
  std::vector<Fields> values;
  for (const auto& [number, value] : fields_of(field(event, 5))) values.push_back(fields_of(value));
  return values;
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
  const auto events = events_of(folder);
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
  const auto events = events_of(folder);
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
  EXPECT_EQ(events_of(folder).size(), 2U);
  EventFile second(folder.path(), 5);
  EXPECT_EQ(events_of(folder).size(), 2U);
  EXPECT_EQ(number_at<int64_t>(field(events_of(folder, 1)[1], 2)), 5);
  EXPECT_THROW(EventFile("/dev/null/folder", 0), Error);
}

}  // namespace
}  // namespace convolt::test
