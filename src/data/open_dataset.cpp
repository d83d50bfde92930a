#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "convolt/error.h"
#include "data/archive.h"
#include "data/index_cache.h"
#include "data/packed_format.h"
#include "data/picture_header.h"
#include "data/sources.h"

namespace convolt {

namespace fs = std::filesystem;

int32_t Dataset::label(int64_t i) const {
  const RawSample sample = read(i);
  if (!sample.label)
    throw UsageError(name(i) + ": has no label; a data set gives RawSample::label in read(), or defines label()");
  return *sample.label;
}

float Dataset::weight(int64_t) const { return 1; }

std::string Dataset::name(int64_t i) const { return "sample " + std::to_string(i); }

std::string Dataset::describe() const { return "data set"; }

size_t Dataset::read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const {
  const RawSample sample = read(i);
  const auto size = static_cast<int64_t>(sample.content().size());
  const auto count = static_cast<size_t>(std::clamp<int64_t>(size - offset, 0, static_cast<int64_t>(into.size())));
  if (count > 0) std::memcpy(into.data(), sample.content().data() + offset, count);
  return count;
}

std::optional<PictureExtent> Dataset::extent(int64_t /*i*/) const { return std::nullopt; }

void Dataset::expect(std::span<const int64_t> /*samples*/) const noexcept {}

namespace {

// Throws that `path` cannot be opened, read or listed, for errno's reason or that given. What the process or the system
// lacks is no fault of the file, which must not be left out for it as a broken one.
[[noreturn]] void refuse(const std::string& path, const std::string& what, int why = errno) {
  const std::string message = path + ": cannot be " + what + " (" + std::generic_category().message(why) + ")";
  if (why == EMFILE || why == ENFILE)
    throw Error(message + "; raise the limit on open files (ulimit -n), or use fewer threads (-j)");
  if (why == ENOMEM) throw OutOfMemoryError(message + "; use fewer threads (-j)");
  throw DataError(message);
}

}  // namespace

InputFile::InputFile(const fs::path& path) : path_(path.string()), file_(path_, O_RDONLY | O_NONBLOCK) {
  // The system saw the name as far as that byte.
  if (path_.find('\0') != std::string::npos) throw DataError("a name with a NUL byte is that of no file");
  if (!file_.valid()) refuse(path_, "opened");
}

int64_t InputFile::bytes() const {
  struct stat status {};
  if (fstat(file_.get(), &status) != 0 || !S_ISREG(status.st_mode))
    throw DataError(path_ + ": is not a regular file that can be read");
  return status.st_size;
}

size_t InputFile::read(int64_t offset, std::span<uint8_t> into) const {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got = pread(file_.get(), into.data() + done, into.size() - done, offset + static_cast<int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(path_, "read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void check_picture_bytes(const std::string& name, int64_t bytes) {
  if (bytes > kMaxPictureBytes)
    throw DataError(name + ": has " + std::to_string(bytes) + " bytes, expected at most " +
                    std::to_string(kMaxPictureBytes) + " for a picture");
}

RawSample read_picture_file(const fs::path& path) {
  const InputFile file(path);
  const int64_t bytes = file.bytes();
  check_picture_bytes(path.string(), bytes);
  RawSample sample;
  sample.bytes.resize(static_cast<size_t>(bytes));
  sample.bytes.resize(file.read(0, sample.bytes));
  return sample;
}

size_t read_picture_part(const fs::path& path, int64_t offset, std::span<uint8_t> into) {
  const InputFile file(path);
  file.bytes();  // a file that became a pipe or a folder is refused here
  return file.read(offset, into);
}

namespace {

template <class Wanted>
std::vector<std::string> list(const fs::path& folder, Wanted wanted) {
  std::vector<std::string> names;
  try {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      std::string name = entry.path().filename().string();
      if (!name.starts_with('.') && wanted(entry)) names.push_back(std::move(name));
    }
  } catch (const fs::filesystem_error& error) {
    const fs::path& at = error.path1().empty() ? folder : error.path1();  // the folder, or an entry that cannot be told
    refuse(at.string(), "listed", error.code().value());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// What is at a path, to tell its format by.
struct Look {
  fs::path path;
  bool is_folder = false;
  std::vector<std::string> files;  // of a folder, sorted
};

bool any_file(const Look& at, bool (*is)(const std::string&)) {
  return std::any_of(at.files.begin(), at.files.end(), is);
}

bool is_picture_file(const fs::path& path) {
  const InputFile file(path);
  PictureBytes bytes([&](int64_t offset, std::span<uint8_t> into) { return file.read(offset, into); });
  return picture_format(bytes).has_value();
}

// A file of CIFAR's records is told by its length alone.
bool is_records(const fs::path& path, int64_t record) {
  const int64_t bytes = InputFile(path).bytes();
  return bytes > 0 && bytes % record == 0 && !is_picture_file(path);
}

// A folder of such files has no folders beside them: an image folder may have an archive, an array or a packed copy
// lying about.
template <class Is>
bool holds_only(const Look& at, const Is& is) {
  return std::any_of(at.files.begin(), at.files.end(), is) && list_folders(at.path).empty();
}

struct Format {
  std::string_view name;
  bool (*is)(const Look&);
  std::unique_ptr<Dataset> (*open)(const fs::path&, const DatasetOptions&);
  std::string_view training;  // what a training split looks like
};
// Of a format without an index.
template <std::unique_ptr<Dataset> (*open)(const fs::path&, Split)>
std::unique_ptr<Dataset> plain(const fs::path& path, const DatasetOptions& options) {
  return open(path, options.split);
}
template <auto open>
std::unique_ptr<Dataset> indexed(const fs::path& path, const DatasetOptions& options) {
  return open(path, options.split, options.index, clock_now());
}
// The first that the path looks like is taken; the last takes every other folder, and none other files.
constexpr std::array kFormats = {
    Format{"packed",
           [](const Look& at) {
             const auto is_set = [](const std::string& name) { return name.ends_with(kPackedEnding); };
             if (!at.is_folder) return is_set(at.path.string()) || begins_as_packed(at.path.string());
             return holds_only(at, is_set);
           },
           plain<open_packed>, "pictures of its training split"},
    Format{"numpy",
           [](const Look& at) {
             if (!at.is_folder) return at.path.extension() == ".npz";
             return any_file(at, is_numpy_pictures) ||
                    holds_only(at, [](const std::string& name) { return name.ends_with(".npy"); });
           },
           plain<open_numpy>, "train_images and train_labels, or x_train and y_train"},
    Format{"tar", [](const Look& at) { return at.is_folder ? holds_only(at, kTar.named) : is_tar(at.path); },
           indexed<open_tar>, "train/<class>/<picture>, or WebDataset shards train*.tar"},
    Format{"zip", [](const Look& at) { return at.is_folder ? holds_only(at, kZip.named) : is_zip(at.path); },
           indexed<open_zip>, "train/<class>/<picture>"},
    Format{"manifest", [](const Look& at) { return !at.is_folder && is_manifest(at.path); }, indexed<open_manifest>,
           "a line whose split is train or nothing"},
    Format{"cifar100",
           [](const Look& at) {
             return at.is_folder
                        ? any_file(at, [](const std::string& name) { return name == "train.bin"; }) &&
                              any_file(at, [](const std::string& name) { return name == "fine_label_names.txt"; })
                        : !is_records(at.path, 3073) && is_records(at.path, 3074);
           },
           plain<open_cifar100>, "train.bin"},
    Format{"cifar10",
           [](const Look& at) {
             if (!at.is_folder) return is_records(at.path, 3073) || at.path.extension() == ".bin";
             return any_file(at, [](const std::string& name) {
               return (name.starts_with("data_batch_") || name.starts_with("test_batch")) && name.ends_with(".bin");
             });
           },
           plain<open_cifar10>, "data_batch_*.bin"},
    Format{"idx",
           [](const Look& at) {
             return any_file(at, [](const std::string& name) {
               return name.starts_with("train-images") || name.starts_with("t10k-images");
             });
           },
           plain<open_idx>, "train-images* and train-labels*"},
    Format{"folder", [](const Look& at) { return at.is_folder; }, open_image_folder, "train/<class>/<picture>"}};

[[noreturn]] void refuse_file(const fs::path& path) {
  if (is_picture_file(path))
    throw DataError(path.string() +
                    ": is a picture, not a data set; name a folder with <class>/<picture>, or look at it "
                    "with convolt predict");
  throw FormatError(path.string() +
                    ": is of no format that Convolt knows; expected a folder of pictures or of .npy "
                    "files, a packed set (.cvt), a tar or zip, a list (.csv, .tsv, .jsonl), an .npz or CIFAR's .bin");
}

const Format& format_of(const fs::path& path, const std::string& wanted) {
  Look at{path, fs::is_directory(path), {}};
  if (wanted == "auto" && at.is_folder) at.files = list_files(path);
  const auto found = std::find_if(kFormats.begin(), kFormats.end(),
                                  [&](const Format& f) { return wanted == "auto" ? f.is(at) : f.name == wanted; });
  if (found == kFormats.end() && wanted == "auto") refuse_file(path);
  if (found == kFormats.end())
    throw UsageError("unknown --data-format '" + wanted + "': expected " + dataset_formats());
  return *found;
}

}  // namespace

std::vector<std::string> list_folders(const fs::path& folder) {
  return list(folder, [](const fs::directory_entry& entry) { return entry.is_directory(); });
}
std::vector<std::string> list_files(const fs::path& folder) {
  return list(folder, [](const fs::directory_entry& entry) { return entry.is_regular_file(); });
}

std::string dataset_formats() {
  std::string names = "auto";
  for (const Format& f : kFormats) names += (&f == &kFormats.back() ? " or " : ", ") + std::string(f.name);
  return names;
}

std::unique_ptr<Dataset> open_dataset(const DatasetOptions& options) {
  const fs::path path(options.path);
  std::error_code error;
  if (!fs::exists(path, error))
    throw DataError(options.path + ": no such file or folder; expected a data set" +
                    (options.path.find_first_of("*{") == std::string::npos ? "" : ", of shards the folder"));
  try {
    const Format& format = format_of(path, options.format);
    auto dataset = format.open(path, options);
    if (!dataset && options.split == Split::train)
      throw NoTrainingSplit(options.path + ": has no training split; expected " + std::string(format.training));
    return dataset;
  } catch (const fs::filesystem_error& failure) {
    throw DataError(options.path + ": cannot be looked at (" + failure.code().message() + ")");
  }
}

}  // namespace convolt
