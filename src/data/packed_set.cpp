// A packed set as a data set: mapped files, checked by the index, of which every sample is checked when it is read.
#include <fmt/format.h>

#include <algorithm>

#include "convolt/error.h"
#include "data/packed_format.h"
#include "data/sources.h"
#include "io/mapped_file.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

// What of one file belongs to the split.
struct Shard {
  MappedFile map;
  PackedFile file;
  int64_t begin = 0;  // its first entry of the split
  int64_t count = 0;  // entries of the split
  int64_t first = 0;  // index in the data set of the first

  Shard(std::string path, Split split) : map(std::move(path)), file(map.bytes(), map.path()) {
    const int64_t training = file.training_size();
    begin = split == Split::train ? 0 : training;
    count = split == Split::train ? training : file.size() - training;
  }
};

class PackedSet final : public Dataset {
public:
  PackedSet(std::string path, std::vector<Shard> shards, Split split)
      : prefix_(path.ends_with('/') ? std::move(path) : path + "/"), split_(split), shards_(std::move(shards)) {
    class_names_ = shards_.front().file.texts().classes;
    for (Shard& shard : shards_) {
      shard.first = size_;
      size_ += shard.count;
    }
    find_what_all_share();
  }

  int64_t size() const override { return size_; }
  int32_t label(int64_t i) const override { return static_cast<int32_t>(at(i).entry.label); }
  float weight(int64_t i) const override { return at(i).entry.weight; }
  std::string describe() const override { return "packed set"; }
  bool reads_parts() const override { return all_files_; }
  int channels() const override { return all_grey_ ? 1 : 3; }
  int fixed_height() const override { return height_; }
  int fixed_width() const override { return width_; }

  std::string name(int64_t i) const override {
    const Place place = at(i);
    return fmt::format("{}{}/{}/{}", prefix_, split_ == Split::train ? "train" : "val", class_names_[place.entry.label],
                       place.shard.file.name(place.entry));
  }

  std::optional<PictureExtent> extent(int64_t i) const override {
    const PackedEntry e = at(i).entry;
    const bool grey = e.kind == PackedKind::pixels && e.channels == 1;
    return PictureExtent{static_cast<int>(e.height), static_cast<int>(e.width), grey ? 1 : 3};
  }

  RawSample read(int64_t i) const override {
    const auto& [shard, e] = at(i);
    RawSample sample;
    sample.label = static_cast<int32_t>(e.label);
    // Files are copied, for they are decoded for a long time, in which the mapping may lose them; pixels go into the
    // slot at once.
    if (e.kind == PackedKind::file) {
      sample.bytes.resize(static_cast<size_t>(e.bytes));
      if (!shard.map.copy(shard.file.sample(e), sample.bytes)) refuse_lost(i);
    } else {
      if (!shard.map.whole()) refuse_lost(i);
      sample.kept = shard.file.sample(e);
    }
    if (packed_hash(sample.content()) != e.hash)
      throw DataError(name(i) +
                      ": is damaged: its bytes do not have the checksum of the index; copy or pack the set again");
    if (e.kind == PackedKind::pixels) {
      sample.height = static_cast<int>(e.height);
      sample.width = static_cast<int>(e.width);
      sample.channels = e.channels;
    }
    return sample;
  }

  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    const Place place = at(i);
    const auto bytes = place.shard.file.sample(place.entry);
    const auto from = bytes.subspan(std::min(bytes.size(), static_cast<size_t>(offset)));
    const size_t count = std::min(from.size(), into.size());
    if (!place.shard.map.copy(from.first(count), into)) refuse_lost(i);
    return count;
  }

  bool fetches_ahead() const override { return true; }
  void expect(std::span<const int64_t> samples) const noexcept override {
    for (const int64_t i : samples) {
      const Place place = at(i);
      place.shard.map.will_need(place.shard.file.sample(place.entry));
    }
  }

