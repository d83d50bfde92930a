// The bytes of a packed set: docs/packed-format.md says what each is for. Little-endian, as every machine that Convolt
// runs on.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace convolt {

constexpr std::array<char, 8> kPackedMagic{'\x89', 'C', 'V', 'T', '\r', '\n', '\x1a', '\n'};
constexpr std::string_view kPackedEnding = ".cvt";
constexpr uint32_t kPackedVersion = 1;
// Of samples and of the index: a cache line, so that pixels are copied by whole vectors. Pages or the slots' 256 bytes
// would only leave larger gaps: nothing is read into a slot without passing through registers.
constexpr int64_t kPackedAlignment = 64;

// XXH3, 64 bits (Y. Collet, https://xxhash.com): quicker than memory, which a CRC is not.
uint64_t packed_hash(std::span<const uint8_t> bytes);

struct PackedHeader {
  std::array<char, 8> magic = kPackedMagic;
  uint32_t version = kPackedVersion;
  uint32_t shard = 0, shards = 1;
  uint32_t reserved = 0;
  uint64_t samples = 0;  // of this shard
  uint64_t index_offset = 0, index_bytes = 0, index_hash = 0;
  uint64_t set_id = 0;                // the same in all shards of a set
  std::array<uint64_t, 7> more = {};  // zero
  uint64_t hash = 0;                  // of all before
};
static_assert(sizeof(PackedHeader) == 128 && std::is_trivially_copyable_v<PackedHeader>);

enum class PackedKind : uint8_t { file, pixels };

struct PackedEntry {
  uint64_t offset = 0, bytes = 0;  // in the file
  uint64_t hash = 0;               // of the sample's bytes
  uint64_t name = 0;               // where its name begins among the names
  uint32_t name_bytes = 0;
  uint32_t label = 0;
  uint32_t height = 0, width = 0;      // upright; 0 for a file that is no picture
  uint8_t split = 0;                   // 0 training, 1 validation
  PackedKind kind = PackedKind::file;  // a picture file, or u8 [height, width, channels]
  uint8_t channels = 0;                // of pixels: 1 or 3
  uint8_t reserved = 0;
  float weight = 1;  // Dataset::weight()
};
static_assert(sizeof(PackedEntry) == 56 && std::is_trivially_copyable_v<PackedEntry>);

// What stands in the index behind the entries.
using TextPairs = std::vector<std::pair<std::string, std::string>>;
struct PackedTexts {
  std::vector<std::string> classes;
  TextPairs metadata;  // what was packed, and how
  TextPairs left_out;  // pictures that could not be packed, each with the reason
};

template <class T>
std::span<const uint8_t> bytes_of(const T& object) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const uint8_t*>(&object), sizeof object};
}

// Sets the header's hash.
void seal(PackedHeader& header);

// The bytes of the index.
std::vector<uint8_t> write_packed_index(std::span<const PackedEntry> entries, const PackedTexts& texts,
                                        std::string_view names);

// One file, all of it in memory, where it stays. Nothing in it is trusted: after the constructor every entry lies
// inside the file and describes itself rightly; only the samples' own bytes are not looked at. Header and index are
// copies: of `file`, which may be mapped and become shorter, only samples are asked for afterwards. Move-only.
class PackedFile {
public:
  // Throws FormatError, which begins with `path`.
  PackedFile(std::span<const uint8_t> file, const std::string& path);
  PackedFile(PackedFile&&) = default;
  PackedFile& operator=(PackedFile&&) = default;

  const PackedHeader& header() const { return header_; }
  const PackedTexts& texts() const { return texts_; }
  int64_t size() const { return static_cast<int64_t>(header_.samples); }
  // Entries of training come before those of validation.
  int64_t training_size() const { return training_size_; }
  PackedEntry entry(int64_t i) const;
  std::string_view name(const PackedEntry& entry) const;
  std::span<const uint8_t> sample(const PackedEntry& entry) const {
    return file_.subspan(static_cast<size_t>(entry.offset), static_cast<size_t>(entry.bytes));
  }
  int64_t bytes() const { return static_cast<int64_t>(file_.size()); }

private:
  void check_header(const std::string& path);
  void check_entries(const std::string& path);

  std::span<const uint8_t> file_;
  std::vector<uint8_t> index_;
  std::span<const uint8_t> entries_, names_;  // of index_
  PackedHeader header_;
  PackedTexts texts_;
  int64_t training_size_ = 0;
};

// "set-00001-of-00004.cvt" of "set.cvt", which a set of one shard is called itself.
std::string shard_path(const std::string& path, uint32_t shard, uint32_t shards);

// Whether the file begins as a packed set does.
bool begins_as_packed(const std::string& path);

}  // namespace convolt
