#include <algorithm>
#include <array>

#include "convolt/error.h"
#include "data/folder_scan.h"
#include "data/index_cache.h"
#include "data/sources.h"
#include "data/split_names.h"

namespace convolt {
namespace {

namespace fs = std::filesystem;

class ImageFolder final : public Dataset {
public:
  ImageFolder(fs::path root, std::vector<std::string> classes, const IndexOptions& options)
      : root_(std::move(root)),
        index_(scan_folder(root_, classes, options.use ? index_path(root_) : fs::path(), options, clock_now())) {
    class_names_ = std::move(classes);
    if (index_.files().empty())
      throw DataError(root_.string() + ": has no files in its class folders; expected <class>/<picture>");
  }

  int64_t size() const override { return static_cast<int64_t>(index_.files().size()); }
  int32_t label(int64_t i) const override { return file(i).label; }
  std::string name(int64_t i) const override { return path(i).string(); }
  std::string describe() const override { return "image folder"; }

  RawSample read(int64_t i) const override { return read_picture_file(path(i)); }
  bool reads_parts() const override { return true; }
  size_t read_part(int64_t i, int64_t offset, std::span<uint8_t> into) const override {
    return read_picture_part(path(i), offset, into);
  }
  std::optional<PictureExtent> extent(int64_t i) const override {
    if (!index_.measured()) return std::nullopt;
    return PictureExtent{file(i).height, file(i).width};
  }

private:
  const IndexedFile& file(int64_t i) const { return index_.files()[static_cast<size_t>(i)]; }
  fs::path path(int64_t i) const {
    return root_ / class_names_[static_cast<size_t>(file(i).label)] / index_.name(file(i));
  }

  fs::path root_;
  PictureIndex index_;
};

std::vector<std::string> classes_of(const fs::path& root) {
  std::vector<std::string> classes = list_folders(root);
  check_has_classes(classes, root);
  return classes;
}

}  // namespace

std::optional<std::string> split_folder_in(const fs::path& path, Split split) {
  return split_folder(list_folders(path), split,
                      [&](const std::string& name) { return !list_folders(path / name).empty(); });
}

bool is_no_picture(std::string_view name) {
  constexpr std::array kEndings{"txt",  "md",  "rst", "html", "htm", "pdf",  "json", "jsonl", "ndjson", "xml",
                                "yaml", "yml", "csv", "tsv",  "ini", "toml", "db",   "log",   "py",     "ipynb",
                                "sh",   "npy", "npz", "pkl",  "zip", "tar",  "tgz",  "gz",    "cvt"};
  const size_t dot = name.rfind('.');
  return dot != std::string_view::npos &&
         std::ranges::find(kEndings, lower_case(name.substr(dot + 1))) != kEndings.end();
}

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

std::unique_ptr<Dataset> open_image_folder(const fs::path& path, const DatasetOptions& options) {
  if (!fs::is_directory(path)) throw DataError(path.string() + ": is not a folder; an image folder was expected");
  const auto train = split_folder_in(path, Split::train), validation = split_folder_in(path, Split::validation);
  if (options.split == Split::train) {
    if (!train && validation) return nullptr;
    const fs::path root = train ? path / *train : path;
    auto set = std::make_unique<ImageFolder>(root, classes_of(root), options.index);
    check_all_used(*set, root);
    return set;
  }
  if (!validation) return nullptr;
  const fs::path root = path / *validation;
  const std::vector<std::string> classes = classes_of(root);
  if (train) check_same_classes(classes_of(path / *train), classes, root);
  return std::make_unique<ImageFolder>(root, classes, options.index);
}

}  // namespace convolt
