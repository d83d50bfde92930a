// CIFAR-10 and CIFAR-100 binary records: the label's byte, in CIFAR-100 behind that of its superclass, then 32 x 32
// red, green and blue planes. A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
#include <algorithm>
#include <fstream>

#include "convolt/error.h"
#include "data/sources.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32, kPlane = kSide * kSide;

struct CifarForm {
  std::string_view name;
  int labels;  // bytes before the planes; the last is the label
  int classes;
  std::string_view class_names;  // file beside the records
  int record() const { return labels + 3 * kPlane; }
};
constexpr CifarForm kCifar10{"CIFAR-10", 1, 10, "batches.meta.txt"};
constexpr CifarForm kCifar100{"CIFAR-100", 2, 100, "fine_label_names.txt"};

class Cifar final : public Dataset {
public:
  Cifar(const CifarForm& form, const std::vector<fs::path>& paths) : form_(form) {
    for (const fs::path& path : paths) add_file(path);
    if (labels_.empty()) throw DataError(paths.front().string() + ": has no records");
    read_class_names(paths.front().parent_path() / form_.class_names);
  }

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  int32_t label(int64_t i) const override { return labels_[static_cast<size_t>(i)]; }
  std::string name(int64_t i) const override {
    const Batch& batch = batch_of(i);
    return batch.name + "[" + std::to_string(i - batch.first) + "]";
  }
  std::string describe() const override { return std::string(form_.name) + " records"; }
  int fixed_height() const override { return kSide; }
  int fixed_width() const override { return kSide; }

  RawSample read(int64_t i) const override {
    const Batch& batch = batch_of(i);
    std::vector<uint8_t> planes(3 * kPlane);
    if (batch.file.read((i - batch.first) * form_.record() + form_.labels, planes) != planes.size())
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
    const int record = form_.record();
    if (bytes % record != 0)
      throw FormatError(path.string() + ": has " + std::to_string(bytes) + " bytes, expected a multiple of " +
                        std::to_string(record) + " (" + describe() + "); is it another format, or cut short?");
    const int64_t first = size();
    std::vector<uint8_t> chunk(static_cast<size_t>(record) * 1024);
    for (int64_t at = 0; at < bytes;) {
      const size_t got = file.read(at, chunk) / static_cast<size_t>(record) * static_cast<size_t>(record);
      if (got == 0) throw DataError(path.string() + ": became shorter while it was read");
      for (size_t r = 0; r < got; r += static_cast<size_t>(record)) {
        const uint8_t label = chunk[r + static_cast<size_t>(form_.labels) - 1];
        if (label >= form_.classes)
          throw FormatError(path.string() + ": record " + std::to_string(size() - first) + " has label " +
                            std::to_string(label) + ", expected 0 to " + std::to_string(form_.classes - 1));
        labels_.push_back(label);
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
    if (class_names_.size() == static_cast<size_t>(form_.classes)) return;
    class_names_.clear();
    for (int c = 0; c < form_.classes; ++c) class_names_.push_back(std::to_string(c));
  }

  const CifarForm form_;
  std::vector<uint8_t> labels_;
  std::vector<Batch> batches_;
};

// One file says nothing of splits: it is a training set, and validation on it would only flatter.
std::unique_ptr<Dataset> open_one_file(const CifarForm& form, const fs::path& path, Split split) {
  return split == Split::train ? std::make_unique<Cifar>(form, std::vector<fs::path>{path}) : nullptr;
}

}  // namespace

std::unique_ptr<Dataset> open_cifar10(const fs::path& path, Split split) {
  if (!fs::is_directory(path)) return open_one_file(kCifar10, path, split);
  const char* prefix = split == Split::train ? "data_batch_" : "test_batch";
  std::vector<fs::path> paths;
  for (const std::string& name : list_files(path))
    if (name.starts_with(prefix) && name.ends_with(".bin")) paths.push_back(path / name);
  return paths.empty() ? nullptr : std::make_unique<Cifar>(kCifar10, paths);
}

std::unique_ptr<Dataset> open_cifar100(const fs::path& path, Split split) {
  if (!fs::is_directory(path)) return open_one_file(kCifar100, path, split);
  const fs::path file = path / (split == Split::train ? "train.bin" : "test.bin");
  return fs::exists(file) ? std::make_unique<Cifar>(kCifar100, std::vector<fs::path>{file}) : nullptr;
}

}  // namespace convolt
