#include <algorithm>

#include "convolt/error.h"
#include "data/sources.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

class ImageFolder final : public Dataset {
public:
  ImageFolder(fs::path root, std::vector<std::string> classes) : root_(std::move(root)) {
    class_names_ = std::move(classes);
    for (size_t c = 0; c < class_names_.size(); ++c) add_class(c);
    if (files_.empty())
      throw DataError(root_.string() + ": has no files in its class folders; expected <class>/<picture>");
  }

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  int32_t label(int64_t i) const override { return files_[static_cast<size_t>(i)].label; }
  std::string name(int64_t i) const override { return path(i).string(); }
  std::string describe() const override { return "image folder"; }

  RawSample read(int64_t i) const override { return read_picture_file(path(i)); }
  bool reads_parts() const override { return true; }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    return read_picture_part(path(i), offset, into);
  }

private:
  struct File {
    int32_t label;
    std::string below;  // path below the class folder
  };

  fs::path path(int64_t i) const {
    const File& file = files_[static_cast<size_t>(i)];
    return root_ / class_names_[static_cast<size_t>(file.label)] / file.below;
  }

  // Every regular file, also in nested folders, in bytewise order of its path. Links to folders are not followed below
  // the class folder, since they may lead round in a circle.
  void add_class(size_t c) {
    const fs::path folder = root_ / class_names_[c];
    std::vector<std::string> names;
    try {
      for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator();
           ++entry) {
        if (entry->path().filename().string().starts_with('.'))
          entry.disable_recursion_pending();
        else if (entry->is_regular_file())
          names.push_back(entry->path().lexically_relative(folder).string());
      }
    } catch (const fs::filesystem_error& error) {
      throw DataError(folder.string() + ": cannot be listed (" + error.code().message() + ")");
    }
    std::sort(names.begin(), names.end());
    for (std::string& name : names) files_.push_back({static_cast<int32_t>(c), std::move(name)});
  }

  fs::path root_;
  std::vector<File> files_;
};

fs::path find_validation(const fs::path& path) {
  for (const char* name : kValidationNames)
    if (fs::is_directory(path / name)) return path / name;
  return {};
}

std::vector<std::string> classes_of(const fs::path& root) {
  std::vector<std::string> classes = list_folders(root);
  check_has_classes(classes, root);
  return classes;
}

}  // namespace

void check_has_classes(const std::vector<std::string>& classes, const fs::path& root) {
  if (classes.empty())
    throw DataError(root.string() +
                    ": has no class folders; expected train/<class>/<picture> (and val/<class>/<picture>) or "
                    "<class>/<picture>");
}

void check_all_used(const Dataset& set, const fs::path& root) {
  std::vector<bool> seen(set.class_names().size());
  for (int64_t i = 0; i < set.size(); ++i) seen[static_cast<size_t>(set.label(i))] = true;
  for (size_t c = 0; c < seen.size(); ++c)
    if (!seen[c]) throw DataError((root / set.class_names()[c]).string() + ": the class folder has no pictures");
}

void check_same_classes(const std::vector<std::string>& train, const std::vector<std::string>& validation,
                        const fs::path& root) {
  for (const std::string& name : validation)
    if (!std::binary_search(train.begin(), train.end(), name))
      throw DataError(root.string() + ": has the class folder '" + name + "', which the training split lacks");
  for (const std::string& name : train)
    if (!std::binary_search(validation.begin(), validation.end(), name))
      throw DataError(root.string() + ": lacks the class folder '" + name +
                      "', which the training split has (an empty one will do)");
}

std::unique_ptr<Dataset> open_image_folder(const fs::path& path, Split split) {
  if (!fs::is_directory(path)) throw DataError(path.string() + ": is not a folder; an image folder was expected");
  const fs::path train = path / "train", validation = find_validation(path);
  const bool has_train = fs::is_directory(train);
  if (split == Split::train) {
    if (!has_train && !validation.empty()) return nullptr;
    const fs::path& root = has_train ? train : path;
    auto set = std::make_unique<ImageFolder>(root, classes_of(root));
    check_all_used(*set, root);
    return set;
  }
  if (validation.empty()) return nullptr;
  const std::vector<std::string> classes = classes_of(validation);
  if (has_train) check_same_classes(classes_of(train), classes, validation);
  return std::make_unique<ImageFolder>(validation, classes);
}

}  // namespace convolt