private:
  struct Place {
    const Shard& shard;
    PackedEntry entry;
  };

  Place at(int64_t i) const {
    const Shard& shard = *(std::upper_bound(shards_.begin(), shards_.end(), i,
                                            [](int64_t index, const Shard& s) { return index < s.first; }) -
                           1);
    return {shard, shard.file.entry(shard.begin + i - shard.first)};
  }

  [[noreturn]] void refuse_lost(int64_t i) const {
    throw DataError(name(i) + ": is no longer there; the file became shorter while it was read");
  }

  void find_what_all_share() {
    bool all_pixels = size_ > 0, one_size = true;
    const PackedEntry first = size_ > 0 ? at(0).entry : PackedEntry{};
    all_grey_ = true;
    for (const Shard& shard : shards_)
      for (int64_t i = 0; i < shard.count; ++i) {
        const PackedEntry e = shard.file.entry(shard.begin + i);
        all_pixels = all_pixels && e.kind == PackedKind::pixels;
        all_files_ = all_files_ && e.kind == PackedKind::file;
        all_grey_ = all_grey_ && e.kind == PackedKind::pixels && e.channels == 1;
        one_size = one_size && e.height == first.height && e.width == first.width && e.channels == first.channels;
      }
    if (!all_pixels || !one_size) return;
    height_ = static_cast<int>(first.height);
    width_ = static_cast<int>(first.width);
  }

  std::string prefix_;
  Split split_;
  std::vector<Shard> shards_;  // those without samples of the split too
  int64_t size_ = 0;
  bool all_files_ = true, all_grey_ = false;
  int height_ = 0, width_ = 0;
};

// "set.cvt" of "set-00001-of-00004.cvt"; throws where it is not called like that.
std::string without_shard(const std::string& path, const PackedHeader& header) {
  const std::string end = shard_path(std::string(kPackedEnding), header.shard, header.shards);
  if (!path.ends_with(end))
    throw DataError(
        fmt::format("{}: is shard {} of {}, expected a name that ends in {}; give it the name again that it "
                    "was packed with",
                    path, header.shard, header.shards, end));
  return path.substr(0, path.size() - end.size()) + std::string(kPackedEnding);
}

// A file of the set that the path names: itself, or the first in a folder.
std::string first_file(const fs::path& path) {
  if (!fs::is_directory(path)) return path.string();
  std::vector<std::string> found;
  for (const std::string& name : list_files(path))
    if (name.ends_with(kPackedEnding) &&
        (name.find("-of-") == std::string::npos || name.find("-00000-of-") != std::string::npos))
      found.push_back(name);
  if (found.size() != 1)
    throw DataError(fmt::format("{}: holds {} packed sets{}; name the file of one, or its first shard", path.string(),
                                found.size(), found.empty() ? " that are whole" : ""));
  return (path / found[0]).string();
}

void check_belongs(const Shard& shard, const Shard& first, uint32_t number) {
  const PackedHeader &h = shard.file.header(), &expected = first.file.header();
  if (h.set_id == expected.set_id && h.shards == expected.shards && h.shard == number &&
      shard.file.texts().classes == first.file.texts().classes)
    return;
  throw DataError(fmt::format("{}: is shard {} of {} of another set than {}; expected shard {} of {} of the same",
                              shard.map.path(), h.shard, h.shards, first.map.path(), number, expected.shards));
}

}  // namespace

std::unique_ptr<Dataset> open_packed(const fs::path& path, Split split) {
  const std::string found = first_file(path);
  std::vector<Shard> shards;
  shards.emplace_back(found, split);
  const PackedHeader header = shards[0].file.header();
  if (header.shards > 1) {
    const std::string set = without_shard(found, header);
    std::vector<Shard> all;
    for (uint32_t k = 0; k < header.shards; ++k) {
      all.emplace_back(shard_path(set, k, header.shards), split);
      check_belongs(all.back(), shards[0], k);
    }
    shards = std::move(all);
  }
  auto set = std::make_unique<PackedSet>(path.string(), std::move(shards), split);
  return set->size() == 0 ? nullptr : std::move(set);
}

}  // namespace convolt
