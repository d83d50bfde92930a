#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "convolt/error.h"
#include "data/sources.h"

namespace convolt {

namespace fs = std::filesystem;

int32_t Dataset::label(int64_t i) const {
  const RawSample sample = read(i);
  if (!sample.label)
    throw UsageError(name(i) + ": has no label; a data set gives RawSample::label in read(), or defines label()");
  return *sample.label;
}

std::string Dataset::name(int64_t i) const { return "sample " + std::to_string(i); }

std::string Dataset::describe() const { return "data set"; }

size_t Dataset::read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const {
  const RawSample sample = read(i);
  const auto size = static_cast<int64_t>(sample.bytes.size());
  const auto count = static_cast<size_t>(std::clamp<int64_t>(size - offset, 0, static_cast<int64_t>(into.size())));
  if (count > 0) std::memcpy(into.data(), sample.bytes.data() + offset, count);
  return count;
}

InputFile::InputFile(const fs::path& path) : path_(path.string()), file_(path_, O_RDONLY | O_NONBLOCK) {
  if (!file_.valid()) throw DataError(path_ + ": cannot be opened (" + errno_reason() + ")");
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
    if (got < 0) throw DataError(path_ + ": cannot be read (" + errno_reason() + ")");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

RawSample read_picture_file(const fs::path& path) {
  constexpr int64_t kMaxBytes = int64_t{1} << 30;
  const InputFile file(path);
  const int64_t bytes = file.bytes();
  if (bytes > kMaxBytes)
    throw DataError(path.string() + ": has " + std::to_string(bytes) + " bytes, expected at most " +
                    std::to_string(kMaxBytes) + " for a picture");
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
    throw DataError(folder.string() + ": cannot be listed (" + error.code().message() + ")");
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_cifar10_folder(const std::vector<std::string>& files) {
  return std::any_of(files.begin(), files.end(), [](const std::string& name) {
    return (name.starts_with("data_batch_") || name.starts_with("test_batch")) && name.ends_with(".bin");
  });
}

bool is_idx_folder(const std::vector<std::string>& files) {
  return std::any_of(files.begin(), files.end(), [](const std::string& name) {
    return name.starts_with("train-images") || name.starts_with("t10k-images");
  });
}

// Tells the format by looking at the path.
std::string find_format(const fs::path& path) {
  if (!fs::is_directory(path)) return "cifar10";
  const std::vector<std::string> files = list_files(path);
  return is_cifar10_folder(files) ? "cifar10" : is_idx_folder(files) ? "idx" : "folder";
}

}  // namespace

std::vector<std::string> list_folders(const fs::path& folder) {
  return list(folder, [](const fs::directory_entry& entry) { return entry.is_directory(); });
}
std::vector<std::string> list_files(const fs::path& folder) {
  return list(folder, [](const fs::directory_entry& entry) { return entry.is_regular_file(); });
}

std::unique_ptr<Dataset> open_dataset(const DatasetOptions& options) {
  const fs::path path(options.path);
  const std::string& wanted = options.format;
  if (wanted != "auto" && wanted != "folder" && wanted != "cifar10" && wanted != "idx")
    throw UsageError("unknown --data-format '" + wanted + "': expected auto, folder, cifar10 or idx");
  std::error_code error;
  if (!fs::exists(path, error))
    throw DataError(options.path + ": no such file or folder; --data-path names a data set");
  try {
    const std::string format = wanted == "auto" ? find_format(path) : wanted;
    auto dataset = format == "folder"    ? open_image_folder(path, options.split)
                   : format == "cifar10" ? open_cifar10(path, options.split)
                                         : open_idx(path, options.split);
    if (!dataset && options.split == Split::train)
      throw DataError(options.path + ": has no training split; expected " +
                      (format == "folder"    ? "train/<class>/<picture>"
                       : format == "cifar10" ? "data_batch_*.bin"
                                             : "train-images* and train-labels*"));
    return dataset;
  } catch (const fs::filesystem_error& failure) {
    throw DataError(options.path + ": cannot be looked at (" + failure.code().message() + ")");
  }
}

}  // namespace convolt
