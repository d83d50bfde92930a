// IDX, the format of MNIST (Y. LeCun, http://yann.lecun.com/exdb/mnist): big-endian magic and extents, then bytes.
#include <zlib.h>

#include <algorithm>

#include "convolt/error.h"
#include "data/sources.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kImagesMagic = 0x00000803, kLabelsMagic = 0x00000801;
constexpr uint32_t kMaxSide = 65535;
constexpr int64_t kMaxBytes = int64_t{1} << 36;

// A plain or gzipped file, read from front to back.
class GzipFile {
public:
  explicit GzipFile(const fs::path& path) : path_(path.string()), file_(gzopen(path.c_str(), "rb")) {
    if (file_ == nullptr) throw DataError(path_ + ": cannot be opened");
  }
  ~GzipFile() { gzclose(file_); }
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  // Up to `count` bytes; fewer at the end of the file. Memory grows with what is found, not with what was declared.
  std::vector<uint8_t> read(int64_t count) {
    constexpr int64_t kChunk = 1 << 20;
    std::vector<uint8_t> bytes;
    while (static_cast<int64_t>(bytes.size()) < count) {
      const size_t have = bytes.size();
      const auto want = static_cast<size_t>(std::min(kChunk, count - static_cast<int64_t>(have)));
      bytes.resize(have + want);
      const int got = gzread(file_, bytes.data() + have, static_cast<unsigned>(want));
      bytes.resize(have + static_cast<size_t>(std::max(got, 0)));
      if (got < 0) throw_broken();
      if (got == 0) break;
    }
    return bytes;
  }

private:
  [[noreturn]] void throw_broken() {
    int code = 0;
    const std::string text = gzerror(file_, &code);
    throw FormatError(path_ + ": cannot be unpacked (" + text + "); is the download complete?");
  }

  std::string path_;
  gzFile file_;
};

// The extents and the bytes of one file; `rank` 1 (labels) or 3 (images).
struct IdxArray {
  std::vector<uint32_t> extents;
  std::vector<uint8_t> bytes;
};

IdxArray read_idx(const fs::path& path, uint32_t magic, size_t rank) {
  GzipFile file(path);
  const size_t header_bytes = 4 + 4 * rank;
  const std::vector<uint8_t> header = file.read(static_cast<int64_t>(header_bytes));
  if (header.size() < header_bytes)
    throw FormatError(path.string() + ": ends within its header; expected " + std::to_string(header_bytes) +
                      " bytes, found " + std::to_string(header.size()));
  const auto word = [&](size_t i) {
    return uint32_t{header[4 * i]} << 24 | uint32_t{header[4 * i + 1]} << 16 | uint32_t{header[4 * i + 2]} << 8 |
           header[4 * i + 3];
  };
  if (word(0) != magic)
    throw FormatError(path.string() + ": begins with " + std::to_string(word(0)) + ", expected the IDX magic " +
                      std::to_string(magic));
  IdxArray array;
  int64_t bytes = 1;
  for (size_t i = 0; i < rank; ++i) {
    const uint32_t extent = word(i + 1);
    if (extent == 0 || (i > 0 && extent > kMaxSide) || (bytes *= extent) > kMaxBytes)
      throw FormatError(path.string() + ": declares the extent " + std::to_string(extent) +
                        ", which is empty or too large");
    array.extents.push_back(extent);
  }
  array.bytes = file.read(bytes + 1);
  if (static_cast<int64_t>(array.bytes.size()) != bytes)
    throw FormatError(path.string() + ": expected " + std::to_string(bytes) + " bytes after its header, found " +
                      (static_cast<int64_t>(array.bytes.size()) > bytes ? "more" : std::to_string(array.bytes.size())));
  return array;
}

class Idx final : public Dataset {
public:
  Idx(const fs::path& images, const fs::path& labels, int classes)
      : name_(images.filename().string()),
        images_(read_idx(images, kImagesMagic, 3)),
        labels_(read_idx(labels, kLabelsMagic, 1)) {
    if (images_.extents[0] != labels_.extents[0])
      throw FormatError(labels.string() + ": has " + std::to_string(labels_.extents[0]) + " labels, expected " +
                        std::to_string(images_.extents[0]) + " as in " + images.string());
    const auto largest = std::max_element(labels_.bytes.begin(), labels_.bytes.end());
    if (classes > 0 && *largest >= classes)
      throw FormatError(labels.string() + ": label " + std::to_string(largest - labels_.bytes.begin()) + " is " +
                        std::to_string(*largest) + ", expected 0 to " + std::to_string(classes - 1) +
                        " as in the training split");
    for (int c = 0; c < (classes > 0 ? classes : *largest + 1); ++c) class_names_.push_back(std::to_string(c));
  }

  int64_t size() const override { return images_.extents[0]; }
  int32_t label(int64_t i) const override { return labels_.bytes[static_cast<size_t>(i)]; }
  std::string name(int64_t i) const override { return name_ + "[" + std::to_string(i) + "]"; }
  std::string describe() const override { return "IDX"; }
  int channels() const override { return 1; }
  int fixed_height() const override { return static_cast<int>(images_.extents[1]); }
  int fixed_width() const override { return static_cast<int>(images_.extents[2]); }

  RawSample read(int64_t i) const override {
    const int64_t bytes = int64_t{fixed_height()} * fixed_width();
    const auto first = images_.bytes.begin() + i * bytes;
    return {std::vector<uint8_t>(first, first + bytes), fixed_height(), fixed_width(), 1};
  }

private:
  std::string name_;
  IdxArray images_, labels_;
};

// The first file whose name begins so: the plain one before its .gz.
fs::path find(const fs::path& folder, const std::string& prefix) {
  for (const std::string& name : list_files(folder))
    if (name.starts_with(prefix)) return folder / name;
  return {};
}

fs::path find_labels(const fs::path& folder, const std::string& prefix) {
  const fs::path labels = find(folder, prefix + "-labels");
  if (labels.empty()) throw DataError(folder.string() + ": has " + prefix + "-images* but no " + prefix + "-labels*");
  return labels;
}

}  // namespace

std::unique_ptr<Dataset> open_idx(const fs::path& path, Split split) {
  if (!fs::is_directory(path))
    throw DataError(path.string() + ": is not a folder; expected one with train-images* and train-labels*");
  const std::string prefix = split == Split::train ? "train" : "t10k";
  const fs::path images = find(path, prefix + "-images");
  if (images.empty()) return nullptr;
  int classes = 0;
  if (split == Split::validation && !find(path, "train-images").empty()) {
    const IdxArray train = read_idx(find_labels(path, "train"), kLabelsMagic, 1);
    classes = *std::max_element(train.bytes.begin(), train.bytes.end()) + 1;
  }
  return std::make_unique<Idx>(images, find_labels(path, prefix), classes);
}

}  // namespace convolt
