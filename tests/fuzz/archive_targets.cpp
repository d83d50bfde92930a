#include "fuzz/archive_targets.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "data/archives.h"
#include "fuzz/demand.h"

namespace convolt::test {
namespace {

const TemporaryFolder& folder() {
  static const TemporaryFolder made;
  return made;
}

// A part is the part of the whole; a sample that cannot be read says so.
void read_files(const Dataset& set) {
  for (int64_t i = 0; i < std::min<int64_t>(set.size(), 4); ++i) {
    demand(set.label(i) >= 0 && static_cast<size_t>(set.label(i)) < set.class_names().size());
    try {
      const RawSample whole = set.read(i);
      std::array<uint8_t, 16> part{};
      const size_t got = set.read_part(i, 4, part), rest = whole.bytes.size() - std::min<size_t>(whole.bytes.size(), 4);
      demand(got == std::min(part.size(), rest));
      demand(std::equal(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(got),
                        whole.bytes.begin() + static_cast<std::ptrdiff_t>(whole.bytes.size() - rest)));
    } catch (const DataError&) {
    }
  }
}

void read_archive(const char* format, std::span<const uint8_t> bytes) {
  const std::string path = folder().write(format, {bytes.begin(), bytes.end()}).string();
  for (const Split split : {Split::train, Split::validation}) try {
      if (const auto set = open_dataset({.path = path, .format = format, .split = split})) read_files(*set);
    } catch (const DataError&) {
    }
}

// The two layouts; names that ustar can hold and one that it cannot.
std::vector<std::vector<Packed>> sets() {
  const std::string name(120, 'n');
  return {{{"train/b/1.ppm", numbered_ppm(3, 2, 1)},
           {.name = "train/a/link.ppm", .hardlink = "train/b/1.ppm"},
           {"./val/a/2.ppm", numbered_ppm(2, 2, 2)},
           {"val/b/" + name, Bytes(700, 3)}},
          {{"1.jpg", {1, 2, 3}}, {"1.cls", {'3'}}, {"2.png", {4}}, {"2.json", bytes_of("{\"a\": [1], \"label\": 1}")}}};
}

}  // namespace

void read_tar(std::span<const uint8_t> bytes) { read_archive("tar", bytes); }
void read_zip(std::span<const uint8_t> bytes) { read_archive("zip", bytes); }

std::vector<Bytes> tar_seeds() {
  std::vector<Bytes> seeds;
  for (const auto& set : sets())
    for (const char* format : {"pax", "gnutar"}) seeds.push_back(make_tar(set, format));
  for (const char* filter : {"gzip", "zstd"}) seeds.push_back(make_tar(sets()[1], "ustar", filter));
  return seeds;
}

std::vector<Bytes> zip_seeds() {
  std::vector<Bytes> seeds;
  for (auto set : sets())
    for (const int method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
      std::erase_if(set, [](const Packed& m) { return !m.hardlink.empty(); });
      write_zip(folder().path() / "seed", set, {.method = method});
      std::ifstream file(folder().path() / "seed", std::ios::binary);
      seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  return seeds;
}

}  // namespace convolt::test
