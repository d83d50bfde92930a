// Reads TensorBoard's event files by a small parser that shares nothing with the writer but the published format.
#pragma once

#include <cstring>
#include <map>

#include "support/temp_folder.h"

namespace convolt::test {

// Bit by bit, as RFC 3720 defines it.
inline uint32_t slow_crc32c(std::string_view bytes) {
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

inline std::vector<std::string> records_of(const std::string& file) {
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
inline Fields fields_of(std::string_view message) {
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

inline std::string field(const Fields& fields, int number) {
  EXPECT_EQ(fields.count(number), 1U) << number;
  const auto found = fields.find(number);
  return found == fields.end() ? std::string(8, '\0') : found->second;
}

// The events of a file, in order.
inline std::vector<Fields> events_of(const std::string& path) {
  std::vector<Fields> events;
  for (const std::string& r : records_of(contents(path))) events.push_back(fields_of(r));
  return events;
}

// The values of a summary.
inline std::vector<Fields> values_of(const Fields& event) {
  std::vector<Fields> values;
  for (const auto& [number, value] : fields_of(field(event, 5))) values.push_back(fields_of(value));
  return values;
}

}  // namespace convolt::test
