// Arrays of NumPy: a folder of .npy files, or one .npz, with pictures and labels under the names that published sets
// use.
#include <algorithm>
#include <array>
#include <cstring>

#include "convolt/error.h"
#include "data/archive.h"
#include "data/sources.h"
#include "io/npy.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

using Bytes = std::vector<uint8_t>;

// One array, in place in its file or unpacked in memory.
class Array {
public:
  explicit Array(const fs::path& path) : name_(path.string()), file_(std::make_unique<InputFile>(path)) {
    Bytes begin(static_cast<size_t>(std::min<int64_t>(file_->bytes(), 1 << 17)));
    begin.resize(file_->read(0, begin));
    header_ = read_npy_header(begin, name_);
    check(file_->bytes());
  }
  Array(std::string name, Bytes bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {
    header_ = read_npy_header(bytes_, name_);
    check(static_cast<int64_t>(bytes_.size()));
  }

  const std::string& name() const { return name_; }
  const std::vector<int64_t>& shape() const { return header_.shape; }
  const std::string& type() const { return header_.type; }
  // Of one element.
  int64_t size() const { return header_.type.back() - '0'; }
  int64_t elements() const {
    int64_t n = 1;
    for (const int64_t extent : header_.shape) n *= extent;
    return n;
  }
  // Elements [first, first + into.size() / size()).
  void read(int64_t first, std::span<uint8_t> into) const {
    const int64_t at = header_.data + first * size();
    if (!file_) {
      std::memcpy(into.data(), bytes_.data() + at, into.size());
    } else if (file_->read(at, into) != into.size()) {
      throw DataError(name_ + ": became shorter while it was read");
    }
  }

private:
  void check(int64_t bytes) const {
    if (header_.fortran_order)
      throw FormatError(name_ + ": is in Fortran's order; save numpy.ascontiguousarray() of it");
    const std::string& t = header_.type;
    const bool known = t.size() == 3 && (t[0] == '<' || t[0] == '|') && (t[1] == 'u' || t[1] == 'i') &&
                       (t[2] == '1' || t[2] == '2' || t[2] == '4' || t[2] == '8');
    if (!known) throw FormatError(name_ + ": has elements of type '" + t + "', expected integers, pictures of uint8");
    if (elements() > (bytes - header_.data) / size())
      throw FormatError(name_ + ": ends before its " + std::to_string(elements()) + " elements do; is it complete?");
  }

  std::string name_;
  std::unique_ptr<InputFile> file_;
  Bytes bytes_;
  NpyHeader header_;
};

// Where arrays are found by name.
class Arrays {
public:
  virtual ~Arrays() = default;
  // The first of the names that is there, null for none.
  virtual std::unique_ptr<Array> find(std::span<const std::string_view> names) const = 0;
};

class NpyFolder final : public Arrays {
public:
  explicit NpyFolder(fs::path folder) : folder_(std::move(folder)) {}
  std::unique_ptr<Array> find(std::span<const std::string_view> names) const override {
    for (const std::string_view name : names)
      if (const fs::path path = folder_ / (std::string(name) + ".npy"); fs::exists(path))
        return std::make_unique<Array>(path);
    return nullptr;
  }

private:
  fs::path folder_;
};

class Npz final : public Arrays {
public:
  explicit Npz(const fs::path& path) : archive_(kZip.open(path, {})) {}
  std::unique_ptr<Array> find(std::span<const std::string_view> names) const override {
    constexpr int64_t kMostBytes = int64_t{1} << 34;
    for (const std::string_view name : names)
      for (const ArchiveMember& m : archive_->members()) {
        if (m.name != std::string(name) + ".npy") continue;
        if (m.bytes > kMostBytes)
          throw DataError(
              archive_->name_of(m) + ": has " + std::to_string(m.bytes) +
              " bytes, more than is kept in memory; save the arrays as .npy files, which are read in place");
        return std::make_unique<Array>(archive_->name_of(m), archive_->read(m));
      }
    return nullptr;
  }

private:
  std::unique_ptr<Archive> archive_;
};

using Names = std::array<std::string_view, 5>;
struct Part {
  Names pictures, labels;
};
constexpr Part kTraining{{"train_images", "x_train", "X_train", "images", "x"},
                         {"train_labels", "y_train", "Y_train", "labels", "y"}};
// In this order: where there are both, test pictures are left alone.
constexpr Part kValidations[] = {{{"val_images", "x_val", "X_val", "valid_images", "x_valid"},
                                  {"val_labels", "y_val", "Y_val", "valid_labels", "y_valid"}},
                                 {{"test_images", "x_test", "X_test", "t10k_images", "x_t10k"},
                                  {"test_labels", "y_test", "Y_test", "t10k_labels", "y_t10k"}}};

std::vector<int32_t> labels_of(const Array& a) {
  constexpr int64_t kMostClasses = 1 << 20;
  const bool column = a.shape().size() == 2 && a.shape()[1] == 1;
  if (a.shape().size() != 1 && !column) throw FormatError(a.name() + ": is no list of labels, one for each picture");
  Bytes bytes(static_cast<size_t>(a.elements() * a.size()));
  a.read(0, bytes);
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < a.elements(); ++i) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + i * a.size(), static_cast<size_t>(a.size()));
    const bool negative = a.type()[1] == 'i' && (value >> (8 * a.size() - 1) & 1) != 0;
    if (negative || value >= kMostClasses)
      throw FormatError(a.name() + ": label " + std::to_string(i) + " is no class from 0 to " +
                        std::to_string(kMostClasses - 1));
    labels.push_back(static_cast<int32_t>(value));
  }
  return labels;
}

