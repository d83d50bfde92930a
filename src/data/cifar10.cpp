// CIFAR-10 binary records: a label byte, then 32 x 32 red, green and blue planes.
// A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
#include <algorithm>
#include <fstream>

#include "convolt/error.h"
#include "data/sources.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32, kPlane = kSide * kSide, kRecord = 1 + 3 * kPlane, kClasses = 10;

class Cifar10 final : public Dataset {
public:
  explicit Cifar10(const std::vector<fs::path>& paths) {
    for (const fs::path& path : paths) add_file(path);
    if (labels_.empty()) throw DataError(paths.front().string() + ": has no records");
    read_class_names(paths.front().parent_path() / "batches.meta.txt");
  }

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  int32_t label(int64_t i) const override { return labels_[static_cast<size_t>(i)]; }
  std::string name(int64_t i) const override {
    const Batch& batch = batch_of(i);
    return batch.name + "[" + std::to_string(i - batch.first) + "]";
  }
  std::string describe() const override { return "CIFAR-10 records"; }
  int fixed_height() const override { return kSide; }
  int fixed_width() const override { return kSide; }

  RawSample read(int64_t i) const override {
    const Batch& batch = batch_of(i);
    std::vector<uint8_t> planes(3 * kPlane);
    if (batch.file.read((i - batch.first) * kRecord + 1, planes) != planes.size())
      throw DataError(name(i) + ": is no longer there; the file became shorter while it was read");
    RawSample sample{std::vector<uint8_t>(planes.size()), kSide, kSide, 3};
    for (size_t p = 0; p < kPlane; ++p)
      for (size_t c = 0; c < 3; ++c) sample.bytes[3 * p + c] = planes[c * kPlane + p];
    return sample;
  }

private:
  struct Batch {
    std::string name;
    InputFile file;
    int64_t first;  // index of its first sample
  };

  const Batch& batch_of(int64_t i) const {
    return *(std::upper_bound(batches_.begin(), batches_.end(), i,
                              [](int64_t index, const Batch& batch) { return index < batch.first; }) -
             1);
  }

  void add_file(const fs::path& path) {
    InputFile file(path);
    const int64_t bytes = file.bytes();
    if (bytes % kRecord != 0)
      throw FormatError(path.string() + ": has " + std::to_string(bytes) +
                        " bytes, expected a multiple of 3073 (CIFAR-10 records); is it another format, or cut short?");
    const int64_t first = size();
    std::vector<uint8_t> chunk(static_cast<size_t>(kRecord) * 1024);
    for (int64_t at = 0; at < bytes;) {
      const size_t got = file.read(at, chunk) / kRecord * kRecord;
      if (got == 0) throw DataError(path.string() + ": became shorter while it was read");
      for (size_t r = 0; r < got; r += kRecord) {
        if (chunk[r] >= kClasses)
          throw FormatError(path.string() + ": record " + std::to_string(size() - first) + " has label " +
                            std::to_string(chunk[r]) + ", expected 0 to 9");
        labels_.push_back(chunk[r]);
      }
      at += static_cast<int64_t>(got);
    }
    if (size() > first) batches_.push_back({path.filename().string(), std::move(file), first});
  }

  // The names that come with the set, else the digits.
  void read_class_names(const fs::path& path) {
    std::ifstream text(path);
    for (std::string line; std::getline(text, line);) {
      while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
      if (!line.empty()) class_names_.push_back(line);
    }
    if (class_names_.size() == kClasses) return;
    class_names_.clear();
    for (int c = 0; c < kClasses; ++c) class_names_.push_back(std::to_string(c));
  }

  std::vector<uint8_t> labels_;
  std::vector<Batch> batches_;
};

}  // namespace

std::unique_ptr<Dataset> open_cifar10(const fs::path& path, Split split) {
  if (!fs::is_directory(path)) return std::make_unique<Cifar10>(std::vector<fs::path>{path});
  const char* prefix = split == Split::train ? "data_batch_" : "test_batch";
  std::vector<fs::path> paths;
  for (const std::string& name : list_files(path))
    if (name.starts_with(prefix) && name.ends_with(".bin")) paths.push_back(path / name);
  return paths.empty() ? nullptr : std::make_unique<Cifar10>(paths);
}

}  // namespace convolt
