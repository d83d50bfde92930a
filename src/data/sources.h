// The data set formats behind open_dataset().
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "convolt/dataset.h"
#include "io/descriptor.h"

namespace convolt {

// Each returns nullptr when the path has no such split (for a validation split only) and throws DataError or
// FormatError.
std::unique_ptr<Dataset> open_image_folder(const std::filesystem::path& path, Split split);
std::unique_ptr<Dataset> open_cifar10(const std::filesystem::path& path, Split split);
std::unique_ptr<Dataset> open_packed(const std::filesystem::path& path, Split split);
std::unique_ptr<Dataset> open_idx(const std::filesystem::path& path, Split split);

// Names in `folder` (not hidden), sorted bytewise; folders or regular files, links followed. Throws DataError.
std::vector<std::string> list_folders(const std::filesystem::path& folder);
std::vector<std::string> list_files(const std::filesystem::path& folder);

// An open file, read at any offset by any thread. Throws DataError with the path.
class InputFile {
public:
  explicit InputFile(const std::filesystem::path& path);
  int64_t bytes() const;
  // As far as the file goes; returns how many bytes it got.
  size_t read(int64_t offset, std::span<uint8_t> into) const;

private:
  std::string path_;
  Descriptor file_;
};

// A picture file, whole (at most 1 GiB) or a part of it (Dataset::read_part). Throw DataError with the path.
RawSample read_picture_file(const std::filesystem::path& path);
size_t read_picture_part(const std::filesystem::path& path, int64_t offset, std::span<uint8_t> into);

}  // namespace convolt