struct Opened {
  std::unique_ptr<Array> pictures;
  std::vector<int32_t> labels;
};

// Nothing where the part has no pictures.
std::optional<Opened> open_part(const Arrays& arrays, const Part& part) {
  Opened o;
  o.pictures = arrays.find(part.pictures);
  if (!o.pictures) return std::nullopt;
  const Array& p = *o.pictures;
  const std::vector<int64_t>& shape = p.shape();
  const bool pictures = shape.size() == 3 || (shape.size() == 4 && (shape[3] == 1 || shape[3] == 3));
  constexpr int64_t kMostSide = 65535;
  if (!pictures || p.size() != 1 || p.type()[1] != 'u' || shape[1] < 1 || shape[2] < 1 || shape[1] > kMostSide ||
      shape[2] > kMostSide)
    throw FormatError(p.name() +
                      ": is no array of pictures; expected uint8 [N, height, width] or [N, height, width, 3]");
  const std::unique_ptr<Array> labels = arrays.find(part.labels);
  if (!labels)
    throw FormatError(p.name() + ": has no labels beside it; expected '" + std::string(part.labels[0]) + "'");
  o.labels = labels_of(*labels);
  if (static_cast<int64_t>(o.labels.size()) != shape[0])
    throw FormatError(labels->name() + ": has " + std::to_string(o.labels.size()) + " labels, expected " +
                      std::to_string(shape[0]) + " as in " + p.name());
  if (shape[0] == 0) throw DataError(p.name() + ": has no pictures");
  return o;
}

std::optional<Opened> open_validation(const Arrays& arrays) {
  for (const Part& part : kValidations)
    if (auto found = open_part(arrays, part)) return found;
  return std::nullopt;
}

class NumpyArrays final : public Dataset {
public:
  NumpyArrays(Opened part, int32_t classes) : pictures_(std::move(part.pictures)), labels_(std::move(part.labels)) {
    for (int32_t c = 0; c < classes; ++c) class_names_.push_back(std::to_string(c));
  }
  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  int32_t label(int64_t i) const override { return labels_[static_cast<size_t>(i)]; }
  std::string name(int64_t i) const override {
    return fs::path(pictures_->name()).filename().string() + "[" + std::to_string(i) + "]";
  }
  std::string describe() const override { return "NumPy arrays"; }
  int channels() const override { return pictures_->shape().size() == 4 ? static_cast<int>(pictures_->shape()[3]) : 1; }
  int fixed_height() const override { return static_cast<int>(pictures_->shape()[1]); }
  int fixed_width() const override { return static_cast<int>(pictures_->shape()[2]); }
  RawSample read(int64_t i) const override {
    const int64_t bytes = int64_t{fixed_height()} * fixed_width() * channels();
    RawSample sample{Bytes(static_cast<size_t>(bytes)), fixed_height(), fixed_width(), channels()};
    pictures_->read(i * bytes, sample.bytes);
    return sample;
  }

private:
  std::unique_ptr<Array> pictures_;
  std::vector<int32_t> labels_;
};

}  // namespace

bool is_numpy_pictures(const std::string& file) {
  const auto among = [&](const Names& names) {
    return std::ranges::any_of(names, [&](std::string_view name) { return file == std::string(name) + ".npy"; });
  };
  return among(kTraining.pictures) ||
         std::ranges::any_of(kValidations, [&](const Part& part) { return among(part.pictures); });
}

std::unique_ptr<Dataset> open_numpy(const fs::path& path, Split split) {
  std::unique_ptr<Arrays> arrays;
  if (fs::is_directory(path))
    arrays = std::make_unique<NpyFolder>(path);
  else
    arrays = std::make_unique<Npz>(path);
  std::optional<Opened> training = open_part(*arrays, kTraining), validation = open_validation(*arrays);
  int32_t classes = 0;
  for (const auto* part : {&training, &validation})
    if (*part) classes = std::max(classes, 1 + *std::max_element((*part)->labels.begin(), (*part)->labels.end()));
  std::optional<Opened>& wanted = split == Split::train ? training : validation;
  return wanted ? std::make_unique<NumpyArrays>(std::move(*wanted), classes) : nullptr;
}

}  // namespace convolt
