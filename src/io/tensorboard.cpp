#include "io/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "io/atomic_file.h"

namespace convolt {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
    table[i] = crc;
  }
  return table;
}();

template <class T>
std::string little_endian(T bits) {
  std::string bytes;
  for (size_t i = 0; i < sizeof bits; ++i) bytes += static_cast<char>(bits >> (8 * i) & 0xFF);
  return bytes;
}

// A checksum that may itself be part of checked data.
std::string masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return little_endian((crc >> 15 | crc << 17) + 0xA282EAD8U);
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// The wire format of protocol buffers: a key (field number and wire type), then the value. Numbers are those of
// event.proto and summary.proto.
class Message {
public:
  Message& integer(int field, int64_t value) { return put(field, 0, varint(static_cast<uint64_t>(value))); }
  Message& real(int field, double value) { return put(field, 1, little_endian(std::bit_cast<uint64_t>(value))); }
  Message& single(int field, float value) { return put(field, 5, little_endian(std::bit_cast<uint32_t>(value))); }
  Message& text(int field, std::string_view value) { return put(field, 2, varint(value.size()) + std::string(value)); }
  Message& reals(int field, const std::vector<double>& values) {
    std::string packed;
    for (const double v : values) packed += little_endian(std::bit_cast<uint64_t>(v));
    return text(field, packed);
  }
  const std::string& bytes() const { return bytes_; }

private:
  Message& put(int field, int wire_type, const std::string& value) {
    bytes_ += varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type)) + value;
    return *this;
  }
  std::string bytes_;
};

// Fields of Event, Summary and Summary.Value.
constexpr int kFileVersion = 3, kSummary = 5, kSessionLog = 7, kValue = 1, kTag = 1, kSimpleValue = 2, kImage = 4,
              kHistogram = 5;

std::string record(std::string_view data) {
  const std::string length = little_endian(static_cast<uint64_t>(data.size()));
  return length + masked_crc(length) + std::string(data) + masked_crc(data);
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::string new_path(const std::string& folder) {
  make_output_folder(folder);
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  const std::string name =
      fmt::format("{}/events.out.tfevents.{:010}.{}.{}", folder, static_cast<int64_t>(now()), host.data(), ::getpid());
  std::error_code error;
  int n = 0;  // of the files that this process began in this second
  while (std::filesystem::exists(fmt::format("{}.{}", name, n), error)) ++n;
  return fmt::format("{}.{}", name, n);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0U;
  for (const char c : bytes) crc = crc >> 8 ^ kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  return ~crc;
}

Histogram histogram_of(std::span<const float> values) {
  constexpr size_t kParts = 64;
  Histogram h;
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    const auto v = static_cast<double>(value);
    h.min = h.count == 0 ? v : std::min(h.min, v);
    h.max = h.count == 0 ? v : std::max(h.max, v);
    h.count += 1;
    h.sum += v;
    h.sum_of_squares += v * v;
  }
  const double width = (h.max - h.min) / kParts;
  for (size_t i = 1; i < kParts; ++i) h.limits.push_back(h.min + width * static_cast<double>(i));
  h.limits.push_back(h.max);
  h.counts.assign(kParts, 0);
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    const double place = width > 0 ? (static_cast<double>(value) - h.min) / width : 0;
    h.counts[std::min(static_cast<size_t>(place), kParts - 1)] += 1;
  }
  return h;
}

EventFile::EventFile(const std::string& folder, int64_t first_step) : file_(AppendFile::create(new_path(folder))) {
  constexpr int kStart = 1;
  write(first_step, kFileVersion, "brain.Event:2");
  write(first_step, kSessionLog, Message().integer(1, kStart).bytes());
}

void EventFile::write(int64_t step, int field, std::string_view message) {
  file_.append(record(Message().real(1, now()).integer(2, step).text(field, message).bytes()));
}

void EventFile::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  Message summary;
  for (const auto& [tag, value] : values)
    summary.text(kValue, Message().text(kTag, tag).single(kSimpleValue, static_cast<float>(value)).bytes());
  write(step, kSummary, summary.bytes());
}

void EventFile::picture(int64_t step, const std::string& tag, const EncodedPicture& p) {
  const Message image = Message().integer(1, p.height).integer(2, p.width).integer(3, p.channels).text(4, p.png);
  write(step, kSummary, Message().text(kValue, Message().text(kTag, tag).text(kImage, image.bytes()).bytes()).bytes());
}

void EventFile::histogram(int64_t step, const std::string& tag, const Histogram& h) {
  const Message proto = Message()
                            .real(1, h.min)
                            .real(2, h.max)
                            .real(3, h.count)
                            .real(4, h.sum)
                            .real(5, h.sum_of_squares)
                            .reals(6, h.limits)
                            .reals(7, h.counts);
  write(step, kSummary,
        Message().text(kValue, Message().text(kTag, tag).text(kHistogram, proto.bytes()).bytes()).bytes());
}

}  // namespace convolt
