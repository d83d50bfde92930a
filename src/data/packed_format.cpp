#include "data/packed_format.h"

#include <fcntl.h>
#include <fmt/format.h>

#define XXH_INLINE_ALL  // compiled here, with the vectors of this build, and nothing to link
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "convolt/error.h"
#include "data/picture_header.h"
#include "io/descriptor.h"

namespace convolt {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr size_t kHeaderHashed = offsetof(PackedHeader, hash);

void put(std::vector<uint8_t>& to, std::span<const uint8_t> bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

void put_text(std::vector<uint8_t>& to, std::string_view text) {
  put(to, bytes_of(static_cast<uint32_t>(text.size())));
  to.insert(to.end(), text.begin(), text.end());
}

// Takes pieces from the front of a part of the file.
class Reader {
public:
  Reader(std::span<const uint8_t> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  std::span<const uint8_t> take(uint64_t count) {
    if (count > bytes_.size())
      throw FormatError(fmt::format("{}: is damaged: a list of its index goes on for {} bytes of which {} are there",
                                    path_, count, bytes_.size()));
    const auto taken = bytes_.first(static_cast<size_t>(count));
    bytes_ = bytes_.subspan(static_cast<size_t>(count));
    return taken;
  }
  uint32_t number() {
    uint32_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() {
    const auto bytes = take(number());
    return {bytes.begin(), bytes.end()};
  }
  std::vector<std::string> texts() {
    std::vector<std::string> list;
    for (uint32_t left = number(); left > 0; --left) list.push_back(text());
    return list;
  }
  TextPairs pairs() {
    TextPairs list;
    for (uint32_t left = number(); left > 0; --left) {
      std::string key = text();
      list.emplace_back(std::move(key), text());
    }
    return list;
  }
  std::span<const uint8_t> rest() const { return bytes_; }

private:
  std::span<const uint8_t> bytes_;
  const std::string& path_;
};

// What is wrong with an entry; empty when nothing is.
std::string fault_of(const PackedEntry& e, uint64_t samples_end, size_t classes, size_t names) {
  if (e.offset % kPackedAlignment != 0 || e.offset < sizeof(PackedHeader) || e.offset > samples_end ||
      e.bytes > samples_end - e.offset)
    return fmt::format("bytes {} to {} + {}, expected within {} to {}", e.offset, e.offset, e.bytes,
                       sizeof(PackedHeader), samples_end);
  if (e.name > names || e.name_bytes > names - e.name)
    return fmt::format("a name at {} + {} of {} bytes", e.name, e.name_bytes, names);
  if (e.label >= classes) return fmt::format("label {} of {} classes", e.label, classes);
  if (!(e.weight > 0) || !std::isfinite(e.weight)) return fmt::format("the weight {}", e.weight);
  if (e.split > 1 || e.kind > PackedKind::pixels) return "an unknown split or kind";
  if (e.height > kMaxPictureSide || e.width > kMaxPictureSide || (e.height == 0) != (e.width == 0))
    return fmt::format("{} x {} pixels", e.width, e.height);
  if (e.kind == PackedKind::pixels &&
      (e.height == 0 || (e.channels != 1 && e.channels != 3) || uint64_t{e.height} * e.width * e.channels != e.bytes))
    return fmt::format("{} bytes of {} x {} x {} pixels", e.bytes, e.height, e.width, e.channels);
  return {};
}

}  // namespace

uint64_t packed_hash(std::span<const uint8_t> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

void seal(PackedHeader& header) { header.hash = packed_hash(bytes_of(header).first(kHeaderHashed)); }

std::vector<uint8_t> write_packed_index(std::span<const PackedEntry> entries, const PackedTexts& texts,
                                        std::string_view names) {
  std::vector<uint8_t> index;
  for (const PackedEntry& e : entries) put(index, bytes_of(e));
  put(index, bytes_of(static_cast<uint32_t>(texts.classes.size())));
  for (const std::string& name : texts.classes) put_text(index, name);
  for (const TextPairs& pairs : {texts.metadata, texts.left_out}) {
    put(index, bytes_of(static_cast<uint32_t>(pairs.size())));
    for (const auto& [key, value] : pairs) {
      put_text(index, key);
      put_text(index, value);
    }
  }
  index.insert(index.end(), names.begin(), names.end());
  return index;
}

PackedFile::PackedFile(std::span<const uint8_t> file, const std::string& path) : file_(file) {
  check_header(path);
  const auto index = file.subspan(static_cast<size_t>(header_.index_offset));
  index_.assign(index.begin(), index.end());
  if (packed_hash(index_) != header_.index_hash)
    throw FormatError(path +
                      ": is damaged: its index does not have the checksum that its header says; copy or pack it "
                      "again");
  if (header_.samples > index_.size() / sizeof(PackedEntry))
    throw FormatError(
        fmt::format("{}: is damaged: {} samples in an index of {} bytes", path, header_.samples, index_.size()));
  Reader reader(index_, path);
  entries_ = reader.take(header_.samples * sizeof(PackedEntry));
  texts_.classes = reader.texts();
  texts_.metadata = reader.pairs();
  texts_.left_out = reader.pairs();
  names_ = reader.rest();
  check_entries(path);
}

void PackedFile::check_header(const std::string& path) {
  if (file_.size() < sizeof header_)
    throw FormatError(fmt::format("{}: has {} bytes, expected a packed set, of at least {}; is it cut short?", path,
                                  file_.size(), sizeof header_));
  std::memcpy(&header_, file_.data(), sizeof header_);
  if (header_.magic != kPackedMagic)
    throw FormatError(path + ": does not begin as a packed set does; is it another format, or changed as a text?");
  if (header_.hash != packed_hash(file_.first(kHeaderHashed)))
    throw FormatError(path + ": is damaged: its header does not have the checksum that it says; copy or pack it again");
  if (header_.version != kPackedVersion)
    throw FormatError(fmt::format("{}: is of version {} of the format, expected {}; pack it again with this program",
                                  path, header_.version, kPackedVersion));
  if (header_.index_offset > file_.size() || header_.index_bytes != file_.size() - header_.index_offset)
    throw FormatError(fmt::format("{}: has {} bytes, expected {} + {}; is it cut short? copy or pack it again", path,
                                  file_.size(), header_.index_offset, header_.index_bytes));
  if (header_.shards == 0 || header_.shard >= header_.shards || header_.index_offset < sizeof header_)
    throw FormatError(fmt::format("{}: is damaged: shard {} of {}, index at {}", path, header_.shard, header_.shards,
                                  header_.index_offset));
}

void PackedFile::check_entries(const std::string& path) {
  // No file is called so, and messages would end there.
  if (std::find(names_.begin(), names_.end(), uint8_t{0}) != names_.end())
    throw FormatError(path + ": is damaged: a name has a zero byte");
  for (int64_t i = 0; i < size(); ++i) {
    const PackedEntry e = entry(i);
    std::string fault = fault_of(e, header_.index_offset, texts_.classes.size(), names_.size());
    if (e.split == 0 && training_size_ < i) fault = "split 0 (training) behind one of validation";
    if (!fault.empty()) throw FormatError(fmt::format("{}: is damaged: sample {} has {}", path, i, fault));
    training_size_ += e.split == 0 ? 1 : 0;
  }
}

PackedEntry PackedFile::entry(int64_t i) const {
  PackedEntry e;
  std::memcpy(&e, entries_.data() + static_cast<size_t>(i) * sizeof e, sizeof e);
  return e;
}

std::string_view PackedFile::name(const PackedEntry& e) const {
  return {reinterpret_cast<const char*>(names_.data()) + e.name, e.name_bytes};
}

std::string shard_path(const std::string& path, uint32_t shard, uint32_t shards) {
  if (shards == 1) return path;
  return fmt::format("{}-{:05}-of-{:05}{}", path.substr(0, path.size() - kPackedEnding.size()), shard, shards,
                     kPackedEnding);
}

bool begins_as_packed(const std::string& path) {
  Descriptor file(path, O_RDONLY | O_NONBLOCK);
  std::array<char, kPackedMagic.size()> begin{};
  return file.valid() &&
         file.read_up_to(std::as_writable_bytes(std::span(begin))) == static_cast<std::ptrdiff_t>(begin.size()) &&
         begin == kPackedMagic;
}

}  // namespace convolt
