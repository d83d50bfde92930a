// The data set formats behind open_dataset().
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "convolt/dataset.h"
#include "convolt/error.h"
#include "io/descriptor.h"

namespace convolt {

// Of open_dataset(), where a data set has pictures for validation alone.
class NoTrainingSplit : public DataError {
  using DataError::DataError;
};

// Each returns nullptr when the path has no such split (for a validation split only) and throws DataError or
// FormatError.
std::unique_ptr<Dataset> open_image_folder(const std::filesystem::path& path, const DatasetOptions& options);
std::unique_ptr<Dataset> open_cifar10(const std::filesystem::path& path, Split split);
std::unique_ptr<Dataset> open_cifar100(const std::filesystem::path& path, Split split);
std::unique_ptr<Dataset> open_packed(const std::filesystem::path& path, Split split);
std::unique_ptr<Dataset> open_idx(const std::filesystem::path& path, Split split);
std::unique_ptr<Dataset> open_numpy(const std::filesystem::path& path, Split split);
// Whether a file is called as the arrays of pictures are that open_numpy() looks for.
bool is_numpy_pictures(const std::string& file);
// `now`: what changed shortly before is not yet kept in an index (index_cache.h).
std::unique_ptr<Dataset> open_manifest(const std::filesystem::path& path, Split split, const IndexOptions& index,
                                       int64_t now);
// Whether a file looks like one.
bool is_manifest(const std::filesystem::path& path);
// An archive, or a folder of shards. Whether a file is one is told by its content, else by its name.
std::unique_ptr<Dataset> open_tar(const std::filesystem::path& path, Split split, const IndexOptions& index,
                                  int64_t now);
std::unique_ptr<Dataset> open_zip(const std::filesystem::path& path, Split split, const IndexOptions& index,
                                  int64_t now);
bool is_tar(const std::filesystem::path& file);
bool is_zip(const std::filesystem::path& file);

// The folder of a split in an image folder; nothing where there is none.
std::optional<std::string> split_folder_in(const std::filesystem::path& path, Split split);
// Whether a file in a class folder tells by its name that it is no picture ("labels.json", "Thumbs.db"). Others are
// samples, and bad ones where they are no pictures after all.
bool is_no_picture(std::string_view name);
// What is asked of the class folders below `root`, wherever they are: that there are some, that each has a sample in
// training, and that validation has those of training. Throw DataError.
void check_has_classes(const std::vector<std::string>& classes, const std::filesystem::path& root);
void check_all_used(const Dataset& set, const std::filesystem::path& root);
void check_same_classes(const std::vector<std::string>& train, const std::vector<std::string>& validation,
                        const std::filesystem::path& root);

// Names in `folder` (not hidden), sorted bytewise; folders or regular files, links followed. Throws DataError.
std::vector<std::string> list_folders(const std::filesystem::path& folder);
std::vector<std::string> list_files(const std::filesystem::path& folder);

// An open file, read at any offset by any thread. Throws DataError with the path, but Error and OutOfMemoryError where
// files or memory have run out, which is no fault of its own.
class InputFile {
public:
  explicit InputFile(const std::filesystem::path& path);
  // One that is open already; `path` is for messages.
  InputFile(const std::filesystem::path& path, Descriptor file) : path_(path.string()), file_(std::move(file)) {}
  int64_t bytes() const;
  // As far as the file goes; returns how many bytes it got.
  size_t read(int64_t offset, std::span<uint8_t> into) const;

private:
  std::string path_;
  Descriptor file_;
};

// The most that is taken for one picture.
constexpr int64_t kMaxPictureBytes = int64_t{1} << 30;
// Throws DataError above it.
void check_picture_bytes(const std::string& name, int64_t bytes);
// A picture file, whole (at most 1 GiB) or a part of it (Dataset::read_part). Throw DataError with the path.
RawSample read_picture_file(const std::filesystem::path& path);
size_t read_picture_part(const std::filesystem::path& path, int64_t offset, std::span<uint8_t> into);

}  // namespace convolt
